package nft

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"

	"github.com/onelb/onelb/loadbalancer/router"
)

// element is one element of a set in the bytes of the kernel. Fields of a
// concatenation are padded to four bytes.
type element struct {
	key string
	end string // last key of an interval
	val string // of a map
}

func compareElements(a, b element) int {
	if c := strings.Compare(a.key, b.key); c != 0 {
		return c
	}
	return strings.Compare(a.end, b.end)
}

// sortElements sorts unless that is already so, which is the common case.
func sortElements(e []element) {
	if !slices.IsSortedFunc(e, compareElements) {
		slices.SortFunc(e, compareElements)
	}
}

// change is what must happen to one set. An element with a new value is removed
// and added in the same transaction.
type change struct{ remove, add []element }

func (c change) empty() bool { return len(c.remove)+len(c.add) == 0 }

// net sorts a change and leaves out what is removed and added alike.
func (c change) net() change {
	if c.empty() {
		return c
	}
	slices.SortFunc(c.remove, compareElements)
	slices.SortFunc(c.add, compareElements)
	return diff(c.remove, c.add)
}

// apply returns a sorted list with the change; what lies between is copied as it is.
// It is not ok if something to remove is not there, or something to add is.
func (c change) apply(list []element) (out []element, ok bool) {
	remove, add := c.remove, c.add
	out = make([]element, 0, len(list)+len(add)-len(remove))
	for len(remove) > 0 || len(add) > 0 {
		removal := len(add) == 0 || len(remove) > 0 && compareElements(remove[0], add[0]) <= 0
		next := &add
		if removal {
			next = &remove
		}
		at, found := slices.BinarySearchFunc(list, (*next)[0], compareElements)
		if found != removal || found && list[at] != remove[0] {
			return nil, false
		}
		out, list = append(out, list[:at]...), list[at:]
		if removal {
			list = list[1:]
		} else {
			out = append(out, add[0])
		}
		*next = (*next)[1:]
	}
	return append(out, list...), true
}

// diff compares two sorted lists.
func diff(from, to []element) change {
	var c change
	for len(from) > 0 && len(to) > 0 {
		switch order := compareElements(from[0], to[0]); {
		case order < 0:
			c.remove, from = append(c.remove, from[0]), from[1:]
		case order > 0:
			c.add, to = append(c.add, to[0]), to[1:]
		default:
			if from[0].val != to[0].val {
				c.remove, c.add = append(c.remove, from[0]), append(c.add, to[0])
			}
			from, to = from[1:], to[1:]
		}
	}
	c.remove, c.add = append(c.remove, from...), append(c.add, to...)
	return c
}

func keyBytes(k router.Key) string {
	var b [24]byte
	n := copy(b[:], addressBytes(k.Address))
	b[n] = k.Protocol.Number()
	binary.BigEndian.PutUint16(b[n+4:], k.Port)
	return string(b[:n+8])
}

func addressBytes(a netip.Addr) string {
	if a.Is4() {
		b := a.As4()
		return string(b[:])
	}
	b := a.As16()
	return string(b[:])
}

// markBytes is a number in the byte order of a register.
func markBytes(n uint32) string {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], n)
	return string(b[:])
}

func portBytes(n uint16) string {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], n)
	return string(b[:])
}

// nameBytes is an interface name in its 16 bytes.
func nameBytes(name string) string {
	var b [16]byte
	copy(b[:15], name)
	return string(b[:])
}

// lastAddress is the last address of a prefix.
func lastAddress(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// outermost drops prefixes that others contain: the kernel refuses overlapping
// intervals. The result is sorted.
func outermost(prefixes []netip.Prefix) []netip.Prefix {
	sorted := slices.Clone(prefixes)
	slices.SortFunc(sorted, func(a, b netip.Prefix) int {
		if c := a.Masked().Addr().Compare(b.Masked().Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	out := sorted[:0]
	for _, p := range sorted {
		if n := len(out); n > 0 && out[n-1].Overlaps(p) {
			continue
		}
		out = append(out, p.Masked())
	}
	return out
}
