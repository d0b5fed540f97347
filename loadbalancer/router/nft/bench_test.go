package nft

import (
	"testing"

	"github.com/onelb/onelb/loadbalancer/router"
)

// BenchmarkApply10000 writes 10,000 frontends into empty tables.
func BenchmarkApply10000(b *testing.B) {
	n := testNamespace(b)
	k := testKernel(b, n)
	d := document(b, 10_000)
	for b.Loop() {
		b.StopTimer()
		if err := k.Remove(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if err := k.Apply(b.Context(), planOf(d)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAddOne10000 adds one frontend to 10,000, planning included.
func BenchmarkAddOne10000(b *testing.B) {
	n := testNamespace(b)
	k := testKernel(b, n)
	with := document(b, 10_001)
	without := with
	without.Frontends = append([]router.Frontend(nil), with.Frontends[:5000]...)
	without.Frontends = append(without.Frontends, with.Frontends[5001:]...)
	if err := k.Apply(b.Context(), planOf(without)); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := k.Apply(b.Context(), planOf(with)); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := k.Apply(b.Context(), planOf(without)); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// BenchmarkPlan10000 is the pure part.
func BenchmarkPlan10000(b *testing.B) {
	d := document(b, 10_000)
	for b.Loop() {
		planOf(d)
	}
}
