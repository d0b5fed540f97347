package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// slaac6 and slaacPairs are ranges of which OpenNebula makes the IPv6 addresses.
func slaac6(first string, size int) Range {
	return Range{Kind: RangeIP6SLAAC, First6: addr(first), Size: size}
}

func slaacPairs(first4, first6 string, size int) Range {
	return Range{Kind: RangeIP4SLAAC, First4: addr(first4), First6: addr(first6), Size: size}
}

// TestNoIPv6: who wants what a range lacks is told why it lacks it.
func TestNoIPv6(t *testing.T) {
	for _, direct := range []bool{false, true} {
		t.Run(fmt.Sprintf("direct %v", direct), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, spec := newCloud(), basePool("p")
				r := range4("10.0.0.1", 9)
				r.Kind, r.NoIPv6 = RangeIP4SLAAC, "it has no prefix"
				id := c.managedNetwork("public", r)
				if spec.Direct = direct; direct {
					spec.Network = NetworkQuery{ID: &id}
				}
				p := start(t, c, newStore(), nil)
				defer p.stop()
				p.SetPools([]PoolSpec{spec})
				const why = "range 0 (IP4_6) gives no IPv6 addresses: it has no prefix"
				if s := p.mustBeReady("p"); !strings.HasSuffix(s.Message, why) || s.IPv6.Total != 0 {
					t.Errorf("%+v", s)
				}
				p.mustAllocate("p", IPv4)
				err := p.allocateErr(Request{Pool: "p", Family: IPv6})
				if !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), why) {
					t.Error(err)
				}
				spec.Ranges, spec.Generation = []AddressRange{{addr("10.0.0.1"), addr("10.0.0.9")}}, 2
				p.SetPools([]PoolSpec{spec})
				if s := p.mustBeReady("p"); strings.Contains(s.Message, "IPv6") {
					t.Errorf("it need not give any: %s", s.Message)
				}
			})
		})
	}
}

// TestDirectBesideMACs: leases of a range that has no addresses are nobody's
// concern.
func TestDirectBesideMACs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud()
		id := c.managedNetwork("shared", range4("10.0.0.1", 9), Range{Kind: RangeEther, Size: 4})
		c.nets[id].ranges[1].use[2] = "VM 7"
		p := start(t, c, newStore(), nil)
		defer p.stop()
		p.SetPools([]PoolSpec{directPool("d")})
		p.mustBeReady("d")
		p.mustAllocate("d", IPv4)
	})
}

// TestReleaseByHand: OpenNebula would call the release of an address that it
// makes of a MAC a success, and do nothing.
func TestReleaseByHand(t *testing.T) {
	for _, c := range []struct {
		of   Range
		want string
	}{
		{range6("2001:db8::1", 9), "onevnet release %d 2001:db8::1"},
		{pairs("10.0.0.1", "2001:db8::1", 9), "onevnet release %d 10.0.0.1"},
		{slaacPairs("10.0.0.1", "2001:db8::aff:fe00:1", 9), "onevnet release %d 10.0.0.1"},
		{slaac6("2001:db8::aff:fe00:1", 9), "onevnet release %d MAC, with the MAC address of the lease that has 2001:db8::aff:fe00:1"},
	} {
		synctest.Test(t, func(t *testing.T) {
			cloud := newCloud()
			cloud.network("public", c.of)
			p := start(t, cloud, newStore(), func(o *Options, _ *process) { o.ReportOrphans = true })
			defer p.stop()
			p.SetPools([]PoolSpec{basePool("p")})
			p.mustBeReady("p")
			n := cloud.find("k8s", "c-p")
			first := n.ranges[0].First6
			if !first.IsValid() {
				t.Fatalf("%+v", n.ranges[0])
			}
			cloud.set(n.ID, first, hold)
			time.Sleep(2 * time.Hour)
			synctest.Wait()
			p.wantEvent(EventOrphanFound)
			p.mu.Lock()
			defer p.mu.Unlock()
			for _, e := range p.events {
				if want := fmt.Sprintf(c.want, n.ID); e.Reason == EventOrphanFound && !strings.HasSuffix(e.Message, want) {
					t.Errorf("%q does not say %q", e.Message, want)
				}
			}
		})
	}
}

// TestByHandOfAHalf: of the IPv6 half of a pair the other one is named.
func TestByHandOfAHalf(t *testing.T) {
	x := newIndex()
	x.apply(Network{Ranges: []Range{slaacPairs("10.0.0.1", "2001:db8::aff:fe00:1", 9)}}, 1, limits{}.allow, func(netip.Addr) (Record, bool) { return Record{}, false })
	k := &keeper{pool: &pool{index: x}}
	for a, want := range map[string]string{
		"2001:db8::aff:fe00:3": "onevnet release 5 10.0.0.3",
		"10.0.0.3":             "onevnet release 5 10.0.0.3",
		"2001:db8::9":          "onevnet release 5 2001:db8::9",
	} {
		if got := k.byHand(5, addr(a)); got != want {
			t.Errorf("%s: %q, want %q", a, got, want)
		}
	}
}
