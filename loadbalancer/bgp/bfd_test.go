package bgp

import (
	"fmt"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// TestBFD: a peer that is silent is found long before its hold time, by either side.
func TestBFD(t *testing.T) {
	f := frr(t, slowBFD)
	n := withBFD(newNode(0)).start(t, false)
	hops(t, f, "203.0.113.7/32", "10.79.0.11")
	n.bfdUp()
	link := func(up bool) {
		must(t, routerNS.Do(func() error {
			l, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			if up {
				return netlink.LinkSetUp(l)
			}
			return netlink.LinkSetDown(l)
		}))
	}
	link(false)
	// Without BFD it would take the hold time, 90 s, which is more than the patience.
	eventually(t, "this side knows", func() string {
		if s := n.session(); s.Up() || !strings.Contains(s.LastError, "BFD heard nothing") || s.Reason != FaultBFD {
			return fmt.Sprintf("%+v", s)
		}
		return ""
	})
	hops(t, f, "203.0.113.7/32")
	link(true)
	must(t, configureAgain())
	hops(t, f, "203.0.113.7/32", "10.79.0.11")
}

// configureAgain gives the router its IPv6 address back, which goes with the link.
func configureAgain() error {
	return routerNS.Do(func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(router6.String() + "/64")
		if err != nil {
			return err
		}
		a.Flags = 0x02
		return netlink.AddrReplace(l, a)
	})
}
