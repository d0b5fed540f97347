package addr

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A proxy entry makes the kernel answer on an interface for an address that another
// host has, to which it forwards. It has no lifetime: it stays until it is removed, or
// the interface goes down. Ours carry the mark Protocol.

// Proxies lists the proxy entries of ours, sorted. Their Valid is zero.
func (t *Table) Proxies() ([]Entry, error) {
	var out []Entry
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		bodies, err := t.dump(unix.RTM_GETNEIGH, unix.RTM_NEWNEIGH, neighbour(family, 0))
		if err != nil {
			return nil, fmt.Errorf("list proxy entries: %w", err)
		}
		for _, b := range bodies {
			e, ours, err := decodeProxy(b)
			if err != nil {
				return nil, err
			}
			if ours {
				out = append(out, e)
			}
		}
	}
	slices.SortFunc(out, func(a, b Entry) int {
		return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.Index, b.Index))
	})
	return out, nil
}

// AddProxy adds a proxy entry, or makes one that is there ours.
func (t *Table) AddProxy(e Entry) error {
	body, err := encodeProxy(e)
	if err != nil {
		return err
	}
	return wrap(t.execute(unix.RTM_NEWNEIGH, netlink.Create|netlink.Replace, body), "answer for %s on interface %d", e.Address, e.Index)
}

// RemoveProxy removes a proxy entry. One that has gone is no error.
func (t *Table) RemoveProxy(e Entry) error {
	body, err := encodeProxy(e)
	if err != nil {
		return err
	}
	err = t.execute(unix.RTM_DELNEIGH, 0, body)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return wrap(err, "answer no longer for %s on interface %d", e.Address, e.Index)
}

const (
	sizeofNeighbour = 12 // struct ndmsg
	ndaProtocol     = 12 // NDA_PROTOCOL, absent from x/sys/unix
)

// neighbour is the header of a message about proxy entries.
func neighbour(family uint8, index int) []byte {
	b := make([]byte, sizeofNeighbour)
	b[0] = family
	binary.NativeEndian.PutUint32(b[4:], uint32(index)) // #nosec G115 -- an interface index
	b[10] = unix.NTF_PROXY
	return b
}

func encodeProxy(e Entry) ([]byte, error) {
	family := uint8(unix.AF_INET)
	if e.Address.Is6() {
		family = unix.AF_INET6
	}
	a := netlink.NewAttributeEncoder()
	a.Bytes(unix.NDA_DST, e.Address.AsSlice())
	a.Uint8(ndaProtocol, Protocol)
	attributes, err := a.Encode()
	if err != nil {
		return nil, fmt.Errorf("encode proxy entry of %s: %w", e.Address, err)
	}
	return append(neighbour(family, e.Index), attributes...), nil
}

func decodeProxy(b []byte) (e Entry, ours bool, err error) {
	if len(b) < sizeofNeighbour {
		return e, false, fmt.Errorf("proxy entry of %d bytes", len(b))
	}
	e.Index = int(binary.NativeEndian.Uint32(b[4:]))
	proxy := b[10]&unix.NTF_PROXY != 0
	d, err := netlink.NewAttributeDecoder(b[sizeofNeighbour:])
	if err != nil {
		return e, false, fmt.Errorf("decode proxy entry: %w", err)
	}
	for d.Next() {
		switch d.Type() {
		case unix.NDA_DST:
			e.Address, _ = netip.AddrFromSlice(d.Bytes())
		case ndaProtocol:
			ours = d.Uint8() == Protocol
		}
	}
	if err := d.Err(); err != nil {
		return e, false, fmt.Errorf("decode proxy entry: %w", err)
	}
	return e, ours && proxy && e.Address.IsValid(), nil
}
