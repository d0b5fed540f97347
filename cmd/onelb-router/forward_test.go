package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/onelb/onelb/loadbalancer/router"
)

// front is a frontend on both families and both protocols, with two backends.
func front(service string, address4, address6 string, port, backendPort uint16) router.Document {
	d := router.Document{Groups: []router.Group{
		{Name: "nodes4", Members: []router.Member{
			{Address: netip.MustParseAddr("10.20.0.11"), Node: "be1"}, {Address: netip.MustParseAddr("10.20.0.12"), Node: "be2"},
		}, Check: &router.Check{Port: 8080, Path: "/healthz"}},
		{Name: "nodes6", Members: []router.Member{
			{Address: netip.MustParseAddr("fd00:20::11"), Node: "be1"}, {Address: netip.MustParseAddr("fd00:20::12"), Node: "be2"},
		}, Check: &router.Check{Port: 8080, Path: "/healthz"}},
	}}
	for address, group := range map[string]string{address4: "nodes4", address6: "nodes6"} {
		for _, p := range []router.Protocol{router.TCP, router.UDP} {
			d.Frontends = append(d.Frontends, router.Frontend{
				Address: netip.MustParseAddr(address), Protocol: p, Port: port, Service: service, Group: group, BackendPort: backendPort,
			})
		}
	}
	return d
}

const (
	vip4 = "203.0.113.100"
	vip6 = "2001:db8:113::100"
)

// TestForward is the whole way: client, router, backends, in the real kernel.
func TestForward(t *testing.T) {
	l := newLAN(t)
	down1 := l.backend("be1", 8080)
	l.backend("be2", 8080)
	l.start()
	c := l.client()
	l.set(c, front("default/web", vip4, vip6, 8765, 8080))

	clients := map[string]string{"203.0.113.100:8765": "203.0.113.1", "[2001:db8:113::100]:8765": "2001:db8:113::1"}
	for address, client := range clients {
		for _, network := range []string{"tcp", "udp"} {
			// One that is too busy to answer its check in time is out for a moment.
			l.eventually("both backends answer over "+network+" at "+address, func() bool {
				got := l.spread("client", network, address, 40)
				if got["be1 "+client]+got["be2 "+client] != 40 {
					t.Fatalf("%s %s: answers %v, want the backends and the client's own address", network, address, got)
				}
				return got["be1 "+client] >= 5 && got["be2 "+client] >= 5
			})
		}
	}

	// From inside the answer must come back through the router, so the client's address is hidden.
	hidden := map[string]string{"203.0.113.100:8765": "10.20.0.1", "[2001:db8:113::100]:8765": "fd00:20::1"}
	for address, seen := range hidden {
		for _, network := range []string{"tcp", "udp"} {
			for _, from := range []string{"host", "be1"} {
				got := l.spread(from, network, address, 20)
				if got["be1 "+seen]+got["be2 "+seen] != 20 {
					t.Errorf("hairpin %s %s from %s: answers %v", network, address, from, got)
				}
			}
		}
		// The router itself reaches it too.
		if got := l.spread("router", "tcp", address, 5); len(got) == 0 {
			t.Errorf("from the router: %v", got)
		}
	}

	// What is no frontend is refused, although the address is on the router and it listens on 9443.
	for _, address := range []string{"203.0.113.100:9443", "[2001:db8:113::100]:9443", "203.0.113.100:81"} {
		if _, err := l.ask("client", "tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: %v, want connection refused", address, err)
		}
	}

	// A backend that fails its check gets no new connections, also of UDP clients that keep their port.
	udp, err := l.spaces["client"].DialContext(t.Context(), "udp", "203.0.113.100:8765")
	l.must(err)
	defer func() { _ = udp.Close() }()
	if _, err := exchange(udp, "udp", comes); err != nil {
		t.Error(err)
	}
	down1(true)
	l.eventually("be1 is out", func() bool {
		got := l.spread("client", "tcp", "203.0.113.100:8765", 20)
		s, err := exchange(udp, "udp", never)
		return got["be2 203.0.113.1"] == 20 && err == nil && strings.HasPrefix(s, "be2")
	})
	state := c.State().Instances[0]
	l.eventually("the client knows", func() bool {
		state = c.State().Instances[0]
		return state.Members == 4 && state.Healthy == 2 && len(state.Down) == 2
	})
	if got := state.Down[0].Message; !strings.Contains(got, "503") {
		t.Errorf("message %q, want the status 503", got)
	}
	down1(false)
	l.eventually("be1 is back", func() bool {
		return len(l.spread("client", "tcp", "203.0.113.100:8765", 20)) == 2
	})

	// The operator can look at it.
	if out := l.run("router", "nft", "list", "ruleset"); !strings.Contains(out, "203.0.113.100 . tcp . 8765 : 8080") {
		t.Errorf("nft list ruleset:\n%s", out)
	}
	if out := l.run("router", "ip", "address", "show", "dev", "eth0"); !strings.Contains(out, "203.0.113.100/32") || !strings.Contains(out, "2001:db8:113::100/128") {
		t.Errorf("addresses:\n%s", out)
	}

	l.eventually("the metrics say so: IPv6 members are checked by themselves", func() bool {
		metrics, err := l.get("router", "127.0.0.1:9912", "/metrics")
		return err == nil && strings.Contains(metrics, "onelb_router_frontends 4") && strings.Contains(metrics, `onelb_router_checked_backends{state="healthy"} 4`)
	})

	// All gone: nothing left.
	l.set(c, router.Document{})
	if out := l.run("router", "ip", "address", "show", "dev", "eth0"); strings.Contains(out, "203.0.113.100/32") || strings.Contains(out, "2001:db8:113::100/128") {
		t.Errorf("addresses after the deletion:\n%s", out)
	}
	if out := l.run("router", "nft", "list", "ruleset"); strings.Contains(out, "203.0.113.100") || strings.Contains(out, "10.20.0.11") {
		t.Errorf("nft list ruleset after the deletion:\n%s", out)
	}
}

