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

// first returns the first address of a family in a range; invalid if
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

// limits are what a pool may give of its network. The zero value allows all.
type limits struct {
	ranges  []AddressRange
	noEdges bool
}

// none reports whether there is no limit at all.
func (l limits) none() bool { return len(l.ranges) == 0 && !l.noEdges }

// allow reports whether the pool may give a. A pool that is limited to IPv4
// ranges gives no IPv6 addresses.
func (l limits) allow(a netip.Addr) bool {
	if l.noEdges && isEdge(a) {
		return false
	}
	if len(l.ranges) == 0 {
		return true
	}
	for _, r := range l.ranges {
		if r.Start.BitLen() == a.BitLen() && !a.Less(r.Start) && !r.End.Less(a) {
			return true
		}
	}
	return false
}

// overlap reports whether the pool may give any address from first to last.
func (l limits) overlap(first, last netip.Addr) bool {
	if len(l.ranges) == 0 {
		return l.inside(first, last)
	}
	for _, r := range l.ranges {
		if r.Start.BitLen() != first.BitLen() {
			continue
		}
		from, to := first, last
		if from.Less(r.Start) {
			from = r.Start
		}
		if r.End.Less(to) {
			to = r.End
		}
		if !to.Less(from) && l.inside(from, to) {
			return true
		}
	}
	return false
}

// inside reports whether a run has an address that may be given. At most two
// in a row are edges, .255 and .0.
func (l limits) inside(from, to netip.Addr) bool {
	for range 3 {
		if !from.IsValid() || to.Less(from) {
			return false
		}
		if !l.noEdges || !isEdge(from) {
			return true
		}
		from = from.Next()
	}
	return false
}

// isEdge reports whether an address ends in .0 or .255. Some old clients and
// firewalls take them for the network's or its broadcast address, whatever the
// netmask is.
func isEdge(a netip.Addr) bool {
	if !a.Is4() {
		return false
	}
	last := a.As4()[3]
	return last == 0 || last == 255
}
