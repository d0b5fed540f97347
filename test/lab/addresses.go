package lab

import (
	"fmt"
	"net"
	"net/netip"
)

// The networks of the lab. They are fixed, since every lab has namespaces of its
// own.
var (
	PublicV4   = netip.MustParsePrefix("203.0.113.0/24")
	PublicV6   = netip.MustParsePrefix("2001:db8:113::/64")
	PrivateV4  = netip.MustParsePrefix("10.20.0.0/24")
	PrivateV6  = netip.MustParsePrefix("fd00:20::/64")
	MgmtV4     = netip.MustParsePrefix("10.30.0.0/24")
	PodsV4     = netip.MustParsePrefix("10.244.0.0/16")
	PodsV6     = netip.MustParsePrefix("fd00:244::/32")
	ServicesV4 = netip.MustParsePrefix("10.96.0.0/16")
	ServicesV6 = netip.MustParsePrefix("fd00:96::/112")
)

// Where the parts of the control plane listen.
var (
	ControlAddr   = netip.MustParseAddr("10.30.0.1")
	APIServerPort = uint16(6443)
	OneSimPort    = uint16(2633)
	RouterPort    = uint16(9443)
)

// addr parses an address made of a pattern with numbers.
func addr(format string, args ...any) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf(format, args...))
}

// publicRouter and the like give the addresses of hosts by their number, from 1.
// Each kind begins with the same digits in both families and counts on from there,
// as an OpenNebula address range of pairs does: 10.20.0.11 and fd00:20::11 are one
// machine.
func publicRouter(i int) []netip.Addr {
	return []netip.Addr{addr("203.0.113.%d", i+1), addr("2001:db8:113::%x", i+1)}
}

func privateRouter(i int) []netip.Addr {
	return []netip.Addr{addr("10.20.0.%d", i), addr("fd00:20::%x", i)}
}

func privateNode(i int) []netip.Addr {
	return []netip.Addr{addr("10.20.0.%d", i+10), addr("fd00:20::%x", i+0x10)}
}

func mgmtRouter(i int) []netip.Addr { return []netip.Addr{addr("10.30.0.%d", i+10)} }
func mgmtNode(i int) []netip.Addr   { return []netip.Addr{addr("10.30.0.%d", i+100)} }

// podCIDRs are the pod networks of node i.
func podCIDRs(i int) []netip.Prefix {
	return []netip.Prefix{
		netip.PrefixFrom(addr("10.244.%d.0", i), 24),
		netip.PrefixFrom(addr("fd00:244:%d::", i), 64),
	}
}

// podGateway is what the pods of node i use as their next hop, and podAddrs the
// addresses of its k-th pod, from 1.
func podGateway(i int) []netip.Addr {
	return []netip.Addr{addr("10.244.%d.1", i), addr("fd00:244:%d::1", i)}
}

func podAddrs(i, k int) []netip.Addr {
	return []netip.Addr{addr("10.244.%d.%d", i, k+1), addr("fd00:244:%d::%x", i, k+1)}
}

// macFor derives a MAC address as OpenNebula does: 02:00 and the IPv4 address.
func macFor(addrs []netip.Addr) net.HardwareAddr {
	v4 := addrs[0].As4()
	return net.HardwareAddr{0x02, 0x00, v4[0], v4[1], v4[2], v4[3]}
}

// ipNet turns a prefix into what netlink takes.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// host is the prefix of a single address.
func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
