package onesim

import (
	"encoding/binary"
	"net"
	"net/netip"
)

var linkLocal = netip.MustParseAddr("fe80::")

func ip4Number(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func ip4Add(a netip.Addr, n int) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], ip4Number(a)+uint32(n))
	return netip.AddrFrom4(b)
}

// ip6Add counts in the lower 64 bits.
func ip6Add(a netip.Addr, n int) netip.Addr {
	b := a.As16()
	binary.BigEndian.PutUint64(b[8:], binary.BigEndian.Uint64(b[8:])+uint64(n))
	return netip.AddrFrom16(b)
}

// ip4Diff is the distance of an address from the first one.
func ip4Diff(first netip.Addr, text string) (int, bool) {
	a, err := netip.ParseAddr(text)
	if err != nil || !a.Is4() {
		return 0, false
	}
	return int(ip4Number(a)) - int(ip4Number(first)), true
}

func ip6Diff(first netip.Addr, text string) (int, bool) {
	a, err := netip.ParseAddr(text)
	if err != nil || !a.Is6() || a.Is4In6() {
		return 0, false
	}
	x, y := first.As16(), a.As16()
	if [8]byte(x[:8]) != [8]byte(y[:8]) {
		return 0, false
	}
	diff := binary.BigEndian.Uint64(y[8:]) - binary.BigEndian.Uint64(x[8:])
	if diff >= 1<<31 {
		return 0, false
	}
	return int(diff), true
}

// slaac joins a /64 prefix with the EUI-64 of a MAC address.
func slaac(prefix netip.Addr, mac uint64) netip.Addr {
	b := prefix.As16()
	var m [8]byte
	binary.BigEndian.PutUint64(m[:], mac)
	copy(b[8:], []byte{m[2] ^ 2, m[3], m[4], 0xff, 0xfe, m[5], m[6], m[7]})
	return netip.AddrFrom16(b)
}

func macString(mac uint64) string {
	const hex = "0123456789abcdef"
	var b [17]byte
	for i := range b {
		b[i] = ':'
	}
	for i := range 6 {
		c := byte(mac >> (40 - 8*i))
		b[3*i], b[3*i+1] = hex[c>>4], hex[c&15]
	}
	return string(b[:])
}

func parseMAC(text string) (uint64, bool) {
	hw, err := net.ParseMAC(text)
	if err != nil || len(hw) != 6 {
		return 0, false
	}
	var b [8]byte
	copy(b[2:], hw)
	return binary.BigEndian.Uint64(b[:]), true
}
