package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/onelb/onelb/loadbalancer/announcer/addr"
	"github.com/onelb/onelb/loadbalancer/announcer/wire"
	"github.com/onelb/onelb/loadbalancer/router"
)

// TestRouted: public addresses that be1 holds, and then be2, of which the router hears
// from be2 alone; also after a restart of the agent with an empty kernel.
func TestRouted(t *testing.T) {
	l := newLAN(t)
	l.backend("be1", 8765)
	l.backend("be2", 8765)
	l.start()
	c := l.client()
	d := front("default/web", vip4, vip6, 8765, 8765)
	for i := range d.Frontends {
		d.Frontends[i].Routed, d.Frontends[i].SNAT = true, router.SNATNever
	}
	l.set(c, d)
	answers := func(when, holder string) {
		t.Helper()
		for address, client := range map[string]string{"203.0.113.100:8765": "203.0.113.1", "[2001:db8:113::100]:8765": "2001:db8:113::1"} {
			l.eventually(fmt.Sprintf("%s: %s answers at %s", when, holder, address), func() bool {
				got, err := l.askFor(never, "client", "tcp", address)
				return err == nil && got == holder+" "+client
			})
		}
	}
	announce := l.holders()
	add := func(holder string) {
		l.run(holder, "ip", "address", "add", vip4+"/32", "dev", "eth0")
		l.run(holder, "ip", "address", "add", vip6+"/128", "dev", "eth0", "nodad", "preferred_lft", "0")
		announce(holder)
	}
	add("be1")
	answers("at first", "be1")
	if _, err := l.ask("client", "tcp", "203.0.113.100:9443"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("no frontend: %v, want connection refused", err)
	}
	if out := l.run("router", "ip", "address", "show", "dev", "eth0"); strings.Contains(out, vip4) {
		t.Errorf("the router has the address itself:\n%s", out)
	}
	l.run("be1", "ip", "address", "del", vip4+"/32", "dev", "eth0")
	l.run("be1", "ip", "address", "del", vip6+"/128", "dev", "eth0")
	add("be2")
	answers("after it moved", "be2")
	l.stop(syscall.SIGKILL)
	answers("after a kill", "be2")
	l.run("router", "nft", "flush", "ruleset")
	for _, family := range []string{"-4", "-6"} {
		l.run("router", "ip", family, "route", "flush", "proto", "80")
	}
	for _, a := range []string{vip4, vip6} {
		l.run("router", "ip", "neigh", "del", "proxy", a, "dev", "eth0")
	}
	l.start()
	answers("restored", "be2")
	l.set(c, router.Document{})
	for _, args := range [][]string{{"ip", "-4", "route", "show", "proto", "80"}, {"ip", "-6", "route", "show", "proto", "80"}, {"ip", "neigh", "show", "proxy"}} {
		if out := l.run("router", args...); strings.TrimSpace(out) != "" {
			t.Errorf("left of it, %v:\n%s", args, out)
		}
	}
}

// holders returns what announces the public addresses from a backend, as the agent of a
// node does.
func (l *lan) holders() (announce func(holder string)) {
	l.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	wires, on := map[string]*wire.Wire{}, map[string]addr.Interface{}
	for _, name := range []string{"be1", "be2"} {
		table, err := addr.Open(addr.Options{Enter: l.spaces[name].Do})
		l.must(err)
		interfaces, err := table.Interfaces()
		l.must(errors.Join(err, table.Close()))
		on[name] = interfaces[slices.IndexFunc(interfaces, func(i addr.Interface) bool { return i.Name == "eth0" })]
		w, err := wire.New(wire.Options{Seen: func(wire.Sighting) {}, Enter: l.spaces[name].Do})
		l.must(err)
		wires[name] = w
		all.Go(func() { _ = w.Run(ctx) })
	}
	l.t.Cleanup(func() { cancel(); all.Wait() })
	return func(holder string) {
		l.t.Helper()
		for _, a := range []string{vip4, vip6} {
			l.must(wires[holder].Announce(on[holder], netip.MustParseAddr(a)))
		}
	}
}
