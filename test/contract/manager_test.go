package contract

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/onelb/onelb/api/client"
	"github.com/onelb/onelb/api/client/fake"
	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/loadbalancer/virtualip"
	"github.com/onelb/onelb/provider/one"
	"github.com/onelb/onelb/test/onesim"
)

// patience bounds a wait for something that takes well below a second.
const patience = 60 * time.Second

// eventually reads a network until it is as wanted, and returns what was read last.
func (w *world) eventually(c *one.Client, id ipam.NetworkID, wanted func(ipam.Network) bool) ipam.Network {
	w.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		n := w.get(c, id)
		if wanted(n) || time.Now().After(deadline) {
			return n
		}
	}
}

// manager is IPAM on a front-end, with VirtualIPs in an API server in memory.
type manager struct {
	*ipam.Manager
	t     *testing.T
	store *virtualip.Store
	stop  func() // once or more often

	mu     sync.Mutex
	events []ipam.Event
}

// manage runs IPAM with these pools until the test ends.
func manage(w *world, c *one.Client, pools ...ipam.PoolSpec) *manager {
	w.t.Helper()
	return manageWith(w, c, nil, pools...)
}

// manageWith is manage with other options.
func manageWith(w *world, c *one.Client, change func(*ipam.Options), pools ...ipam.PoolSpec) *manager {
	w.t.Helper()
	m := &manager{t: w.t}
	api := fake.New()
	informer := client.NewVirtualIPInformer(api, 0)
	var err error
	m.store, err = virtualip.New(virtualip.Options{Client: api.VirtualIPs(), Informer: informer, OnChange: func() { m.Notify() }})
	if err != nil {
		w.t.Fatal(err)
	}
	o := ipam.Options{
		Networks: c, Records: m.store, Claims: m.store, Inventory: c, Cluster: w.prefix, Identity: "uid",
		OwnersDelay: 50 * time.Millisecond, Fence: patience / 2, OnEvent: m.note,
	}
	if change != nil {
		change(&o)
	}
	m.Manager, err = ipam.New(o)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { informer.RunWithContext(ctx) })
	m.stop = func() { cancel(); wg.Wait() }
	w.t.Cleanup(m.stop)
	m.wait("the store is empty and synced", m.store.HasSynced)
	m.SetPools(pools)
	wg.Go(func() {
		if err := m.Run(ctx); err != nil {
			w.t.Error(err)
		}
	})
	return m
}

func (m *manager) note(e ipam.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events = append(m.events, e)
}

// told reports whether there was an event of this reason.
func (m *manager) told(reason string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.events, func(e ipam.Event) bool { return e.Reason == reason })
}

func (m *manager) wait(what string, done func() bool) {
	m.t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			m.t.Fatalf("does not come: %s", what)
		}
	}
}

func detail() virtualip.Detail {
	return virtualip.Detail{Role: v1alpha1.RoleL2, TrafficPolicy: v1alpha1.TrafficPolicyCluster}
}

// give allocates an address for a Service and waits until OpenNebula has its hold.
func (m *manager) give(pool string, f ipam.Family, service string) netip.Addr {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	rec, err := m.Allocate(ctx, ipam.Request{
		Pool: pool, Family: f, Owner: ipam.Owner{Namespace: "default", Name: service, UID: service},
		Detail: detail(),
	})
	if err != nil {
		m.t.Fatal(err)
	}
	m.wait(fmt.Sprintf("the hold of %s", rec.Address), func() bool {
		r, ok := m.store.Get(rec.Address)
		return ok && r.OnHold
	})
	return rec.Address
}

// take takes an address from its Service.
func (m *manager) take(a netip.Addr, service string) {
	m.t.Helper()
	if _, err := m.store.Disown(m.t.Context(), a, types.UID(service), false); err != nil {
		m.t.Fatal(err)
	}
	m.Notify()
}

// leaseOf is what OpenNebula has about an address.
func leaseOf(n ipam.Network, a netip.Addr) (ipam.Lease, bool) {
	for _, r := range n.Ranges {
		for _, l := range r.Leases {
			if l.IP4 == a || l.IP6 == a {
				return l, true
			}
		}
	}
	return ipam.Lease{}, false
}

func isHeld(n ipam.Network, a netip.Addr) bool {
	l, ok := leaseOf(n, a)
	return ok && l.Held
}

