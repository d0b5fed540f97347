package member

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"
)

// KeySize is the length of a key in bytes: AES-256.
const KeySize = 32

// ErrKey is returned for a key file that does not hold keys.
var ErrKey = errors.New("the key file must hold one or more keys of 32 bytes")

// ring is the key file brought into memberlist's keyring. A key that is new is
// accepted at once, but used for sending only after a delay in which the others
// read it too; a key that is gone is accepted for as long again.
type ring struct {
	file  string
	delay time.Duration

	keys    *memberlist.Keyring
	content []byte
	pending time.Time // when the first key of content is to be used for sending; zero: it is
	retired time.Time // when keys that are not in content are to be forgotten; zero: there are none
}

// load reads the file. It reports whether there is a keyring to work with.
func (r *ring) load(now time.Time) (bool, error) {
	content, err := os.ReadFile(r.file)
	if err != nil {
		return r.keys != nil, fmt.Errorf("read gossip key: %w", err)
	}
	if len(content) == 0 || len(content)%KeySize != 0 {
		return r.keys != nil, fmt.Errorf("gossip key %s has %d bytes: %w", r.file, len(content), ErrKey)
	}
	keys := slices.Collect(slices.Chunk(content, KeySize))
	switch {
	case r.keys == nil:
		if r.keys, err = memberlist.NewKeyring(keys, keys[0]); err != nil {
			return false, fmt.Errorf("gossip key %s: %w", r.file, err)
		}
	case !bytes.Equal(content, r.content):
		for _, k := range keys {
			if err := r.keys.AddKey(k); err != nil {
				return true, fmt.Errorf("gossip key %s: %w", r.file, err)
			}
		}
		r.pending = now.Add(r.delay)
	}
	r.content = content
	return true, r.turn(now, keys)
}

// turn does what is due of a rotation.
func (r *ring) turn(now time.Time, keys [][]byte) error {
	if !r.pending.IsZero() && !now.Before(r.pending) {
		if err := r.keys.UseKey(keys[0]); err != nil {
			return fmt.Errorf("use new gossip key: %w", err)
		}
		r.pending, r.retired = time.Time{}, now.Add(r.delay)
	}
	if r.retired.IsZero() || now.Before(r.retired) {
		return nil
	}
	r.retired = time.Time{}
	for _, k := range slices.Clone(r.keys.GetKeys()) {
		if slices.ContainsFunc(keys, func(x []byte) bool { return bytes.Equal(x, k) }) {
			continue
		}
		if err := r.keys.RemoveKey(k); err != nil {
			return fmt.Errorf("forget old gossip key: %w", err)
		}
	}
	return nil
}