func (l *lan) eventually(what string, ok func() bool) {
	l.t.Helper()
	const within = 2 * time.Minute // a loaded machine; how fast it is the benchmarks say
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
	}
	l.t.Fatalf("not within %s: %s", within, what)
}

// TestEditsKeepConnections edits, restarts and kills while a connection stands.
func TestEditsKeepConnections(t *testing.T) {
	l := newLAN(t)
	l.backend("be1", 8080)
	l.backend("be2", 8080)
	l.start()
	c := l.client()
	d := front("default/web", vip4, vip6, 8765, 8080)
	l.set(c, d)

	var conns []net.Conn
	for _, address := range []string{"203.0.113.100:8765", "[2001:db8:113::100]:8765"} {
		conn, err := l.spaces["client"].DialContext(t.Context(), "tcp", address)
		l.must(err)
		defer func() { _ = conn.Close() }()
		conns = append(conns, conn)
	}
	alive := func(when string) {
		t.Helper()
		for _, conn := range conns {
			if _, err := exchange(conn, "tcp", comes); err != nil {
				t.Fatalf("%s: connection to %s: %v", when, conn.RemoteAddr(), err)
			}
		}
	}
	alive("at first")

	more := front("default/other", "203.0.113.101", "2001:db8:113::101", 80, 8080)
	d.Frontends = append(d.Frontends, more.Frontends...)
	l.set(c, d)
	alive("after another Service came")
	d.Frontends = d.Frontends[:4]
	l.set(c, d)
	alive("after it went")
	d.Groups[0].Members, d.Groups[1].Members = d.Groups[0].Members[:1], d.Groups[1].Members[:1]
	l.set(c, d)
	alive("after a backend went")
	if got := l.spread("client", "tcp", "203.0.113.100:8765", 10); got["be1 203.0.113.1"] != 10 {
		t.Errorf("answers %v, want be1 alone", got)
	}

	// A restart disturbs nobody and needs no client.
	l.stop(syscall.SIGTERM)
	alive("while the agent is away")
	if got := l.spread("client", "tcp", "203.0.113.100:8765", 5); len(got) != 1 {
		t.Errorf("new connections while the agent is away: %v", got)
	}
	l.start()
	alive("after a restart")
	l.stop(syscall.SIGKILL)
	alive("after a kill")

	// After a reboot nothing is in the kernel; the disk has it all.
	l.run("router", "nft", "flush", "ruleset")
	l.run("router", "ip", "address", "del", "203.0.113.100/32", "dev", "eth0")
	l.run("router", "ip", "address", "del", "2001:db8:113::100/128", "dev", "eth0")
	l.start()
	l.eventually("restored", func() bool {
		_, err4 := l.askFor(never, "client", "tcp", "203.0.113.100:8765")
		_, err6 := l.askFor(never, "client", "udp", "[2001:db8:113::100]:8765")
		return err4 == nil && err6 == nil
	})

	// What somebody else does to our tables is undone; other tables stay.
	l.run("router", "nft", "add table ip other; add chain ip other c; delete table ip onelb; flush chain ip6 onelb services")
	l.eventually("repaired", func() bool {
		_, err4 := l.askFor(never, "client", "tcp", "203.0.113.100:8765")
		_, err6 := l.askFor(never, "client", "tcp", "[2001:db8:113::100]:8765")
		return err4 == nil && err6 == nil
	})
	if out := l.run("router", "nft", "list", "tables"); !strings.Contains(out, "table ip other") {
		t.Errorf("tables:\n%s", out)
	}
}

