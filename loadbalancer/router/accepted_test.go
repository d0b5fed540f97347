package router

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// TestEdit: a difference leads to what the whole document gives, hash and totals
// included, or is refused as it.
func TestEdit(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	refused := 0
	for range 2000 {
		from, to := randomDocument(random), randomDocument(random)
		if random.IntN(4) == 0 { // a frontend whose group is gone, or of another family
			to.Groups = slices.Delete(to.Groups, 0, 1)
		}
		if random.IntN(4) == 0 {
			to.Groups[0].Members = []Member{{Address: netip.MustParseAddr("2001:db8::1"), Weight: 1}}
		}
		if random.IntN(2) == 0 {
			to.Routes = from.Routes // else it is judged as a whole
		}
		before, err := Accept(from)
		if err != nil {
			t.Fatal(err)
		}
		want, wantErr := Accept(to)
		got, err := before.Edit(Diff(from, to))
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("edited: %v; as a whole: %v", err, wantErr)
		}
		if err != nil {
			var invalid *InvalidError
			if refused++; !errors.As(err, &invalid) {
				t.Fatalf("error %v, want one about the document", err)
			}
			continue
		}
		if d := Diff(want.Document, got.Document); !d.Empty() {
			t.Fatalf("what the difference leads to differs: %+v", d)
		}
		if got.Hash() != to.Hash() || got.contents != want.contents || got.members != want.members || got.ranges != want.ranges {
			t.Fatalf("edited: %s with %d members and %d ranges; as a whole: %s with %d and %d",
				got.Hash(), got.members, got.ranges, to.Hash(), want.members, want.ranges)
		}
	}
	if refused < 100 {
		t.Errorf("only %d were refused", refused)
	}
}

// TestEditTwice: a difference that has something twice is judged as a whole.
func TestEditTwice(t *testing.T) {
	before, err := Accept(sample())
	if err != nil {
		t.Fatal(err)
	}
	first := before.Frontends[0]
	if _, err := before.Edit(Delta{Frontends: []Frontend{first, first}}); err == nil {
		t.Error("the same frontend twice is accepted")
	}
	again, err := before.Edit(Delta{RemovedFrontends: []Key{first.Key()}, Frontends: []Frontend{first}})
	if err != nil || again.Hash() != before.Hash() {
		t.Errorf("removed and added again: %v", err)
	}
	if _, err := before.Edit(Delta{RemovedGroups: []string{"nodes4"}}); err == nil {
		t.Error("a group that frontends use can be removed")
	}
	var named *InvalidError
	if _, err := before.Stamped(before.Cluster, "two words", 0, 0).Edit(Delta{}); !errors.As(err, &named) {
		t.Errorf("an identity with a space: %v", err)
	}
	routed := first
	routed.Port, routed.BackendPort, routed.SNAT, routed.Affinity, routed.Routed = first.Port+1000, first.Port+1000, SNATNever, 0, true
	var invalid *InvalidError
	if _, err := before.Edit(Delta{Frontends: []Frontend{routed.Normalize()}}); !errors.As(err, &invalid) || !strings.Contains(err.Error(), "is routed and another is translated") {
		t.Errorf("one frontend of an address is routed, another translated: %v", err)
	}
}

// TestEditTotals: what is too much only together is found by a difference too.
func TestEditTotals(t *testing.T) {
	d := Document{Cluster: "lab", Groups: []Group{{Name: "a"}}}
	ranges := make([]netip.Prefix, 0, MaxSourceRanges)
	for i := range MaxSourceRanges {
		ranges = append(ranges, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i / 256), byte(i), 0}), 24))
	}
	front := func(n int) Frontend {
		return Frontend{Address: netip.MustParseAddr("192.0.2.1"), Protocol: TCP, Port: uint16(n + 1), Group: "a", BackendPort: 80, SourceRanges: ranges}
	}
	for n := range MaxSourceRangeTotal / MaxSourceRanges {
		d.Frontends = append(d.Frontends, front(n))
	}
	before, err := Accept(d.Normalize())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := before.Edit(Delta{Frontends: []Frontend{front(len(d.Frontends)).Normalize()}}); err == nil {
		t.Error("one more frontend with source ranges is accepted")
	}
}
