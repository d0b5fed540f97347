package ipam

import (
	"encoding/binary"
	"net/netip"
)

// Family is an IP address family.
type Family int

// The address families.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// String returns "IPv4" or "IPv6".
func (f Family) String() string {
	switch f {
	case IPv4:
		return "IPv4"
	case IPv6:
		return "IPv6"
	}
	return "no address family"
}

// families is the order in which both are worked on; the position is the
// index into arrays of two.
var families = [2]Family{IPv4, IPv6}

func (f Family) index() int {
	if f == IPv6 {
		return 1
	}
	return 0
}

// familyOf returns the family of a valid address.
func familyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// first returns the first static address of a family in a range; invalid if
// the range has none.
func (r Range) first(f Family) netip.Addr {
	if f == IPv4 {
		return r.First4
	}
	return r.First6
}

// advance returns the address n places after a. It is invalid if that is past
// the end of the family.
func advance(a netip.Addr, n int) netip.Addr {
	if a.Is4() {
		b := a.As4()
		v := uint64(binary.BigEndian.Uint32(b[:])) + uint64(n)
		if v > 0xffffffff {
			return netip.Addr{}
		}
		binary.BigEndian.PutUint32(b[:], uint32(v))
		return netip.AddrFrom4(b)
	}
	b := a.As16()
	low := binary.BigEndian.Uint64(b[8:])
	sum := low + uint64(n)
	binary.BigEndian.PutUint64(b[8:], sum)
	if sum < low {
		high := binary.BigEndian.Uint64(b[:8]) + 1
		if high == 0 {
			return netip.Addr{}
		}
		binary.BigEndian.PutUint64(b[:8], high)
	}
	return netip.AddrFrom16(b)
}

// position returns the place of a in a run of size addresses from first, and
// whether it is in there.
func position(first netip.Addr, size int, a netip.Addr) (int, bool) {
	if !first.IsValid() || a.BitLen() != first.BitLen() || a.Less(first) {
		return 0, false
	}
	x, y := first.As16(), a.As16()
	high := binary.BigEndian.Uint64(y[:8]) - binary.BigEndian.Uint64(x[:8])
	lowX, lowY := binary.BigEndian.Uint64(x[8:]), binary.BigEndian.Uint64(y[8:])
	if high > 1 || (high == 1 && lowY >= lowX) {
		return 0, false
	}
	d := lowY - lowX // modulo 2^64: right also across the carry
	if d >= uint64(size) {
		return 0, false
	}
	return int(d), true
}

// within reports whether a pool that is limited to these ranges may give a. No
// ranges: no limit. A pool that is limited to IPv4 ranges gives no IPv6 addresses.
func within(limits []AddressRange, a netip.Addr) bool {
	if len(limits) == 0 {
		return true
	}
	for _, l := range limits {
		if l.Start.BitLen() == a.BitLen() && !a.Less(l.Start) && !l.End.Less(a) {
			return true
		}
	}
	return false
}
