package ipam

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"
)

// memory is a store that costs next to nothing, so that what is measured is
// the allocator.
type memory struct {
	mu   sync.Mutex
	recs map[netip.Addr]Record
}

func (m *memory) List() []Record { return nil }

func (m *memory) Get(a netip.Addr) (Record, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.recs[a]
	return r, ok
}

func (m *memory) Create(_ context.Context, r Record) (Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.recs[r.Address] = r
	return r, nil
}

func (m *memory) Update(_ context.Context, r Record) (Record, error) { return r, nil }

func (m *memory) Delete(_ context.Context, r Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.recs, r.Address)
	return nil
}

// reservedPool is a pool with a reservation of size addresses, n of them given.
func reservedPool(b *testing.B, n, size int) *keeper {
	b.Helper()
	m, err := New(Options{Networks: &client{cloud: newCloud(), dead: &life{}}, Records: &memory{recs: map[netip.Addr]Record{}}, Cluster: "c", Identity: "uid"})
	if err != nil {
		b.Fatal(err)
	}
	spec := basePool("pub")
	m.SetPools([]PoolSpec{spec})
	k := newKeeper(m.pools["pub"])
	first := netip.AddrFrom4([4]byte{10, 0, 0, 0})
	k.basis = k.pool.specSeq
	k.takeOver(Network{ID: 1, Ready: true, Ranges: []Range{{Kind: RangeIP4, First4: first, Size: size}}}, 1)
	for range n {
		if _, err := m.Allocate(b.Context(), Request{Pool: "pub", Family: IPv4}); err != nil {
			b.Fatal(err)
		}
	}
	return k
}

// BenchmarkAllocate measures one allocation and its end beside n others.
func BenchmarkAllocate(b *testing.B) {
	for _, n := range []int{1, 1000, 10000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			k := reservedPool(b, n, 2*n+64)
			b.ReportAllocs()
			for b.Loop() {
				rec, err := k.m.Allocate(b.Context(), Request{Pool: "pub", Family: IPv4})
				if err != nil {
					b.Fatal(err)
				}
				k.index.byAddr[rec.Address].ended = true
				if err := k.delete(b.Context(), rec); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkObserve measures taking over a changed list of n records.
func BenchmarkObserve(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			k := reservedPool(b, n, 2*n)
			recs := make([]Record, n)
			for i := range recs {
				var a [4]byte
				binary.BigEndian.PutUint32(a[:], 10<<24+uint32(i))
				recs[i] = Record{Address: netip.AddrFrom4(a), Pool: "pub", Owners: []Owner{{Name: fmt.Sprint(i)}}, OnHold: true, ReleasedAt: time.Time{}}
			}
			scan := uint64(1)
			for b.Loop() {
				scan++
				k.observe(recs, k.m.clock.Add(1), scan)
			}
		})
	}
}
