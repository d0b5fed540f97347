package services

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/onelb/onelb/test/e2e/kit"
)

func addrs(text ...string) (out []netip.Addr) {
	for _, s := range text {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// otherThan waits for a Service to show addresses, and none of these.
func otherThan(w world, name string, old []netip.Addr) func(context.Context) error {
	return func(context.Context) error {
		now := kit.Shown(w.Get(name))
		if len(now) == 0 || slices.ContainsFunc(now, func(a netip.Addr) bool { return slices.Contains(old, a) }) {
			return fmt.Errorf("it shows %v", now)
		}
		return nil
	}
}

func loadBalancerIP(a string) kit.Edit {
	return func(s *corev1.Service) { s.Spec.LoadBalancerIP = a }
}

// TestAskedAddress asks for certain addresses, in each way and family.
func TestAskedAddress(t *testing.T) {
	w := newWorld(t)
	cases := []struct {
		name  string
		edits []kit.Edit
		want  []netip.Addr
	}{
		{"asked-both", []kit.Edit{kit.Annotate("address", "fd00:20::120,10.20.0.120")}, addrs("10.20.0.120", "fd00:20::120")},
		{"asked-four", []kit.Edit{kit.V4, kit.Annotate("address", "10.20.0.121")}, addrs("10.20.0.121")},
		{"asked-six", []kit.Edit{kit.V6, kit.Annotate("address", "fd00:20::122")}, addrs("fd00:20::122")},
		{"asked-field", []kit.Edit{kit.V4, loadBalancerIP("10.20.0.123")}, addrs("10.20.0.123")},
		{"asked-over-field", []kit.Edit{kit.V4, loadBalancerIP("10.20.0.124"), kit.Annotate("address", "10.20.0.125")}, addrs("10.20.0.125")},
		{"asked-public", []kit.Edit{kit.V4, kit.Annotate("address", "203.0.113.126")}, addrs("203.0.113.126")},
	}
	var names []string
	for _, c := range cases {
		w.Create(web, c.name, c.edits...)
		names = append(names, c.name)
	}
	for _, c := range cases {
		w.Shows(c.name, c.want...)
		w.Served(web, c.name)
		for _, a := range c.want {
			w.Said("Service", c.name, "IPAllocated", a.String())
		}
	}

	t.Log("one family asked for, the other comes from the same pool")
	w.Create(web, "asked-half", kit.Annotate("address", "10.20.0.127"))
	if half := w.Served(web, "asked-half"); half[0] != netip.MustParseAddr("10.20.0.127") || len(half) != 2 {
		t.Errorf("it has %v", half)
	}

	t.Log("an address that is taken, and what frees it")
	w.Create(pair, "asked-taken", kit.V4, kit.Annotate("address", "10.20.0.121"))
	w.Waits("asked-taken", "AllocationFailed", "10.20.0.121", "onelb.io/share")
	w.Create(pair, "asked-outside", kit.V4, kit.Annotate("address", "10.20.0.12"))
	w.Waits("asked-outside", "AllocationFailed", "10.20.0.12")
	w.Create(pair, "asked-family", kit.V4, kit.Annotate("address", "fd00:20::128"))
	w.Waits("asked-family", "Refused", "fd00:20::128", "spec.ipFamilies")
	w.Remove("asked-four")
	w.Shows("asked-taken", netip.MustParseAddr("10.20.0.121"))
	w.Served(pair, "asked-taken")

	t.Log("another address is asked for later")
	w.Update("asked-taken", kit.Annotate("address", "10.20.0.129"))
	w.Shows("asked-taken", netip.MustParseAddr("10.20.0.129"))
	w.Served(pair, "asked-taken")
	w.Silent(netip.MustParseAddr("10.20.0.121"), kit.Port)
	w.Update("asked-taken", kit.Annotate("pool", "internet"), kit.Annotate("address", ""))
	w.Eventually("an address of the other pool", otherThan(w, "asked-taken", addrs("10.20.0.129")))
	w.Served(pair, "asked-taken")
	w.NothingLeft()
	w.Remove(append(names, "asked-half", "asked-taken", "asked-outside", "asked-family")...)
	w.NothingLeft()
}
