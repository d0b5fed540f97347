package bgp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/onelb/onelb/test/lab/bgprouter"
	"github.com/onelb/onelb/test/lab/ns"
)

var (
	farRouter = netip.MustParseAddr("10.80.0.2")
	farHop    = netip.MustParseAddr("10.80.0.1")
)

// far makes a network behind the router, and a namespace on it.
func far(t *testing.T) *ns.Namespace {
	t.Helper()
	needRoot(t)
	name := routerName(os.Getpid()) + "-far"
	host, err := ns.New(name)
	must(t, err)
	t.Cleanup(func() { must(t, ns.DeleteNamed(name)) })
	must(t, routerNS.Do(func() error {
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o600); err != nil {
			return err
		}
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "far"}, PeerName: "far", PeerNamespace: netlink.NsFd(host.FD())}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		return address("far", farHop)
	}))
	must(t, host.Do(func() error {
		if err := address("far", farRouter); err != nil {
			return err
		}
		back := &net.IPNet{IP: net.IPv4(10, 79, 0, 0), Mask: net.CIDRMask(24, 32)}
		return netlink.RouteAdd(&netlink.Route{Dst: back, Gw: farHop.AsSlice()})
	}))
	to := &net.IPNet{IP: net.IPv4(10, 80, 0, 0), Mask: net.CIDRMask(24, 32)}
	way := &netlink.Route{Dst: to, Gw: router4.AsSlice()}
	must(t, netlink.RouteAdd(way))
	t.Cleanup(func() { must(t, netlink.RouteDel(way)) })
	return host
}

func address(device string, a netip.Addr) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	parsed, err := netlink.ParseAddr(netip.PrefixFrom(a, 24).String())
	if err != nil {
		return err
	}
	return errors.Join(netlink.LinkSetUp(link), netlink.AddrAdd(link, parsed))
}

// TestMultihop: a session through a router, external and internal.
func TestMultihop(t *testing.T) {
	host := far(t)
	f, err := bgprouter.StartFRR(t.Context(), placeIn(t, host))
	must(t, err)
	t.Cleanup(func() { must(t, f.Stop()) })
	must(t, f.Configure(t.Context(), frrConfig(nodes4[:1], "ebgp-multihop 2")...))
	n := newNode(0)
	p := &n.desired.Peers[0]
	p.Address, p.Far = farRouter, true
	n.routes(&Attributes{}, "203.0.113.7/32")
	n.start(t, false)
	// One hop is not enough, and which side has to be corrected is said.
	n.says("spec.multihop of the BGPPeer is not set")
	if r := n.session().Reason; r != FaultTooFar {
		t.Errorf("the reason is %s", r)
	}
	p.Multihop = 2
	n.set()
	n.up()
	hops(t, f, "203.0.113.7/32", "10.79.0.11")
	// The router allows one hop only: it is its side that refuses.
	must(t, f.Configure(t.Context(), "router bgp 64512", "no neighbor 10.79.0.11 ebgp-multihop"))
	eventually(t, "the session ends", func() string {
		if s := n.session(); s.Up() || s.LastError == "" {
			return fmt.Sprintf("%+v", s)
		}
		return ""
	})
	must(t, f.Configure(t.Context(), "router bgp 64512", "neighbor 10.79.0.11 ebgp-multihop 2"))
	n.up()
	// An internal peer may be anywhere.
	must(t, f.Configure(t.Context(), "router bgp 64512", "neighbor 10.79.0.11 remote-as 64512"))
	n.desired.Global.ASN, p.Multihop = 64512, 0
	n.set()
	n.up()
	eventually(t, "the route comes from inside", func() string {
		if s := route(t, f, "203.0.113.7/32"); len(s.Paths) != 1 || s.Paths[0].ASPath.String != "Local" {
			return fmt.Sprintf("%+v", s)
		}
		return ""
	})
}