// TestPoolsOfSLAACRanges: IPAM gives, holds and releases addresses that OpenNebula
// makes of MACs; the halves of a pair live on one hold.
func TestPoolsOfSLAACRanges(t *testing.T) {
	for _, direct := range []bool{false, true} {
		t.Run(fmt.Sprintf("direct=%v", direct), func(t *testing.T) {
			w := newWorld(t, onesim.Options{})
			six := w.network("six", `TYPE="IP6",GLOBAL_PREFIX="2001:db8:263::",SIZE="16"`)
			dual := w.network("dual", `TYPE="IP4_6",IP="10.255.6.10",GLOBAL_PREFIX="2001:db8:264::",SIZE="16"`)
			c := w.client("")
			if !direct {
				c = w.client("plain")
			}
			pool := func(name string, id ipam.NetworkID) ipam.PoolSpec {
				return ipam.PoolSpec{
					Name: name, Generation: 1, Network: ipam.NetworkQuery{ID: &id}, Direct: direct,
					ChunkSize: 2, ReserveAhead: 1, Quarantine: 100 * time.Millisecond,
				}
			}
			m := manage(w, c, pool("six", six), pool("dual", dual))
			where := func(pool string, id ipam.NetworkID) ipam.NetworkID {
				if direct {
					return id
				}
				n, err := c.FindReservation(t.Context(), w.prefix+"-"+pool)
				if err != nil {
					t.Fatal(err)
				}
				return n.ID
			}
			m.checkSix(w, c, six, func() ipam.NetworkID { return where("six", six) })
			m.checkPair(w, c, func() ipam.NetworkID { return where("dual", dual) })
			leaving := []ipam.PoolSpec{pool("six", six), pool("dual", dual)}
			for i := range leaving {
				leaving[i].Leaving = true
			}
			m.SetPools(leaving)
			for _, id := range []ipam.NetworkID{six, dual} {
				n := w.eventually(c, id, func(n ipam.Network) bool { return n.Ranges[0].Used == 0 })
				if n.Ranges[0].Used != 0 {
					t.Errorf("left in OpenNebula: %+v", n.Ranges)
				}
			}
		})
	}
}

func (m *manager) checkSix(w *world, c *one.Client, parent ipam.NetworkID, where func() ipam.NetworkID) {
	m.t.Helper()
	range6 := w.get(c, parent).Ranges[0]
	var given []netip.Addr
	for i := range 5 { // more than a chunk
		a := m.give("six", ipam.IPv6, fmt.Sprintf("six-%d", i))
		if n := w.get(c, where()); !isHeld(n, a) || a.Less(range6.First6) {
			m.t.Errorf("%s: %+v", a, n.Ranges)
		}
		given = append(given, a)
	}
	if _, err := m.Allocate(m.t.Context(), ipam.Request{Pool: "six", Family: ipam.IPv4}); err == nil {
		m.t.Error("an IPv4 address of an IPv6 range")
	}
	for i, a := range given {
		m.take(a, fmt.Sprintf("six-%d", i))
	}
	m.wait("all are free again", func() bool {
		s, ok := m.PoolStatus("six")
		return ok && s.IPv6.Used == 0
	})
}

func (m *manager) checkPair(w *world, c *one.Client, where func() ipam.NetworkID) {
	m.t.Helper()
	a4, a6 := m.give("dual", ipam.IPv4, "web"), m.give("dual", ipam.IPv6, "web")
	l, _ := leaseOf(w.get(c, where()), a4)
	if !l.Held || l.IP6 != a6 {
		m.t.Errorf("%s and %s: %+v", a4, a6, l)
	}
	m.take(a4, "web")
	m.wait("the IPv4 half is free", func() bool {
		s, ok := m.PoolStatus("dual")
		return ok && s.IPv4.Used == 0
	})
	if !isHeld(w.get(c, where()), a6) {
		m.t.Errorf("the hold of %s ended with %s", a6, a4)
	}
	m.take(a6, "web")
	m.wait("the IPv6 half is free", func() bool {
		s, ok := m.PoolStatus("dual")
		return ok && s.IPv6.Used == 0
	})
	again := m.give("dual", ipam.IPv6, "again") // by its own: nothing but a MAC names it
	if !isHeld(w.get(c, where()), again) {
		m.t.Errorf("%s is not on hold", again)
	}
	m.take(again, "again")
}
