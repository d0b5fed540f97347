package one

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/onelb/onelb/ipam"
)

// OpenNebula makes the IPv6 addresses of ranges of types IP6 and IP4_6 as hosts
// do with stateless autoconfiguration: the range's prefix of 64 bits, and the
// EUI-64 of the lease's MAC address (RFC 4291, appendix A). It finds such an
// address by its MAC only, for hold, release and reserve alike.

// macAddress is a MAC address of 48 bits.
type macAddress [6]byte

// lowMACs is how many MAC addresses differ in their last three bytes only. What is
// before them in the EUI-64 is apart from them, so a range that runs over their
// end has two pieces of IPv6 addresses.
const lowMACs = 1 << 24

func parseMAC(s string) (macAddress, error) {
	b, err := net.ParseMAC(strings.TrimSpace(s))
	if err != nil || len(b) != len(macAddress{}) {
		return macAddress{}, fmt.Errorf("%q is no MAC address", s)
	}
	return macAddress(b), nil
}

// String writes it as OpenNebula does.
func (m macAddress) String() string { return net.HardwareAddr(m[:]).String() }

// low are the last three bytes.
func (m macAddress) low() int { return int(m[3])<<16 | int(m[4])<<8 | int(m[5]) }

// slaacAddress joins the first 64 bits of prefix with the EUI-64 of a MAC.
func slaacAddress(prefix netip.Addr, m macAddress) netip.Addr {
	b := prefix.As16()
	copy(b[8:], []byte{m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
	return netip.AddrFrom16(b)
}

// macOf is the MAC address that an IPv6 address was made of, if it has that form.
func macOf(a netip.Addr) (macAddress, bool) {
	b := a.As16()
	return macAddress{b[8] ^ 2, b[9], b[10], b[13], b[14], b[15]}, !a.Is4() && b[11] == 0xff && b[12] == 0xfe
}

// isSLAAC reports whether OpenNebula makes the IPv6 addresses of a range of that
// type of MAC addresses.
func isSLAAC(kind ipam.RangeKind) bool {
	return kind == ipam.RangeIP6SLAAC || kind == ipam.RangeIP4SLAAC
}

// slaac returns the first IPv6 address that OpenNebula makes in the range. An error
// says why there is none, or why it is not certain what the addresses are.
func (x *xmlAR) slaac() (netip.Addr, error) {
	name, shown := "GLOBAL_PREFIX", "IP6_GLOBAL"
	prefix, err := x.prefix(name)
	if err == nil && !prefix.IsValid() {
		name, shown = "ULA_PREFIX", "IP6_ULA"
		prefix, err = x.prefix(name)
	}
	switch {
	case err != nil:
		return netip.Addr{}, err
	case !prefix.IsValid():
		return netip.Addr{}, errors.New("it has neither GLOBAL_PREFIX nor ULA_PREFIX")
	}
	mac, err := parseMAC(x.MAC)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("MAC: %w", err)
	}
	if x.Size > lowMACs-mac.low() {
		return netip.Addr{}, fmt.Errorf("its %d MAC addresses from %s differ in more than the last three bytes, so that its IPv6 addresses are not consecutive", x.Size, mac)
	}
	first := slaacAddress(prefix, mac)
	if text := x.other(shown); text != "" {
		if a, err := parseAddr(text); err != nil || a != first {
			return netip.Addr{}, fmt.Errorf("OpenNebula calls its first address %s, which is not what %s and MAC %s make (%s)", text, name, mac, first)
		}
	}
	return first, nil
}

// prefix is the range's attribute of that name; invalid if it has none. oned takes
// the first 64 bits of it, whatever follows, and :: for none.
func (x *xmlAR) prefix(name string) (netip.Addr, error) {
	text := x.other(name)
	if text == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(text)
	bits := 64
	if p, perr := netip.ParsePrefix(text); perr == nil {
		a, bits, err = p.Addr(), p.Bits(), nil
	}
	if err != nil || !a.Is6() || a.Is4In6() || a.Zone() != "" || bits > 64 {
		return netip.Addr{}, fmt.Errorf("%s %q is no IPv6 prefix of 64 bits", name, text)
	}
	if a = netip.PrefixFrom(a, 64).Masked().Addr(); a.IsUnspecified() {
		return netip.Addr{}, nil
	}
	return a, nil
}

// other is one of the further elements of a range.
func (x *xmlAR) other(name string) string {
	i := slices.IndexFunc(x.Others, func(o xmlOther) bool { return o.XMLName.Local == name })
	if i < 0 {
		return ""
	}
	return strings.TrimSpace(x.Others[i].Value)
}
