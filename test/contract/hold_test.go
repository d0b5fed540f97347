package contract

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/provider/one"
	"github.com/onelb/onelb/test/onesim"
)

func TestHoldIsNotIdempotent(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	net, c := w.pool4(4), w.client("")
	if err := c.Hold(t.Context(), net, ip("10.255.0.11")); err != nil {
		t.Fatal(err)
	}
	if got := held(w.get(c, net)); !slices.Equal(got, addrs("10.255.0.11")) {
		t.Fatalf("on hold: %v", got)
	}
	// One answer for three reasons: only a read tells them apart.
	for _, a := range []string{"10.255.0.11", "10.255.0.14", "10.255.9.9"} {
		if err := c.Hold(t.Context(), net, ip(a)); !errors.Is(err, ipam.ErrInUse) {
			t.Errorf("%s: %v", a, err)
		}
	}
	if r := w.get(c, net).Ranges[0]; r.Used != 1 {
		t.Errorf("%+v", r)
	}
}

func TestReleaseAlwaysSucceeds(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	net, c := w.pool4(4), w.client("")
	vm := w.machine(w.admin, "vm", net)
	if err := c.Hold(t.Context(), net, ip("10.255.0.12")); err != nil {
		t.Fatal(err)
	}
	before := w.get(c, net).Ranges[0]
	for _, a := range []string{"10.255.0.11", "10.255.9.9", "10.255.0.10"} { // free, foreign, a VM's
		if err := c.Release(t.Context(), net, ip(a)); err != nil {
			t.Errorf("%s: %v", a, err)
		}
	}
	if after := w.get(c, net).Ranges[0]; len(after.Leases) != len(before.Leases) || after.Used != 2 {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if l := before.Leases[0]; l.Held || l.User != vmName(vm) {
		t.Errorf("the lease of VM %d: %+v", vm, l)
	}
	for range 2 {
		if err := c.Release(t.Context(), net, ip("10.255.0.12")); err != nil {
			t.Error(err)
		}
	}
	if got := held(w.get(c, net)); len(got) != 0 {
		t.Errorf("still on hold: %v", got)
	}
}

func TestOneOfManyHolds(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	net := w.pool4(4)
	var won, lost atomic.Int32
	var wg sync.WaitGroup
	for range 4 {
		c := w.client("")
		for range 3 {
			wg.Go(func() {
				switch err := c.Hold(t.Context(), net, ip("10.255.0.10")); {
				case err == nil:
					won.Add(1)
				case errors.Is(err, ipam.ErrInUse):
					lost.Add(1)
				default:
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	if won.Load() != 1 || lost.Load() != 11 {
		t.Errorf("%d won, %d lost", won.Load(), lost.Load())
	}
}

func TestHoldNeedsManage(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	net := w.pool4(4)
	if err := w.client("").Hold(t.Context(), net, ip("10.255.0.11")); err != nil {
		t.Fatal(err)
	}
	c := w.client("plain")
	if err := c.Hold(t.Context(), net, ip("10.255.0.12")); !errors.Is(err, ipam.ErrDenied) {
		t.Errorf("hold: %v", err)
	}
	if err := c.Release(t.Context(), net, ip("10.255.0.11")); !errors.Is(err, ipam.ErrDenied) {
		t.Errorf("release: %v", err)
	}
	if err := c.Annotate(t.Context(), net, map[string]string{"ONELB_X": "1"}); !errors.Is(err, ipam.ErrDenied) {
		t.Errorf("annotate: %v", err)
	}
	// Holds are invisible to who may only use the network, but counted.
	if r := w.get(c, net).Ranges[0]; len(r.Leases) != 0 || r.Used != 1 {
		t.Errorf("%+v", r)
	}
}

func TestHoldIPv6(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	net := w.network("mixed",
		`TYPE="IP6_STATIC",IP6="2001:db8:255::10",PREFIX_LENGTH="64",SIZE="4"`,
		`TYPE="IP4_6",IP="10.255.2.10",GLOBAL_PREFIX="2001:db8:256::",SIZE="4"`,
		`TYPE="ETHER",SIZE="4"`)
	c := w.client("")
	if err := c.Hold(t.Context(), net, ip("2001:db8:255::12")); err != nil {
		t.Fatal(err)
	}
	if err := c.Hold(t.Context(), net, ip("2001:db8:255:0::12")); !errors.Is(err, ipam.ErrInUse) {
		t.Errorf("the same in another spelling: %v", err)
	}
	if err := c.Hold(t.Context(), net, ip("2001:db8:255::14")); !errors.Is(err, ipam.ErrInUse) {
		t.Errorf("outside: %v", err)
	}
	n := w.get(c, net)
	if n.Ranges[0].First6 != ip("2001:db8:255::10") || n.Ranges[0].Kind != ipam.RangeIP6 || !n.Ranges[1].First6.IsValid() || n.Ranges[2].Kind != ipam.RangeEther {
		t.Errorf("%+v", n.Ranges)
	}
	if got := held(n); !slices.Equal(got, addrs("2001:db8:255::12")) {
		t.Errorf("on hold: %v", got)
	}
	if err := c.Release(t.Context(), net, ip("2001:db8:255::12")); err != nil || len(held(w.get(c, net))) > 0 {
		t.Errorf("release: %v", err)
	}
}

func TestHoldTakesThePair(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	net := w.network("pairs", `TYPE="IP4_6_STATIC",IP="10.255.3.10",IP6="2001:db8:257::10",PREFIX_LENGTH="64",SIZE="4"`)
	c := w.client("")
	for _, step := range []struct {
		call func() error
		want error
	}{
		{func() error { return c.Hold(t.Context(), net, ip("10.255.3.11")) }, nil},
		{func() error { return c.Hold(t.Context(), net, ip("2001:db8:257::11")) }, ipam.ErrInUse},
		{func() error { return c.Hold(t.Context(), net, ip("2001:db8:257::12")) }, nil},
		{func() error { return c.Hold(t.Context(), net, ip("10.255.3.12")) }, ipam.ErrInUse},
		{func() error { return c.Release(t.Context(), net, ip("2001:db8:257::11")) }, nil},
	} {
		if err := step.call(); !errors.Is(err, step.want) {
			t.Fatal(err)
		}
	}
	if got := held(w.get(c, net)); !slices.Equal(got, addrs("10.255.3.12", "2001:db8:257::12")) {
		t.Errorf("on hold: %v", got)
	}
}

var _ ipam.Networks = (*one.Client)(nil)
