package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/onelb/onelb/loadbalancer/bgp/unnumbered"
	"github.com/onelb/onelb/test/lab/bgprouter"
)

// TestUnnumbered: node and router find each other on a link, and routes of both
// families have the node's link-local address as next hop.
func TestUnnumbered(t *testing.T) {
	needRoot(t)
	f, err := bgprouter.StartFRR(t.Context(), place(t))
	must(t, err)
	t.Cleanup(func() { must(t, f.Stop()) })
	must(t, f.Configure(t.Context(),
		"router bgp 64512", "bgp router-id 10.79.0.1", "no bgp ebgp-requires-policy", "no bgp default ipv4-unicast",
		"neighbor eth0 interface remote-as 65001",
		"address-family ipv4 unicast", "neighbor eth0 activate", "exit-address-family",
		"address-family ipv6 unicast", "neighbor eth0 activate", "exit-address-family"))
	n := newNode(0)
	p := &n.desired.Peers[0]
	p.Source = netip.Addr{}
	p.Address = find(t, "eth0")
	if p.Address.Zone() != "eth0" || !p.Address.IsLinkLocalUnicast() {
		t.Fatalf("the router is %s", p.Address)
	}
	p.BFDInterval, p.BFDMultiplier = 500*time.Millisecond, 8
	must(t, f.Configure(t.Context(), "router bgp 64512", "neighbor eth0 "+slowBFD))
	n.routes(&Attributes{}, "203.0.113.7/32", "2001:db8::7/128")
	n.start(t, false)
	n.up()
	for _, prefix := range []string{"203.0.113.7/32", "2001:db8::7/128"} {
		eventually(t, "the router has "+prefix, func() string {
			s := route(t, f, prefix)
			if len(s.Paths) != 1 || !s.Paths[0].Valid || len(s.Paths[0].Nexthops) == 0 {
				return fmt.Sprintf("%+v", s)
			}
			for _, h := range s.Paths[0].Nexthops {
				if a, err := netip.ParseAddr(h.IP); err != nil || !a.IsLinkLocalUnicast() {
					t.Fatalf("%s has next hop %s", prefix, h.IP)
				}
			}
			return ""
		})
	}
	n.bfdUp()
	n.routes(&Attributes{})
	eventually(t, "the routes are gone", func() string {
		if s := route(t, f, "203.0.113.7/32"); len(s.Paths) > 0 {
			return fmt.Sprintf("%+v", s)
		}
		return ""
	})
}

// find is the router on a device. The Finder goes on until the test ends, as the router
// would forget this node.
func find(t *testing.T, device string) (found netip.Addr) {
	t.Helper()
	finder := unnumbered.New(unnumbered.Options{Changed: func() {}})
	finder.Set([]string{device})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- finder.Run(ctx) }()
	t.Cleanup(func() { cancel(); must(t, <-done) })
	eventually(t, "the router is found", func() (missing string) {
		var err error
		if found, err = finder.Router(device); err != nil {
			missing = err.Error()
		}
		return missing
	})
	return found
}