// TestSourceRanges: who is not in the list gets no answer.
func TestSourceRanges(t *testing.T) {
	l := newLAN(t)
	l.backend("be1", 8080)
	l.backend("be2", 8080)
	l.start()
	c := l.client()
	d := front("default/web", vip4, vip6, 8765, 8080)
	ranges := func(prefixes ...string) {
		t.Helper()
		for i := range d.Frontends {
			d.Frontends[i].SourceRanges = nil
			for _, p := range prefixes {
				d.Frontends[i].SourceRanges = append(d.Frontends[i].SourceRanges, netip.MustParsePrefix(p))
			}
		}
		l.set(c, d)
	}
	reach := func(want bool) {
		t.Helper()
		for _, address := range []string{"203.0.113.100:8765", "[2001:db8:113::100]:8765"} {
			for _, network := range []string{"tcp", "udp"} {
				within := comes
				if !want {
					within = never
				}
				if _, err := l.askFor(within, "client", network, address); (err == nil) != want {
					t.Errorf("%s %s: error %v, want reachable %v", network, address, err, want)
				}
			}
		}
	}
	ranges("198.51.100.0/24", "2001:db8:1::/48")
	reach(false)
	ranges("198.51.100.0/24", "203.0.113.0/28", "203.0.113.0/24", "2001:db8:113::/64")
	reach(true)
	ranges("0.0.0.0/0", "::/0")
	reach(true)
	ranges("198.51.100.0/24") // no IPv6 client at all
	reach(false)
	ranges()
	reach(true)
}

// TestNoBackend: a frontend without backends refuses at once instead of hanging.
func TestNoBackend(t *testing.T) {
	l := newLAN(t)
	l.start()
	c := l.client()
	d := front("default/web", vip4, vip6, 8765, 8080)
	for i := range d.Groups {
		d.Groups[i].Members = nil
	}
	l.set(c, d)
	for _, address := range []string{"203.0.113.100:8765", "[2001:db8:113::100]:8765"} {
		for _, network := range []string{"tcp", "udp"} {
			if _, err := l.ask("client", network, address); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s %s: %v, want connection refused", network, address, err)
			}
		}
	}
}

