package agent

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/nft"
)

// TestEditsAreCheapAndRight: small changes do not plan everything anew, and lead to the
// same tables and addresses.
func TestEditsAreCheapAndRight(t *testing.T) {
	b := newBench(t)
	b.start()
	c := b.client("lab", 1)
	r := rand.New(rand.NewPCG(1, 2))
	d := doc("lab", "203.0.113.100", 0)
	b.must(b.wait(c, c.Set(d)))
	for i := range 40 {
		f := doc("lab", netip.AddrFrom4([4]byte{203, 0, 113, byte(100 + r.IntN(4))}).String(), 5).Frontends[r.IntN(5)]
		if i%5 == 4 && len(d.Frontends) > 0 {
			d.Frontends = slices.Delete(slices.Clone(d.Frontends), 0, 1)
		} else {
			f.BackendPort = uint16(30000 + i)
			f.Protocol = []router.Protocol{router.TCP, router.UDP}[r.IntN(2)]
			d.Frontends = append(slices.DeleteFunc(slices.Clone(d.Frontends), func(o router.Frontend) bool { return o.Key() == f.Key() }), f)
		}
		b.must(b.wait(c, c.Set(d)))
		inner := []string{"eth1"}
		if len(d.Frontends) == 0 {
			inner = []string{"eth0", "eth1"}
		}
		want := nft.New(nft.Input{
			Documents: []router.Document{d.Normalize()}, Inner: inner, Networks: slices.Concat(public, []netip.Prefix{netip.MustParsePrefix("10.20.0.0/24")}),
		})
		b.kernel.mu.Lock()
		plan, held := b.kernel.plan, b.kernel.held
		b.kernel.mu.Unlock()
		if diff := cmp.Diff(want.String(), plan.String()); diff != "" {
			t.Fatalf("step %d:\n%s", i, diff)
		}
		if want := addressesOf([]router.Document{d.Normalize()}); !slices.Equal(held, want) {
			t.Fatalf("step %d: addresses %v, want %v", i, held, want)
		}
	}
	b.kernel.mu.Lock()
	defer b.kernel.mu.Unlock()
	if b.kernel.whole >= b.kernel.plans {
		t.Errorf("of %d plans %d looked at everything", b.kernel.plans, b.kernel.whole)
	}
}

// TestLastAddressGoes: an interface that loses its last public address is an inner one again.
func TestLastAddressGoes(t *testing.T) {
	b := newBench(t)
	b.start()
	c := b.client("lab", 1)
	d := doc("lab", "203.0.113.100", 1)
	b.must(b.wait(c, c.Set(d)))
	d.Frontends = nil
	b.must(b.wait(c, c.Set(d)))
	want := nft.New(nft.Input{
		Documents: []router.Document{d.Normalize()}, Inner: []string{"eth0", "eth1"}, Networks: slices.Concat(public, []netip.Prefix{netip.MustParsePrefix("10.20.0.0/24")}),
	})
	b.kernel.mu.Lock()
	defer b.kernel.mu.Unlock()
	if diff := cmp.Diff(want.String(), b.kernel.plan.String()); diff != "" {
		t.Error(diff)
	}
}
