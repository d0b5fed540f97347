package member

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestRotation(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	r := ring{file: file, delay: time.Minute}
	now := time.Unix(1000, 0)
	old, fresh := bytes.Repeat([]byte{1}, KeySize), bytes.Repeat([]byte{2}, KeySize)
	write := func(b []byte) {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(keys ...[]byte) {
		t.Helper()
		ok, err := r.load(now)
		if err != nil || !ok {
			t.Fatalf("load: %v, %v", ok, err)
		}
		got := r.keys.GetKeys()
		if !bytes.Equal(bytes.Join(got, nil), bytes.Join(keys, nil)) {
			t.Fatalf("keys %x, want %x", got, keys)
		}
	}
	if ok, err := r.load(now); ok || !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("without a file: %v, %v", ok, err)
	}
	write(old[:31])
	if ok, err := r.load(now); ok || !errors.Is(err, ErrKey) {
		t.Fatalf("with a short key: %v, %v", ok, err)
	}
	write(old)
	expect(old)
	write(fresh)
	expect(old, fresh) // accepted, not yet used
	now = now.Add(59 * time.Second)
	expect(old, fresh)
	now = now.Add(time.Second)
	expect(fresh, old) // used; the old one still accepted
	now = now.Add(time.Minute)
	expect(fresh)
	write(nil) // a rotation that went wrong loses nothing
	if ok, err := r.load(now); !ok || !errors.Is(err, ErrKey) {
		t.Fatalf("with an empty file: %v, %v", ok, err)
	}
	expectKept := r.keys.GetPrimaryKey()
	if !bytes.Equal(expectKept, fresh) {
		t.Fatalf("primary key %x", expectKept)
	}
	write(append(bytes.Clone(old), fresh...))
	expect(fresh, old)
	now = now.Add(time.Minute)
	expect(old, fresh)
	now = now.Add(time.Minute)
	expect(old, fresh) // both are in the file
}
