package nft

import (
	"flag"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/onelb/onelb/loadbalancer/router"
)

var update = flag.Bool("update", false, "write the golden files")

// TestGolden shows what documents become.
func TestGolden(t *testing.T) {
	base := document(t, 4)
	health := func(up ...string) func(router.Check, netip.Addr) bool {
		return func(_ router.Check, a netip.Addr) bool { return slices.Contains(up, a.String()) }
	}
	with := func(change func(*router.Document)) router.Document {
		d := document(t, 4)
		change(&d)
		return d.Normalize()
	}
	other := with(func(d *router.Document) {
		d.Cluster = "other"
		for i := range d.Frontends {
			d.Frontends[i].Address = d.Frontends[i].Address.Next()
			d.Frontends[i].SourceRanges = nil
		}
	})
	for name, in := range map[string]Input{
		"empty":        {},
		"both":         {Documents: []router.Document{base}, Inner: testInput.Inner, Networks: testInput.Networks},
		"one_down":     {Documents: []router.Document{base}, Healthy: health("10.20.0.12")},
		"all_down":     {Documents: []router.Document{base}, Healthy: health()},
		"two_clusters": {Documents: []router.Document{base, other}},
		"no_members":   {Documents: []router.Document{with(func(d *router.Document) { d.Groups[0].Members = nil })}},
		"single_member": {Documents: []router.Document{with(func(d *router.Document) {
			d.Groups[1].Members = []router.Member{{Address: netip.MustParseAddr("fd00:20::11")}}
			d.Frontends = d.Frontends[2:]
		})}},
		"affinity": {Documents: []router.Document{with(func(d *router.Document) {
			d.Frontends[0].Affinity, d.Frontends[0].MaxConnections = time.Minute, 100 // the other one of the group has neither
			d.Frontends[2].Affinity = time.Hour
		})}, Healthy: health("10.20.0.12")},
		"routed": {Documents: []router.Document{with(func(d *router.Document) {
			for i := range d.Frontends {
				f := &d.Frontends[i]
				f.Routed, f.BackendPort, f.SNAT = true, f.Port, router.SNATNever
			}
			d.Frontends[1].MaxConnections = 100
		})}},
		"unused_group": {Documents: []router.Document{with(func(d *router.Document) { d.Frontends = d.Frontends[:2] })}},
	} {
		t.Run(name, func(t *testing.T) {
			got := New(in).String()
			file := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestHealthChangeIsSmall: a node of 10,000 frontends dies, and only its table and the
// groups' pointers change.
func TestHealthChangeIsSmall(t *testing.T) {
	d := document(t, 10_000)
	in := Input{Documents: []router.Document{d}, Healthy: func(router.Check, netip.Addr) bool { return true }}
	before := New(in)
	in.Healthy = func(_ router.Check, a netip.Addr) bool { return a.String() != "10.20.0.11" }
	after := New(in)
	changes := 0
	for i := range before.tables {
		for s := range before.tables[i] {
			c := diff(before.tables[i][s], after.tables[i][s])
			changes += len(c.add) + len(c.remove)
		}
	}
	if changes == 0 || changes > 10 {
		t.Errorf("%d elements change, want a handful", changes)
	}
}

// TestOneFrontendIsThreeElements: an added Service touches only its own.
func TestOneFrontendIsThreeElements(t *testing.T) {
	d := document(t, 100)
	d.Frontends = d.Frontends[:0:0]
	full := document(t, 100)
	d.Frontends = append(append(d.Frontends, full.Frontends[:40]...), full.Frontends[41:]...)
	a, b := planOf(d), planOf(full)
	for i := range a.tables {
		for s := range a.tables[i] {
			c := diff(a.tables[i][s], b.tables[i][s])
			if len(c.remove) > 0 || len(c.add) > 1 || len(c.add) == 1 && set(s) != frontends && set(s) != ports {
				t.Errorf("%s: %d added, %d removed", families[i].definitions()[s].name, len(c.add), len(c.remove))
			}
		}
	}
}

// TestShares: every member's share of the slots is near its weight.
func TestShares(t *testing.T) {
	equal := func(n int) []member {
		var m []member
		for i := range n {
			m = append(m, member{address: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), weight: 1})
		}
		return m
	}
	weighted := func(weights ...int) []member {
		m := equal(len(weights))
		for i, w := range weights {
			m[i].weight = w
		}
		return m
	}
	for _, test := range []struct {
		members []member
		within  float64
	}{
		{equal(1), 0},
		{equal(2), 0},
		{equal(3), 0},
		{equal(16), 0},
		{equal(17), 0.125},
		{equal(60), 0.125},
		{equal(250), 0.125},
		{equal(1000), 0.125},
		{weighted(1, 3), 0.02},
		{weighted(7, 7, 7), 0},
		{weighted(1, 100), 0.25},
		{weighted(1, 2, 3, 4, 5), 0.1},
		{weighted(10, 20), 0.02},
	} {
		c := classOf(test.members)
		slots := fill(test.members, classes[c])
		count := map[netip.Addr]int{}
		for _, a := range slots {
			count[a]++
		}
		for _, m := range test.members {
			want := float64(len(slots)) * float64(m.weight) / float64(total(test.members))
			if off := math.Abs(float64(count[m.address])-want) / want; off > test.within+1e-9 {
				t.Errorf("%d members, weight %d of %d: %d of %d slots, %.0f %% off", len(test.members), m.weight, total(test.members), count[m.address], len(slots), 100*off)
			}
		}
	}
}

// TestFillIsStable: when one of many goes, the others keep most of their slots.
func TestFillIsStable(t *testing.T) {
	var all []member
	for i := range 20 {
		all = append(all, member{address: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), weight: 1})
	}
	before := fill(all, 512)
	after := fill(slices.Delete(slices.Clone(all), 7, 8), 512)
	moved := 0
	for i := range before {
		if before[i] != after[i] && before[i] != all[7].address {
			moved++
		}
	}
	if moved > 512/4 {
		t.Errorf("%d of 512 slots moved between members that stay", moved)
	}
}

func TestOutermost(t *testing.T) {
	var in []netip.Prefix
	for _, p := range []string{"10.1.0.0/16", "10.0.0.0/8", "10.0.0.0/8", "192.0.2.1/32", "192.0.2.0/24", "2001:db8::/32", "2001:db8:1::/48", "0.0.0.0/32"} {
		in = append(in, netip.MustParsePrefix(p))
	}
	got := fmt.Sprint(outermost(in))
	if want := "[0.0.0.0/32 10.0.0.0/8 192.0.2.0/24 2001:db8::/32]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
