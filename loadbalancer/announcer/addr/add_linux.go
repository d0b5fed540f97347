package addr

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Place is an address and the interface that is to have it.
type Place struct {
	Address netip.Addr
	On      Interface
}

// AddAll adds addresses as Add does, many in one message. The errors of single
// addresses are joined *EntryErrors; the others are added all the same.
func (t *Table) AddAll(places []Place, valid time.Duration) error {
	if valid < time.Second {
		return fmt.Errorf("add addresses: %w", ErrLifetime)
	}
	var errs []error
	for chunk := range slices.Chunk(places, batch) {
		if t.addChunk(chunk, valid) == nil {
			continue
		}
		for _, p := range t.absent(chunk, valid) { // one of them fails: find out which
			if err := t.Add(p.Address, p.On, valid); err != nil {
				errs = append(errs, &EntryError{Entry: Entry{Address: p.Address, Index: p.On.Index}, Err: err})
			}
		}
	}
	return errors.Join(errs...)
}

func (t *Table) addChunk(places []Place, valid time.Duration) error {
	messages := make([]netlink.Message, 0, len(places)+1)
	for _, p := range places {
		body, err := encodeAddress(p.Address, p.On.Index, p.On.Name, valid)
		if err != nil {
			return err
		}
		messages = append(messages, netlink.Message{
			Header: netlink.Header{Type: unix.RTM_NEWADDR, Flags: netlink.Request | netlink.Create | netlink.Excl},
			Data:   body,
		})
	}
	return t.sendAll(messages)
}

// absent leaves out what is there, is ours and was added just now; if that cannot be
// read, nothing.
func (t *Table) absent(places []Place, valid time.Duration) []Place {
	ours, err := t.Ours(func(netip.Addr) bool { return false })
	if err != nil {
		return places
	}
	there := map[Entry]bool{}
	for _, e := range ours {
		there[Entry{Address: e.Address, Index: e.Index}] = e.Valid >= valid-time.Second // the kernel may have begun to count
	}
	return slices.DeleteFunc(slices.Clone(places), func(p Place) bool { return there[Entry{Address: p.Address, Index: p.On.Index}] })
}
