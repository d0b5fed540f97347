package vm

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// sample is a tree with everything that one may have.
func sample(t *testing.T) tree {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "program"), []byte("12345"), 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	if err := os.Symlink("program", filepath.Join(dir, "other")); err != nil {
		t.Fatal(err)
	}
	files := tree{}
	files.dir("proc")
	files.link("usr/sbin/link", "program")
	files.file("etc/lines", []string{"a", "b"})
	files.file("etc/empty", nil)
	if err := files.add("usr/sbin", dir); err != nil {
		t.Fatal(err)
	}
	return files
}

func TestArchive(t *testing.T) {
	var first, second bytes.Buffer
	for _, out := range []*bytes.Buffer{&first, &second} {
		if err := sample(t).write(out); err != nil {
			t.Fatal(err)
		}
	}
	// The temporary directory has another name, which must not be seen.
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("equal trees, different archives")
	}
	if first.Len()%4 != 0 || !strings.HasPrefix(first.String(), "070701") || !bytes.Contains(first.Bytes(), []byte("TRAILER!!!\x00")) {
		t.Errorf("this is no archive: %q", first.String())
	}
	if _, err := exec.LookPath("cpio"); err != nil {
		t.Log("no cpio here: the kernel alone reads the archive")
		return
	}
	unpack(t, first.Bytes())
}

// unpack compares what cpio makes of the archive.
func unpack(t *testing.T, archive []byte) {
	t.Helper()
	dir := t.TempDir()
	cpio := exec.CommandContext(t.Context(), "cpio", "--extract", "--quiet", "--directory", dir)
	cpio.Stdin = bytes.NewReader(archive)
	if out, err := cpio.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for name, want := range map[string]string{
		"usr/sbin/program": "12345", "usr/sbin/other": "12345", "usr/sbin/link": "12345", "etc/lines": "a\nb\n", "etc/empty": "",
	} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	for name, want := range map[string]fs.FileMode{
		"proc": fs.ModeDir | 0o755, "usr/sbin/program": 0o755, "usr/sbin/link": fs.ModeSymlink | 0o777, "etc/lines": 0o644,
	} {
		if info, err := os.Lstat(filepath.Join(dir, name)); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v; want %v", name, info, err, want)
		}
	}
}
