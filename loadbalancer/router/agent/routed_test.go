package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/test/lab/ns"
)

// routedDoc has one frontend that is routed to one of the nodes.
func routedDoc(address string, nodes ...string) router.Document {
	d := doc("lab", address, 1)
	d.Frontends[0].Routed, d.Frontends[0].BackendPort, d.Frontends[0].SNAT = true, 1, router.SNATNever
	d.Groups[0].Members = nil
	for _, n := range nodes {
		d.Groups[0].Members = append(d.Groups[0].Members, router.Member{Address: netip.MustParseAddr(n), Node: "node"})
	}
	return d
}

// TestRouted: an address is routed to the nodes' network, also from disk, and held again
// when it is translated.
func TestRouted(t *testing.T) {
	b := newBench(t)
	b.start()
	c := b.client("lab", 1)
	is := func(routed []Routed, held ...string) func() bool {
		return func() bool {
			b.kernel.mu.Lock()
			defer b.kernel.mu.Unlock()
			var have []string
			for _, a := range b.kernel.held {
				have = append(have, a.String())
			}
			return slices.Equal(b.kernel.routed, routed) && slices.Equal(have, held)
		}
	}
	want := []Routed{{Address: netip.MustParseAddr("203.0.113.100"), Through: "eth1"}}
	b.must(b.wait(c, c.Set(routedDoc("203.0.113.100", "10.20.0.11", "10.20.0.12", "192.0.2.1"))))
	b.eventually("it is routed", is(want))
	var rejected *router.RejectedError
	if err := b.wait(c, c.Set(routedDoc("203.0.113.100", "203.0.113.9"))); !errors.As(err, &rejected) || rejected.Reason != router.ReasonRoute || rejected.Service != "default/s0" {
		t.Errorf("nodes on the clients' network: %v", err)
	}
	b.eventually("it is routed as before", is(want))
	b.stop()
	b.kernel.routed = nil
	b.start()
	b.eventually("it is routed, by what is on disk", is(want))
	c = b.client("lab", 2) // the other one has to find out first that it may connect again
	b.must(b.wait(c, c.Set(routedDoc("203.0.113.100", "192.0.2.1"))))
	b.eventually("it is not routed, and that is told", func() bool {
		return is(nil)() && strings.Contains(strings.Join(c.State().Instances[0].Problems, " "), "203.0.113.100 is not passed on: no interface of the router is on the nodes' network")
	})
	b.must(b.wait(c, c.Set(doc("lab", "203.0.113.100", 1))))
	b.eventually("it is held", is(nil, "203.0.113.100"))
}

// TestKernelRouted: proxies and routes come and go, what others take away comes back, and
// what is others' stays.
func TestKernelRouted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	name := fmt.Sprintf("onelb-routed-%d", os.Getpid())
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(ns.DeleteNamed(name))
	n, err := ns.New(name)
	must(err)
	t.Cleanup(func() { _ = n.Delete() })
	ip := func(batch string) {
		t.Helper()
		if out, err := ipBatch(t, name, batch); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	ip("link add eth0 type veth peer name peer0\nlink add eth1 type veth peer name peer1\nlink set eth0 up\nlink set eth1 up\nlink set peer0 up\nlink set peer1 up\n" +
		"addr add 203.0.113.2/24 dev eth0\naddr add 2001:db8:113::2/64 dev eth0 nodad\naddr add 10.20.0.1/24 dev eth1\naddr add fd00:20::1/64 dev eth1 nodad\n" +
		"route add 203.0.113.7/32 dev eth1 scope link\nneigh add proxy 203.0.113.7 dev eth0")
	var k *KernelAddresses
	must(n.Do(func() (err error) { k, err = OpenAddresses(nil); return err }))
	t.Cleanup(func() { _ = k.table.Close() })
	apply := func(routed ...Routed) {
		t.Helper()
		must(n.Do(func() error {
			if err := k.Refresh(); err != nil {
				return err
			}
			return k.Route(t.Context(), routed)
		}))
	}
	has := func(when string, want ...string) {
		t.Helper()
		var text strings.Builder
		for _, args := range [][]string{{"-4", "route", "show", "proto", "80"}, {"-6", "route", "show", "proto", "80"}, {"-4", "neigh", "show", "proxy"}, {"-6", "neigh", "show", "proxy"}, {"-4", "route", "show", "203.0.113.7"}} {
			out, err := ipCommand(t, name, args...)
			must(err)
			text.WriteString(out)
		}
		got := 0
		for line := range strings.Lines(text.String()) {
			if got++; !slices.ContainsFunc(slices.Concat(want, []string{"203.0.113.7 "}), func(w string) bool { return strings.HasPrefix(line, w) }) {
				t.Errorf("%s: unexpected %q", when, line)
			}
		}
		if got != len(want)+2 {
			t.Errorf("%s: %d lines, want %d:\n%s", when, got, len(want)+2, text.String())
		}
	}
	four := Routed{Address: netip.MustParseAddr("203.0.113.100"), Through: "eth1"}
	six := Routed{Address: netip.MustParseAddr("2001:db8:113::100"), Through: "eth1"}
	all := []string{"203.0.113.100 dev eth1", "203.0.113.100 dev eth0", "2001:db8:113::100 dev eth1", "2001:db8:113::100 dev eth0"}
	for range 2 { // the second time nothing is to be done
		apply(four, six)
		has("both", all...)
	}
	for path, want := range map[string]string{"ipv4/neigh/eth0/proxy_delay": "0", "ipv6/neigh/eth0/proxy_delay": "0", "ipv6/conf/all/proxy_ndp": "1"} {
		must(n.Do(func() error {
			if got, err := os.ReadFile("/proc/sys/net/" + path); err != nil || strings.TrimSpace(string(got)) != want {
				t.Errorf("%s is %q, %v", path, got, err)
			}
			return nil
		}))
	}
	edit := func(routed ...Routed) {
		t.Helper()
		must(n.Do(func() error { return k.Route(t.Context(), routed) }))
	}
	edit(six)
	has("one goes", all[2:]...)
	edit(four)
	has("one for the other", all[:2]...)
	edit()
	has("both go")
	edit(four, six)
	has("both come", all...)
	ip("route del 203.0.113.100/32 dev eth1\nneigh del proxy 2001:db8:113::100 dev eth0")
	apply(four, six)
	has("repaired", all...)
	ip("link set eth1 down\nlink set eth0 down\nlink set eth0 up\nlink set eth1 up\nroute add 203.0.113.7/32 dev eth1 scope link\nneigh add proxy 203.0.113.7 dev eth0")
	ip("addr replace 2001:db8:113::2/64 dev eth0 nodad\naddr replace fd00:20::1/64 dev eth1 nodad") // which go with the link
	apply(four, six)
	has("after the links were down", all...)
	other, err := func() (k *KernelAddresses, err error) {
		err = n.Do(func() (err error) { k, err = OpenAddresses(nil); return err })
		return k, err
	}()
	must(err)
	t.Cleanup(func() { _ = other.table.Close() })
	k = other // an agent that has just started
	apply(six)
	has("one", all[2:]...)
	apply()
	has("none")
}
