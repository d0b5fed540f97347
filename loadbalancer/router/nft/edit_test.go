package nft

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/onelb/onelb/loadbalancer/router"
)

// randomDocument uses all that a document can have, on few keys, so that two of them
// differ in every way.
func randomDocument(r *rand.Rand) router.Document {
	d := router.Document{Cluster: "lab"}
	for g := range 6 {
		group := router.Group{Name: fmt.Sprintf("group-%d", g)}
		if g%2 == 1 {
			group.Check = &router.Check{Port: 10256, Path: "/healthz"}
		}
		for m := range 4 {
			if r.IntN(2) == 0 {
				group.Members = append(group.Members, router.Member{Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(m + 1)}), Weight: 1 + r.IntN(2)})
			}
		}
		d.Groups = append(d.Groups, group)
	}
	d.Groups = slices.DeleteFunc(d.Groups, func(router.Group) bool { return r.IntN(8) == 0 })
	for i := range 12 {
		if r.IntN(3) == 0 || len(d.Groups) == 0 {
			continue
		}
		f := router.Frontend{
			Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(i / 3)}), Protocol: router.TCP, Port: uint16(i%3 + 1), BackendPort: uint16(1 + r.IntN(3)),
			Group: d.Groups[r.IntN(len(d.Groups))].Name, SNAT: []router.SNAT{router.SNATAuto, router.SNATAlways, router.SNATNever}[r.IntN(3)],
			MaxConnections: uint32(r.IntN(2) * 100),
		}
		if r.IntN(3) == 0 {
			f.SourceRanges = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(r.IntN(2)), 0, 0}), 16), netip.MustParsePrefix("10.0.0.0/24")}
		}
		if i/3 == 3 { // nothing of this address is translated
			f.Routed, f.BackendPort, f.SNAT = true, f.Port, router.SNATNever
		} else if i%4 == 0 {
			f.Affinity = time.Duration(1+r.IntN(2)) * time.Minute
		}
		d.Frontends = append(d.Frontends, f)
	}
	return d.Normalize()
}

// few is a document that differs in little.
func few(r *rand.Rand, d router.Document) router.Document {
	other := randomDocument(r)
	other.Groups = d.Groups
	if r.IntN(2) == 0 && len(d.Groups) > 0 { // one group has other members
		other.Groups = slices.Clone(d.Groups)
		g := &other.Groups[r.IntN(len(d.Groups))]
		g.Members = []router.Member{{Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + r.IntN(4))}), Weight: 1}}
	}
	known := func(f router.Frontend) bool { _, found := other.Group(f.Group); return found }
	changed := slices.DeleteFunc(other.Frontends, func(f router.Frontend) bool { return r.IntN(4) > 0 || !known(f) })
	other.Frontends = slices.DeleteFunc(slices.Clone(d.Frontends), func(f router.Frontend) bool {
		return r.IntN(6) == 0 || slices.ContainsFunc(changed, func(c router.Frontend) bool { return c.Key() == f.Key() })
	})
	other.Frontends = append(other.Frontends, changed...)
	return other.Normalize()
}

// TestEditIsNew: a chain of edits ends in what New makes of the last document, and says
// what leads there.
func TestEditIsNew(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	healthy := func(_ router.Check, a netip.Addr) bool { return a.As4()[3] != 2 }
	elsewhere := router.Document{Cluster: "other", Groups: []router.Group{{Name: "group-0", Members: []router.Member{{Address: netip.MustParseAddr("10.0.0.1"), Weight: 1}}}}, Frontends: []router.Frontend{
		{Address: netip.MustParseAddr("192.0.2.200"), Protocol: router.TCP, Port: 1, BackendPort: 1, Group: "group-0"},
	}}.Normalize()
	edited, anew := 0, 0
	for range 300 {
		d := randomDocument(r)
		in := testInput
		in.Healthy, in.Documents = healthy, []router.Document{d, elsewhere}
		plan := New(in)
		for range 10 {
			next := few(r, d)
			if err := next.Validate(); err != nil {
				t.Fatal(err)
			}
			in.Documents = []router.Document{next, elsewhere}
			want, before := New(in), plan
			got, ok := plan.Edit(d, next, router.Diff(d, next), healthy)
			if !ok {
				anew++
				plan, d = want, next
				continue
			}
			edited++
			if diff := cmp.Diff(want.String(), got.String()); diff != "" {
				t.Fatalf("edited plan differs:\n%s", diff)
			}
			said, dirty := got.changesFrom(before)
			for i := range families {
				for s := range said[i] {
					if c := diff(before.tables[i][s], got.tables[i][s]); fmt.Sprint(c) != fmt.Sprint(said[i][s]) {
						t.Fatalf("%s: the edit says %v, what differs is %v", families[i].definitions()[s].name, said[i][s], c)
					}
				}
			}
			if dirty != !equal(before, got) {
				t.Fatalf("dirty is %v", dirty)
			}
			if _, again := before.Edit(d, next, router.Diff(d, next), healthy); again {
				t.Fatal("a plan can be edited twice")
			}
			plan, d = got, next
		}
	}
	if edited < 1000 || anew < 100 {
		t.Errorf("%d edited and %d planned anew: the test is about both", edited, anew)
	}
}

// TestEditInKernel: what edits write is what the kernel then holds.
func TestEditInKernel(t *testing.T) {
	n := testNamespace(t)
	k := testKernel(t, n)
	r := rand.New(rand.NewPCG(9, 10))
	d := randomDocument(r)
	plan := New(Input{Documents: []router.Document{d}})
	for i := range 60 {
		if err := k.Apply(t.Context(), plan); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		found, err := k.read(t.Context())
		if err != nil || found == nil || !equal(found, plan) {
			t.Fatalf("step %d: the kernel holds something else: %v", i, err)
		}
		next := few(r, d)
		edited, ok := plan.Edit(d, next, router.Diff(d, next), nil)
		if !ok {
			edited = New(Input{Documents: []router.Document{next}})
		}
		plan, d = edited, next
	}
}

// BenchmarkEdit10000 adds one frontend to 10,000, without the kernel.
func BenchmarkEdit10000(b *testing.B) {
	with := document(b, 10_001)
	without := with
	without.Frontends = slices.Delete(slices.Clone(with.Frontends), 5000, 5001)
	there, back := router.Diff(without, with), router.Diff(with, without)
	plan := planOf(without)
	for b.Loop() {
		var ok bool
		if plan, ok = plan.Edit(without, with, there, nil); ok {
			plan, ok = plan.Edit(with, without, back, nil)
		}
		if !ok {
			b.Fatal("planned anew")
		}
		plan.forget()
	}
}

// TestDoubled: what is read while the kernel makes a set larger is known as that.
func TestDoubled(t *testing.T) {
	a, b := element{key: "a"}, element{key: "b", val: "1"}
	if doubled(nil) || doubled([]element{a, b}) || doubled([]element{{key: "a", end: "b"}, {key: "a", end: "c"}}) {
		t.Error("what is there once is taken for doubled")
	}
	if !doubled([]element{a, b, {key: "b", val: "2"}}) {
		t.Error("a key that is there twice is not found")
	}
}
