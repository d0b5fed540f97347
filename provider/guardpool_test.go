package provider

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/onelb/onelb/api/client"
	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/loadbalancer/virtualip"
)

// TestGuardedPool runs IPAM on the front-end: a pool with guard alias reserves
// SHARED addresses only, an alias beside the hold is no conflict, and the hold
// ends after the last candidate.
func TestGuardedPool(t *testing.T) {
	w := newGuardWorld(t, 1, time.Millisecond)
	inf := client.NewVirtualIPInformer(w.onelb, 0)
	var m *ipam.Manager
	store, err := virtualip.New(virtualip.Options{
		Client: w.onelb.VirtualIPs(), Informer: inf, OnChange: func() { m.Notify() },
		Announced: func(v *v1alpha1.VirtualIP) bool { return len(v.Spec.Guard.Candidates) > 0 },
	})
	w.check(err)
	m, err = ipam.New(ipam.Options{
		Networks: w.one, Records: store, Cluster: "lab", Identity: "uid", Interval: 200 * time.Millisecond,
		OnEvent: func(e ipam.Event) { w.mu.Lock(); w.events = append(w.events, e); w.mu.Unlock() },
	})
	w.check(err)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer func() { cancel(); wg.Wait() }()
	wg.Go(func() { inf.RunWithContext(ctx) })
	w.await("the store", inf.HasSynced)
	wg.Go(func() { _ = m.Run(ctx) })
	id := ipam.NetworkID(w.network)
	plain, err := w.sim.AddVNet("", `NAME="plain" VN_MAD="dummy" BRIDGE="br9" AR=[TYPE="IP4",IP="10.40.0.1",SIZE="9"]`)
	w.check(err)
	other := ipam.NetworkID(plain)
	spec := ipam.PoolSpec{Name: "vip", Network: ipam.NetworkQuery{ID: &id}, Shared: true, ChunkSize: 4, ReserveAhead: 2}
	m.SetPools([]ipam.PoolSpec{spec, {Name: "none", Network: ipam.NetworkQuery{ID: &other}, Shared: true, ChunkSize: 4}})
	r, err := m.Allocate(ctx, ipam.Request{Pool: "vip", Family: ipam.IPv4, Owner: ipam.Owner{Namespace: "ns", Name: "a", UID: "u"},
		Detail: virtualip.Detail{Role: v1alpha1.RoleL2, TrafficPolicy: v1alpha1.TrafficPolicyCluster, Guarded: true}})
	w.check(err)
	if !netip.MustParsePrefix("10.20.1.0/24").Contains(r.Address) {
		t.Fatalf("%s is not of the SHARED range", r.Address)
	}
	st, _ := m.PoolStatus("vip")
	if !st.SpoofingFilter || st.IPv4.Total != 200 {
		t.Errorf("status %+v", st)
	}
	w.await("a pool without SHARED ranges to be refused", func() bool {
		st, _ := m.PoolStatus("none")
		return st.Reason == ipam.ReasonNetworkUnusable
	})
	w.reservation = int(st.ReservationID)
	held := func() bool { rec, ok := store.Get(r.Address); return ok && rec.OnHold }
	w.await("the hold", held)
	w.check(store.SetCandidates(ctx, r.Address, func(*v1alpha1.VirtualIP) []v1alpha1.Candidate {
		return []v1alpha1.Candidate{{Node: nodeName(0), Machine: int32(w.machines[0]), State: v1alpha1.CandidateAttached}}
	}))
	w.check(w.one.AttachAlias(ctx, w.machines[0], w.reservation, "NIC0", r.Address))
	w.await("the alias", func() bool { return len(w.aliases(r.Address)) == 1 })
	w.check(w.sim.Release(w.reservation, r.Address)) // by somebody
	w.await("the hold put back beside the alias", func() bool { return w.sent(ipam.EventHoldRepaired) })
	if w.sent(ipam.EventAddressConflict) || !held() {
		t.Errorf("the alias is taken for a conflict; events %+v", w.events)
	}
	w.release(r.Address)
	for deadline := time.Now().Add(600 * time.Millisecond); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if rec, ok := store.Get(r.Address); !ok || rec.Phase == ipam.Quarantined {
			t.Fatal("the hold ended before the alias was gone")
		}
	}
	vm, err := w.one.VM(ctx, w.machines[0])
	w.check(err)
	w.check(w.one.DetachNIC(ctx, w.machines[0], vm.NICs[len(vm.NICs)-1].ID))
	w.check(store.SetCandidates(ctx, r.Address, func(*v1alpha1.VirtualIP) []v1alpha1.Candidate { return nil }))
	m.Notify()
	w.await("the end of the record", func() bool { _, ok := store.Get(r.Address); return !ok })
	n, err := w.sim.VNet(w.reservation)
	w.check(err)
	for _, ar := range n.Ranges {
		if len(ar.Leases) > 0 || !ar.Shared {
			t.Error(fmt.Sprint("left over: ", ar))
		}
	}
}
