package ipam

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

func TestAdvanceAndPosition(t *testing.T) {
	for _, tc := range []struct {
		first string
		n     int
		want  string // "" is past the end
	}{
		{"10.0.0.250", 10, "10.0.1.4"},
		{"255.255.255.250", 5, "255.255.255.255"},
		{"255.255.255.250", 6, ""},
		{"2001:db8::ffff:ffff:ffff:fffe", 5, "2001:db8:0:1::3"},
		{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", 3, ""},
	} {
		got := advance(addr(tc.first), tc.n)
		if tc.want == "" {
			if got.IsValid() {
				t.Errorf("%s+%d = %s", tc.first, tc.n, got)
			}
			continue
		}
		if got != addr(tc.want) {
			t.Errorf("%s+%d = %s, want %s", tc.first, tc.n, got, tc.want)
		}
		if i, ok := position(addr(tc.first), tc.n+1, got); !ok || i != tc.n {
			t.Errorf("position of %s: %d %v", got, i, ok)
		}
		if _, ok := position(addr(tc.first), tc.n, got); ok {
			t.Errorf("%s is not among the first %d", got, tc.n)
		}
	}
	for _, no := range [][2]string{{"10.0.0.5", "10.0.0.4"}, {"10.0.0.5", "::ffff:10.0.0.6"}, {"2001:db8::1", "2001:db9::1"}, {"::1", "10.0.0.1"}} {
		if i, ok := position(addr(no[0]), 1000, addr(no[1])); ok {
			t.Errorf("%s at %d from %s", no[1], i, no[0])
		}
	}
	if _, ok := position(netip.Addr{}, 9, netip.Addr{}); ok {
		t.Error("no address has no position")
	}
}

func TestFreeRuns(t *testing.T) {
	leases := func(as ...string) (ls []Lease) {
		for _, a := range as {
			ls = append(ls, Lease{IP4: addr(a), User: "VM 1"})
		}
		return ls
	}
	n := Network{Ranges: []Range{
		{ID: 0, First4: addr("10.0.0.0"), Size: 10, Leases: leases("10.0.0.3", "10.0.0.9"), Used: 2},
		{ID: 1, Size: 50},
		{ID: 2, First4: addr("10.0.1.0"), Size: 4, Used: 4},
		{ID: 3, First4: addr("10.0.2.0"), Size: 4, Used: 1},
	}}
	l := limits{ranges: []AddressRange{{addr("10.0.0.1"), addr("10.0.0.255")}, {addr("10.0.2.0"), addr("10.0.2.2")}}}
	avoid := func(a netip.Addr) bool { return a == addr("10.0.0.6") }
	runs, complete := freeRuns(n, l, IPv4, avoid)
	want := []run{{0, addr("10.0.0.1"), 2}, {0, addr("10.0.0.4"), 2}, {0, addr("10.0.0.7"), 2}, {3, addr("10.0.2.0"), 3}}
	if !slices.Equal(runs, want) || complete {
		t.Errorf("%v, complete %v", runs, complete)
	}
	for _, tc := range []struct {
		want int
		got  run
	}{{1, run{0, addr("10.0.0.1"), 1}}, {3, run{3, addr("10.0.2.0"), 3}}, {9, run{3, addr("10.0.2.0"), 3}}} {
		if u, ok := bestRun(runs, tc.want); !ok || u != tc.got {
			t.Errorf("best of %d: %v", tc.want, u)
		}
	}
	if _, ok := bestRun(nil, 1); ok {
		t.Error("best of none")
	}
	if got := countFree(n, l, IPv4); got != 7+3 {
		t.Errorf("%d free", got)
	}
}

// TestIndex compares the index with a plain count after random changes.
func TestIndex(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	x := newIndex()
	all := func(netip.Addr) bool { return true }
	none := func(netip.Addr) (Record, bool) { return Record{}, false }
	x.apply(Network{Ranges: []Range{{ID: 0, First4: addr("10.0.0.1"), First6: addr("2001:db8::1"), Size: 50}, {ID: 1, First4: addr("10.0.9.1"), Size: 30}}}, 0, all, none)
	halves := make([]*half, 0, len(x.byAddr))
	for _, a := range sortedKeys(x.byAddr) {
		halves = append(halves, x.byAddr[a])
	}
	var last uint64
	for range 20000 {
		h := halves[rng.IntN(len(halves))]
		switch rng.IntN(5) {
		case 0:
			h.rec = !h.rec
			if !h.rec {
				x.retire(h)
			}
		case 1:
			h.busy = !h.busy
		case 2:
			h.slot.held = !h.slot.held
		case 3:
			h.phase = Phase(rng.IntN(3))
		case 4:
			f := families[rng.IntN(2)]
			got := x.pick(f, nil)
			free := slices.DeleteFunc(slices.Clone(halves), func(h *half) bool { return familyOf(h.addr) != f || !h.available() })
			if (got == nil) != (len(free) == 0) || got != nil && !got.available() {
				t.Fatalf("picked %+v of %d", got, len(free))
			}
			if got == nil {
				continue
			}
			for _, o := range free {
				if o.used < got.used || o.used == got.used && o.addr.Less(got.addr) {
					t.Fatalf("picked %s (%d) before %s (%d)", got.addr, got.used, o.addr, o.used)
				}
			}
			h, last = got, got.used
			h.rec = true
		}
		x.settle(h.slot)
		for i, f := range families {
			n := 0
			for _, h := range halves {
				if familyOf(h.addr) == f && h.available() {
					n++
				}
			}
			if n != x.nfree[i] {
				t.Fatalf("%d %s free, counted %d", x.nfree[i], f, n)
			}
		}
	}
	if last == 0 {
		t.Error("no address was ever used again")
	}
}
