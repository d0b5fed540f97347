package bgp

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// TestEditsOfEachField: each edit of a peer is followed while the speaker runs, begins
// that peer's session anew only where there is no way around it, and never another's.
func TestEditsOfEachField(t *testing.T) {
	f := frr(t)
	must(t, f.Configure(t.Context(), "router bgp 64512", "neighbor fd00:79::11 remote-as 65001",
		"address-family ipv6 unicast", "neighbor fd00:79::11 activate", "exit-address-family"))
	n := newNode(0)
	other := n.desired.Peers[0]
	other.Name, other.Address, other.Source, other.IPv4 = "other", router6, nodes6[0], false
	n.desired.Peers = []Peer{other, n.desired.Peers[0]}
	n.routes(&Attributes{}, "203.0.113.7/32", "2001:db8::7/128")
	n.start(t, false)
	p := &n.desired.Peers[1]
	count := func(a netip.Addr) int {
		c, _ := uptime(t, f.ShowJSON, a)
		return c
	}
	settled := func(sessions int) {
		t.Helper()
		eventually(t, "both sessions stand", func() string {
			for _, a := range []netip.Addr{nodes4[0], nodes6[0]} {
				if _, state := uptime(t, f.ShowJSON, a); state != "Established" {
					return fmt.Sprintf("%s is %s", a, state)
				}
			}
			if got := count(nodes4[0]); got != sessions {
				return fmt.Sprintf("%d sessions, want %d", got, sessions)
			}
			return ""
		})
	}
	settled(1)
	sessions := 1
	for _, e := range []struct {
		what string
		anew bool
		edit func()
		seen func() string // nil: nothing but the session
	}{
		{"hold time", false, func() { p.HoldTime = 60 * time.Second }, nil},
		{"keepalive time", false, func() { p.KeepaliveTime = 20 * time.Second }, nil},
		{"connect retry time", false, func() { p.ConnectRetryTime = 3 * time.Second }, nil},
		{"BFD on", false, func() { p.BFDInterval, p.BFDMultiplier = time.Second, 3 }, nil},
		{"BFD faster", false, func() { p.BFDInterval, p.BFDMultiplier = 500*time.Millisecond, 5 }, nil},
		{"BFD off", false, func() { p.BFDInterval, p.BFDMultiplier = 0, 0 }, nil},
		{"families", true, func() { p.IPv6 = false }, func() string {
			if s := n.speaker.Sessions()[1]; s.Announced != 1 {
				return fmt.Sprintf("%+v", s)
			}
			return ""
		}},
		{"no graceful restart", true, func() { p.RestartTime = 0 }, nil},
		{"multihop", true, func() { p.Multihop = 4 }, nil},
		{"no source", true, func() { p.Source = netip.Addr{} }, nil},
	} {
		before := count(nodes4[0])
		e.edit()
		n.set()
		if e.anew {
			sessions = before + 1
			settled(sessions)
		}
		n.routes(&Attributes{MED: new(uint32)}, "203.0.113.7/32", "2001:db8::7/128")
		hops(t, f, "203.0.113.7/32", "10.79.0.11")
		if e.seen != nil {
			eventually(t, e.what, e.seen)
		}
		if got := count(nodes4[0]); got != sessions {
			t.Errorf("%s: %d sessions so far, want %d", e.what, got, sessions)
		}
		if got := count(nodes6[0]); got != 1 {
			t.Fatalf("%s: the other peer's session began anew", e.what)
		}
	}
	// The port: nobody is there, and the session comes back with the old one.
	p.Port = 1
	n.set()
	eventually(t, "the session says why", func() string {
		if s := n.speaker.Sessions()[1]; s.Up() || s.Reason != FaultRefused {
			return fmt.Sprintf("%+v", s)
		}
		return ""
	})
	p.Port = 179
	n.set()
	settled(sessions + 1)
	if got := count(nodes6[0]); got != 1 {
		t.Error("the port: the other peer's session began anew")
	}
}