// TestSNAT: always hides every client, never hides none.
func TestSNAT(t *testing.T) {
	l := newLAN(t)
	l.backend("be1", 8080)
	l.backend("be2", 8080)
	l.start()
	c := l.client()
	d := front("default/web", vip4, vip6, 8765, 8080)
	for i := range d.Frontends {
		d.Frontends[i].SNAT = router.SNATAlways
	}
	l.set(c, d)
	got := l.spread("client", "tcp", "203.0.113.100:8765", 10)
	if got["be1 10.20.0.1"]+got["be2 10.20.0.1"] != 10 {
		t.Errorf("always: answers %v", got)
	}
	for i := range d.Frontends {
		d.Frontends[i].SNAT = router.SNATNever
	}
	l.set(c, d)
	got = l.spread("client", "udp", "[2001:db8:113::100]:8765", 10)
	if got["be1 2001:db8:113::1"]+got["be2 2001:db8:113::1"] != 10 {
		t.Errorf("never: answers %v", got)
	}
	if _, err := l.askFor(never, "host", "udp", "203.0.113.100:8765"); err == nil {
		t.Error("never: the hairpin works, so the client was hidden")
	}
}

// TestForwardingOff: the operator is told what keeps the router from routing.
func TestForwardingOff(t *testing.T) {
	l := newLAN(t)
	l.start()
	c := l.client()
	l.set(c, router.Document{})
	l.must(l.spaces["router"].Sysctl("net/ipv4/ip_forward", "0"))
	l.eventually("told", func() bool {
		return strings.Contains(strings.Join(c.State().Instances[0].Problems, " "), "net.ipv4.ip_forward is 0")
	})
}

// TestFirewall: somebody else's rule that drops what we forward is reported, and left
// alone.
func TestFirewall(t *testing.T) {
	l := newLAN(t)
	l.backend("be1", 8080)
	l.backend("be2", 8080)
	l.start()
	c := l.client()
	l.set(c, front("default/web", vip4, vip6, 8765, 8080))
	l.run("router", "nft", "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }")
	if _, err := l.ask("client", "tcp", "203.0.113.100:8765"); err == nil {
		t.Fatal("the rule drops nothing")
	}
	problems := func() string { return strings.Join(c.State().Instances[0].Problems, " ") }
	l.eventually("told", func() bool {
		return strings.Contains(problems(), "chain FORWARD of table ip filter drops connections to frontends")
	})
	metrics, err := l.get("router", "127.0.0.1:9912", "/metrics")
	l.must(err)
	if !strings.Contains(metrics, `onelb_router_problem{part="firewall"} 1`) {
		t.Error("the metrics do not say so")
	}
	if out := l.run("router", "nft", "list", "table", "ip", "filter"); !strings.Contains(out, "policy drop") || strings.Contains(out, "accept") {
		t.Errorf("the table was changed:\n%s", out)
	}
	// What the message says helps; replies need what every firewall has.
	l.run("router", "nft", "add rule ip filter FORWARD ct status dnat accept; add rule ip filter FORWARD ct state established accept")
	if _, err := l.ask("client", "tcp", "203.0.113.100:8765"); err != nil {
		t.Error(err)
	}
	l.eventually("told no more", func() bool { return !strings.Contains(problems(), "FORWARD") })
}

// TestUnknownAddress: the refusal names the culprit, and what ran runs on.
func TestUnknownAddress(t *testing.T) {
	l := newLAN(t)
	l.backend("be1", 8080)
	l.backend("be2", 8080)
	l.start()
	c := l.client()
	l.set(c, front("default/web", vip4, vip6, 8765, 8080))
	generation := c.Set(front("default/bad", "198.51.100.1", vip6, 80, 8080))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	err := c.Wait(ctx, generation)
	var rejected *router.RejectedError
	if !errors.As(err, &rejected) || rejected.Reason != router.ReasonUnknownAddress || rejected.Service != "default/bad" {
		t.Fatalf("error %v, want a refusal of default/bad", err)
	}
	if _, err := l.ask("client", "tcp", "203.0.113.100:8765"); err != nil {
		t.Error(err)
	}
	if got := c.State().Instances[0].Err; !errors.As(got, &rejected) {
		t.Errorf("state says %v", got)
	}
}
