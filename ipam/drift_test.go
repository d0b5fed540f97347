package ipam

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestDrift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		pub := c.network("public", range4("10.0.0.1", 40))
		p := start(t, c, s, nil)
		defer p.stop()
		p.SetPools([]PoolSpec{basePool("pub")})
		p.mustBeReady("pub")
		one, two := p.mustAllocate("pub", IPv4), p.mustAllocate("pub", IPv4)
		settle()
		n := c.find("k8s", "c-pub")

		c.set(n.ID, one.Address, "")        // an admin releases a hold
		c.set(n.ID, addr("10.0.0.7"), hold) // and makes another
		c.set(n.ID, two.Address, "VM 9")    // and gives an address to a VM
		time.Sleep(2 * DefaultInterval)
		settle()
		if c.use(n.ID, one.Address) != hold || p.countEvents(EventHoldRepaired) != 1 {
			t.Errorf("hold not repaired: %v", p.reasons())
		}
		if p.countEvents(EventAddressConflict) != 1 || s.all()[two.Address].OnHold {
			t.Errorf("conflict: %v, %+v", p.reasons(), s.all()[two.Address])
		}
		if c.use(n.ID, addr("10.0.0.7")) != hold {
			t.Error("orphan released too soon")
		}
		c.set(n.ID, two.Address, "")
		time.Sleep(20 * time.Minute)
		settle()
		if c.use(n.ID, addr("10.0.0.7")) != "" || p.countEvents(EventOrphanReleased) != 1 {
			t.Errorf("orphan: %v", p.reasons())
		}
		if c.use(n.ID, two.Address) != hold || !s.all()[two.Address].OnHold || p.countEvents(EventAddressConflictEnded) != 1 {
			t.Errorf("conflict not ended: %v", p.reasons())
		}

		// The reservation disappears: the addresses are fetched back.
		c.mu.Lock()
		delete(c.nets, n.ID)
		for _, r := range c.nets[pub].ranges {
			clear(r.use)
		}
		c.nets[pub].ranges[0].use[1] = "VM 3" // 10.0.0.2 is lost to a VM
		c.mu.Unlock()
		time.Sleep(2 * DefaultInterval)
		settle()
		m := c.find("k8s", "c-pub")
		if m == nil || c.use(m.ID, one.Address) != hold {
			t.Fatalf("%s is not ours again: %v", one.Address, p.reasons())
		}
		if p.countEvents(EventAddressConflict) != 2 {
			t.Errorf("events %v", p.reasons())
		}
		if got := p.mustAllocate("pub", IPv4); got.Address == two.Address || got.Address == one.Address {
			t.Error("given twice")
		}
	})
}

func TestRemoval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		pub := c.network("public", range4("10.0.0.1", 40))
		p := start(t, c, s, nil)
		p.SetPools([]PoolSpec{basePool("pub")})
		p.mustBeReady("pub")
		rec := p.mustAllocate("pub", IPv4)
		settle()
		p.SetPools(nil)
		if err := p.allocateErr(Request{Pool: "pub", Family: IPv4}); !errors.Is(err, ErrLeaving) {
			t.Error(err)
		}
		settle()
		if n := c.find("k8s", "c-pub"); n == nil || c.use(n.ID, rec.Address) != hold {
			t.Fatal("the address was lost")
		}
		p.stop() // a new process knows the pool from its records alone
		q := start(t, c, s, nil)
		q.SetPools(nil)
		settle()
		s.let(rec.Address, false)
		time.Sleep(time.Minute)
		settle()
		if c.find("k8s", "c-pub") != nil {
			t.Error("reservation not given back")
		}
		q.wantEvent(EventReservationReturned)
		time.Sleep(2 * DefaultFence)
		settle()
		if _, ok := q.PoolStatus("pub"); ok || len(s.all()) != 0 {
			t.Errorf("not forgotten, records %v", s.all())
		}
		if len(c.nets[pub].ranges[0].use) != 0 {
			t.Error("addresses lost")
		}
		q.stop()
	})
}

func TestLeavingAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		c.network("public", range4("10.0.0.1", 8))
		p := start(t, c, s, nil)
		defer p.stop()
		spec := basePool("pub")
		p.SetPools([]PoolSpec{spec})
		p.mustBeReady("pub")
		spec.Leaving = true
		p.SetPools([]PoolSpec{spec})
		settle()
		if st, _ := p.PoolStatus("pub"); st.Reason != ReasonRemoved || c.find("k8s", "c-pub") != nil {
			t.Fatalf("status %+v", st)
		}
		spec.Leaving = false
		p.SetPools([]PoolSpec{spec})
		p.mustBeReady("pub")
		p.mustAllocate("pub", IPv4) // all addresses of the network were given back a moment ago
		time.Sleep(2 * DefaultFence)
		settle()
		if len(s.all()) != 1 {
			t.Errorf("records %v", s.all())
		}
	})
}

// A pool is wanted again while its reservation is being given back, or looked for.
func TestBackWhileItLeaves(t *testing.T) {
	for _, slow := range []string{"DeleteReservation", "FindReservation", "Get"} {
		synctest.Test(t, func(t *testing.T) {
			c, s := newCloud(), newStore()
			c.network("public", range4("10.0.0.1", 8))
			p := start(t, c, s, nil)
			defer p.stop()
			spec := basePool("pub")
			p.SetPools([]PoolSpec{spec})
			p.mustBeReady("pub")
			var called atomic.Int64
			p.client.setFault(func(method string) (f fault) {
				if method == slow {
					called.Add(1)
					f.after = 3 * time.Second
				}
				return f
			})
			spec.Leaving = true
			p.SetPools([]PoolSpec{spec})
			for range 100 { // at each moment of it
				time.Sleep(90 * time.Millisecond)
				spec.Leaving = !spec.Leaving
				p.SetPools([]PoolSpec{spec})
			}
			p.client.setFault(nil)
			spec.Leaving = false
			p.SetPools([]PoolSpec{spec})
			time.Sleep(time.Minute)
			p.mustBeReady("pub")
			p.mustAllocate("pub", IPv4)
			if called.Load() == 0 {
				t.Errorf("%s was not called", slow)
			}
		})
	}
}

func TestRestartCostsNoCallPerRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		c.network("public", range4("10.0.0.1", 1000))
		p := start(t, c, s, nil)
		p.SetPools([]PoolSpec{basePool("pub")})
		p.mustBeReady("pub")
		for range 300 {
			p.mustAllocate("pub", IPv4)
		}
		settle()
		p.crash()
		for a := range s.all() { // as if it had crashed before it wrote that down
			s.edit(a, func(r *Record) { r.OnHold = false })
		}
		before := c.count("")
		q := start(t, c, s, nil)
		defer q.stop()
		q.SetPools([]PoolSpec{basePool("pub")})
		q.mustBeReady("pub")
		if got := c.count("") - before; got > 3 {
			t.Errorf("%d calls at restart", got)
		}
		for _, r := range s.all() {
			if !r.OnHold {
				t.Fatalf("%s not on hold", r.Address)
			}
		}
	})
}

func TestLimitsWithInvisibleLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		id := c.network("public", range4("10.0.0.1", 60))
		for i := 30; i < 50; i++ {
			if i%5 != 0 {
				c.set(id, advance(addr("10.0.0.0"), i), "VM 1") // our user does not see these
			}
		}
		p := start(t, c, s, nil)
		defer p.stop()
		spec := basePool("pub")
		spec.Ranges = []AddressRange{{addr("10.0.0.30"), addr("10.0.0.49")}}
		p.SetPools([]PoolSpec{spec})
		p.mustBeReady("pub")
		for _, want := range []string{"10.0.0.30", "10.0.0.35", "10.0.0.40", "10.0.0.45"} {
			if got := p.mustAllocate("pub", IPv4); got.Address != addr(want) {
				t.Errorf("got %s, want %s", got.Address, want)
			}
		}
		if err := p.allocateErr(Request{Pool: "pub", Family: IPv4}); !errors.Is(err, ErrNoSpace) {
			t.Error(err)
		}
	})
}

func TestOneFailingPoolDoesNotDelayAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		c.network("public", range4("10.0.0.1", 60))
		p := start(t, c, s, nil)
		defer p.stop()
		bad := basePool("bad")
		bad.Network.Name = "nowhere"
		p.SetPools([]PoolSpec{bad, basePool("pub")})
		p.mustBeReady("pub")
		p.mustAllocate("pub", IPv4)
		if all := p.Statuses(); len(all) != 2 || all[0].Name != "bad" || all[0].Ready || !all[1].Ready {
			t.Errorf("%+v", all)
		}
	})
}

// TestOutdatedProcess: an old leader that reads the reservation no more must
// not give what the new one has given back, however late it tries.
func TestOutdatedProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		pub := c.network("public", range4("10.0.0.1", 64))
		p := start(t, c, s, nil)
		defer p.stop()
		p.SetPools([]PoolSpec{basePool("pub")})
		p.mustBeReady("pub")
		for range 40 {
			p.mustAllocate("pub", IPv4)
		}
		old := start(t, c, s, func(o *Options, _ *process) { o.Interval = 100 * time.Hour })
		defer old.stop()
		old.SetPools([]PoolSpec{basePool("pub")})
		old.mustBeReady("pub")
		old.client.setFault(func(string) fault { return fault{err: ErrUnavailable} })
		for a := range s.all() {
			s.let(a, false)
		}
		time.Sleep(20 * time.Minute)
		settle()
		n := c.find("k8s", "c-pub")
		if len(s.all()) != 0 || c.count("FreeRange") == 0 {
			t.Fatalf("nothing was given back; records %v", s.all())
		}
		_, _ = c.reserve("stranger", ReserveRequest{Parent: pub, Name: "stranger", Into: NoNetwork, Range: 0, Size: 1})
		given := 0
		for range 64 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			rec, err := old.Allocate(ctx, Request{Pool: "pub", Family: IPv4, Owner: Owner{UID: "x"}})
			cancel()
			if err != nil {
				break
			}
			given++
			if use := c.use(pub, rec.Address); use != fmt.Sprintf("VNET %d", n.ID) {
				t.Errorf("gave %s, which is used by %q", rec.Address, use)
			}
		}
		t.Logf("%d given, %d ranges had been given back", given, c.count("FreeRange"))
	})
}

func TestTwoClustersOfOneName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud()
		c.network("public", range4("10.0.0.1", 64))
		one := start(t, c, newStore(), nil)
		defer one.stop()
		two := start(t, c, newStore(), func(o *Options, p *process) {
			o.Identity = "uid2"
			p.client.fault = func(m string) fault { return fault{before: time.Millisecond} }
		})
		defer two.stop()
		one.SetPools([]PoolSpec{basePool("pub")})
		two.SetPools([]PoolSpec{basePool("pub")})
		time.Sleep(2 * time.Minute)
		settle()
		a, _ := one.PoolStatus("pub")
		b, _ := two.PoolStatus("pub")
		if a.Ready == b.Ready {
			t.Errorf("one must win: %+v, %+v", a, b)
		}
		if a.Reason != ReasonForeignReservation && b.Reason != ReasonForeignReservation {
			t.Errorf("the other must say why: %+v, %+v", a, b)
		}
	})
}
