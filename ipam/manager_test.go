package ipam

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestLifeOfAnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		c.network("public", range4("10.0.0.10", 50))
		p := start(t, c, s, nil)
		defer p.stop()
		p.SetPools([]PoolSpec{basePool("pub")})
		st := p.mustBeReady("pub")
		if st.IPv4 != (Counts{Total: 50, Reserved: 8, Free: 50}) || st.IPv6 != (Counts{}) || st.NetworkName != "public" || st.Reason != ReasonReserved {
			t.Errorf("status %+v", st)
		}
		n := c.find("k8s", "c-pub")
		if n == nil || n.Attributes[AttributeClusterUID] != "uid" || n.Attributes[AttributeCluster] != "c" || n.Attributes[AttributePool] != "pub" {
			t.Fatalf("reservation %+v", n)
		}
		before := c.count("")
		rec := p.mustAllocate("pub", IPv4)
		if rec.Address != addr("10.0.0.10") {
			t.Errorf("got %s, want the lowest", rec.Address)
		}
		if c.count("") != before {
			t.Errorf("%d calls on the critical path", c.count("")-before)
		}
		settle()
		if got := c.count("") - before; got != 1 || c.use(n.ID, rec.Address) != hold || !s.all()[rec.Address].OnHold {
			t.Errorf("%d calls, use %q, record %+v", got, c.use(n.ID, rec.Address), s.all()[rec.Address])
		}

		s.let(rec.Address, true)
		settle()
		if c.use(n.ID, rec.Address) != hold {
			t.Error("released while announced")
		}
		s.let(rec.Address, false)
		settle()
		if r := s.all()[rec.Address]; c.use(n.ID, rec.Address) != "" || r.Phase != Quarantined || r.ReleasedAt.IsZero() || r.OnHold {
			t.Errorf("after release: %q, %+v", c.use(n.ID, rec.Address), r)
		}
		if next := p.mustAllocate("pub", IPv4); next.Address != addr("10.0.0.11") {
			t.Errorf("next is %s", next.Address)
		}
		time.Sleep(31 * time.Second)
		settle()
		if _, ok := s.all()[rec.Address]; ok {
			t.Error("record outlived quarantine")
		}
		if next := p.mustAllocate("pub", IPv4); next.Address != addr("10.0.0.12") {
			t.Errorf("got %s, want one that was never used", next.Address)
		}
	})
}

func TestAllocateWhileOpenNebulaIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		c.network("public", range4("10.0.0.10", 50))
		p := start(t, c, s, nil)
		defer p.stop()
		p.SetPools([]PoolSpec{basePool("pub")})
		p.mustBeReady("pub")
		p.client.setFault(func(string) fault { return fault{err: ErrUnavailable} })
		for range 8 {
			p.mustAllocate("pub", IPv4)
		}
		settle()
		st, _ := p.PoolStatus("pub")
		if !st.Ready || st.Reason != ReasonUnavailable {
			t.Errorf("status %+v", st)
		}
		p.wantEvent(EventOpenNebulaUnavailable)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := p.Allocate(ctx, Request{Pool: "pub", Family: IPv4})
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrUnavailable) {
			t.Errorf("ninth: %v", err)
		}
		time.Sleep(10 * time.Minute)
		p.client.setFault(nil)
		time.Sleep(40 * time.Second)
		settle()
		if c.count("Hold") < 8 || p.countEvents(EventOpenNebulaAvailable) != 1 || p.countEvents(EventOpenNebulaUnavailable) != 1 {
			t.Errorf("%d holds, events %v", c.count("Hold"), p.reasons())
		}
		for _, r := range s.all() {
			if !r.OnHold {
				t.Errorf("%s is not on hold", r.Address)
			}
		}
	})
}

func TestBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		c.network("public", range4("10.0.0.1", 4000))
		p := start(t, c, s, nil)
		defer p.stop()
		p.SetPools([]PoolSpec{basePool("pub")})
		p.mustBeReady("pub")
		before := c.count("")
		s.mu.Lock()
		p.view.fault = func(string) fault { return fault{before: 5 * time.Millisecond} }
		s.mu.Unlock()
		var creators sync.WaitGroup
		for w := range 20 {
			creators.Go(func() {
				for i := range 50 {
					ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
					if _, err := p.Allocate(ctx, Request{Pool: "pub", Family: IPv4, Owner: Owner{Name: fmt.Sprint(w, i)}}); err != nil {
						t.Error(err)
					}
					cancel()
				}
			})
		}
		creators.Wait()
		if len(s.all()) != 1000 {
			t.Errorf("%d records", len(s.all()))
		}
		time.Sleep(time.Minute)
		settle()
		calls := c.count("") - before
		t.Logf("%d calls, of them %d holds, %d reservations, %d reads", calls, c.count("Hold"), c.count("Reserve"), c.count("Get"))
		if c.count("Hold") != 1000 || calls > 1200 {
			t.Errorf("%d holds, %d calls for 1000 addresses", c.count("Hold"), calls)
		}
		for _, r := range s.all() {
			if !r.OnHold {
				t.Fatalf("%s is not on hold", r.Address)
			}
		}
		// Give all back: ranges go back to the network, one stays.
		for a := range s.all() {
			s.let(a, false)
		}
		time.Sleep(30 * time.Minute)
		settle()
		if len(s.all()) != 0 {
			t.Errorf("%d records left", len(s.all()))
		}
		st, _ := p.PoolStatus("pub")
		if st.IPv4.Reserved > 260 || st.IPv4.Total != 4000 || st.IPv4.Held != 0 {
			t.Errorf("after all is over: %+v", st.IPv4)
		}
	})
}

func TestExhaustion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		id := c.network("public", range4("10.0.0.10", 12))
		c.set(id, addr("10.0.0.13"), "VM 7") // 3 and 8 in one piece
		p := start(t, c, s, nil)
		defer p.stop()
		p.SetPools([]PoolSpec{basePool("pub")})
		p.mustBeReady("pub")
		for range 11 {
			p.mustAllocate("pub", IPv4)
		}
		err := p.allocateErr(Request{Pool: "pub", Family: IPv4})
		if !errors.Is(err, ErrNoSpace) {
			t.Fatal(err)
		}
		for _, part := range []string{`"pub"`, `"public"`, "11 used", "release addresses"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q does not tell %s", err, part)
			}
		}
		settle()
		if n := p.countEvents(EventAddressesExhausted); n != 1 {
			t.Errorf("%d events in %v", n, p.reasons())
		}
		before := c.count("Reserve")
		for range 50 {
			if err := p.allocateErr(Request{Pool: "pub", Family: IPv4}); !errors.Is(err, ErrNoSpace) {
				t.Error(err)
			}
		}
		if c.count("Reserve") != before {
			t.Error("each refused allocation asks OpenNebula again")
		}
		c.set(id, addr("10.0.0.13"), "")
		time.Sleep(askAgain)
		if rec := p.mustAllocate("pub", IPv4); rec.Address != addr("10.0.0.13") {
			t.Errorf("got %s", rec.Address)
		}
		err = p.allocateErr(Request{Pool: "pub", Family: IPv6})
		if !errors.Is(err, ErrNoSpace) {
			t.Error(err)
		}
	})
}

func TestWant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		id := c.network("public", range4("10.0.0.10", 50))
		c.set(id, addr("10.0.0.45"), "VM 7")
		p := start(t, c, s, nil)
		defer p.stop()
		spec := basePool("pub")
		spec.Ranges = []AddressRange{{addr("10.0.0.20"), addr("10.0.0.59")}}
		p.SetPools([]PoolSpec{spec})
		p.mustBeReady("pub")
		get := func(a string) error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			rec, err := p.Allocate(ctx, Request{Pool: "pub", Want: addr(a)})
			if err == nil && rec.Address != addr(a) {
				t.Errorf("wanted %s, got %s", a, rec.Address)
			}
			return err
		}
		for _, tc := range []struct {
			want string
			err  error
		}{
			{"10.0.0.22", nil},          // reserved ahead
			{"10.0.0.50", nil},          // not reserved yet
			{"10.0.0.50", ErrTaken},     // has a record
			{"10.0.0.45", ErrInUse},     // somebody else's
			{"10.0.0.15", ErrOutside},   // in the network, outside the pool
			{"10.0.1.15", ErrOutside},   // outside the network
			{"2001:db8::1", ErrOutside}, // other family
		} {
			if err := get(tc.want); !errors.Is(err, tc.err) {
				t.Errorf("%s: %v, want %v", tc.want, err, tc.err)
			}
		}
		if p.Offers("pub", addr("10.0.0.15")) || !p.Offers("pub", addr("10.0.0.50")) {
			t.Error("Offers")
		}
		settle()
		if n := c.find("k8s", "c-pub"); c.use(n.ID, addr("10.0.0.50")) != hold {
			t.Error("not on hold")
		}
		if err := p.allocateErr(Request{Pool: "pub", Want: addr("10.0.0.51"), Family: IPv6}); !errors.Is(err, ErrOutside) {
			t.Error(err)
		}
		if err := p.allocateErr(Request{Pool: "pub"}); !errors.Is(err, ErrOutside) {
			t.Error(err)
		}
	})
}

func TestPairs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		c.network("public", pairs("10.0.0.10", "2001:db8::10", 16))
		p := start(t, c, s, nil)
		defer p.stop()
		p.SetPools([]PoolSpec{basePool("pub")})
		p.mustBeReady("pub")
		four, six := p.mustAllocate("pub", IPv4), p.mustAllocate("pub", IPv6)
		settle()
		n := c.find("k8s", "c-pub")
		if four.Address != addr("10.0.0.10") || six.Address != addr("2001:db8::10") || c.count("Hold") != 1 {
			t.Errorf("%s and %s with %d holds", four.Address, six.Address, c.count("Hold"))
		}
		s.let(four.Address, false)
		settle()
		if c.use(n.ID, six.Address) != hold || s.all()[four.Address].Phase != Quarantined {
			t.Error("releasing one half released the other")
		}
		s.let(six.Address, false)
		settle()
		if c.use(n.ID, six.Address) != "" || s.all()[six.Address].Phase != Quarantined {
			t.Error("still on hold after both halves were released")
		}
		time.Sleep(time.Minute)
		settle()
		if len(s.all()) != 0 {
			t.Error("records left")
		}
	})
}

func TestNotReady(t *testing.T) {
	id := NetworkID(77)
	for _, tc := range []struct {
		name   string
		world  func(*cloud)
		spec   func(*PoolSpec)
		reason string
		err    error
	}{
		{"unknown network", func(*cloud) {}, nil, ReasonNetworkNotFound, ErrNotFound},
		{"unknown ID", func(*cloud) {}, func(s *PoolSpec) { s.Network = NetworkQuery{ID: &id} }, ReasonNetworkNotFound, ErrNotFound},
		{"ambiguous", func(c *cloud) {
			c.network("public", range4("10.0.0.1", 4))
			c.network("public", range4("10.0.1.1", 4))
		}, nil, ReasonNetworkAmbiguous, ErrAmbiguous},
		{"no static range", func(c *cloud) { c.network("public", Range{Kind: RangeEther, Size: 10}) }, nil, ReasonNetworkUnusable, ErrUnusable},
		{"nothing in the limits", func(c *cloud) { c.network("public", range4("10.0.0.1", 4)) }, func(s *PoolSpec) {
			s.Ranges = []AddressRange{{addr("10.9.0.1"), addr("10.9.0.9")}}
		}, ReasonNetworkUnusable, ErrUnusable},
		{"bad limits", func(c *cloud) { c.network("public", range4("10.0.0.1", 4)) }, func(s *PoolSpec) {
			s.Ranges = []AddressRange{{addr("10.0.0.9"), addr("10.0.0.1")}}
		}, ReasonNetworkUnusable, ErrUnusable},
		{"long name", func(c *cloud) { c.network("public", range4("10.0.0.1", 4)) }, func(s *PoolSpec) {
			s.Name = strings.Repeat("x", 127)
		}, ReasonNetworkUnusable, ErrUnusable},
		{"full network", func(c *cloud) {
			n := c.network("public", range4("10.0.0.1", 1))
			c.set(n, addr("10.0.0.1"), "VM 1")
		}, nil, ReasonNoFreeAddresses, ErrNoSpace},
		{"quota", func(c *cloud) {
			c.network("public", range4("10.0.0.1", 9))
			c.quota = 0
		}, nil, ReasonDenied, ErrDenied},
		{"another cluster's", func(c *cloud) {
			c.network("public", range4("10.0.0.1", 9))
			n, _ := c.reserve("k8s", ReserveRequest{Parent: 0, Name: "c-pub", Into: NoNetwork, Size: 2})
			c.nets[n].Attributes[AttributeClusterUID] = "other"
		}, nil, ReasonForeignReservation, ErrForeign},
		{"another network's", func(c *cloud) {
			c.network("public", range4("10.0.0.1", 9))
			c.network("private", range4("10.0.1.1", 9))
			n, _ := c.reserve("k8s", ReserveRequest{Parent: 1, Name: "c-pub", Into: NoNetwork, Size: 2})
			c.nets[n].Attributes[AttributeClusterUID] = "uid"
		}, nil, ReasonWrongParent, ErrWrongParent},
		{"reservation as network", func(c *cloud) {
			c.network("private", range4("10.0.0.1", 9))
			_, _ = c.reserve("k8s", ReserveRequest{Parent: 0, Name: "public", Into: NoNetwork, Size: 2})
		}, nil, ReasonNetworkUnusable, ErrUnusable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, s := newCloud(), newStore()
				tc.world(c)
				nets := len(c.nets)
				p := start(t, c, s, nil)
				defer p.stop()
				spec := basePool("pub")
				if tc.spec != nil {
					tc.spec(&spec)
				}
				p.SetPools([]PoolSpec{spec})
				err := p.allocateErr(Request{Pool: spec.Name, Family: IPv4})
				if !errors.Is(err, tc.err) {
					t.Errorf("error %v", err)
				}
				time.Sleep(10 * time.Minute)
				settle()
				st, _ := p.PoolStatus(spec.Name)
				if st.Ready || st.Reason != tc.reason || st.Message == "" {
					t.Errorf("status %+v", st)
				}
				if n := p.countEvents(EventPoolNotReady); n != 1 {
					t.Errorf("%d events: %v", n, p.events)
				}
				for _, m := range []string{"Hold", "Release", "FreeRange", "Annotate", "DeleteReservation"} {
					if c.count(m) != 0 {
						t.Errorf("%s was called", m)
					}
				}
				if len(c.nets) != nets || len(s.all()) != 0 {
					t.Error("something was made")
				}
				if n := c.count(""); n > 150 {
					t.Errorf("%d calls in ten minutes", n)
				}
			})
		})
	}
}

func TestUnknownPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t, newCloud(), newStore(), nil)
		defer p.stop()
		if err := p.allocateErr(Request{Pool: "none", Family: IPv4}); !errors.Is(err, ErrUnknownPool) {
			t.Error(err)
		}
		if _, ok := p.PoolStatus("none"); ok {
			t.Error("status of an unknown pool")
		}
	})
}

func TestAdoption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		c.network("public", range4("10.0.0.1", 40))
		p := start(t, c, s, func(_ *Options, p *process) {
			p.client.fault = func(m string) fault { return fault{crash: m == "Annotate"} }
		})
		p.SetPools([]PoolSpec{basePool("pub")})
		settle()
		p.stop()
		n := c.find("k8s", "c-pub")
		if n == nil || n.Attributes[AttributeClusterUID] != "" {
			t.Fatalf("not the crash that was meant: %+v", n)
		}
		q := start(t, c, s, nil)
		defer q.stop()
		q.SetPools([]PoolSpec{basePool("pub")})
		time.Sleep(adoptAfter / 2)
		if c.find("k8s", "c-pub").Attributes[AttributeClusterUID] != "" {
			t.Error("adopted at once: its maker may be at it")
		}
		time.Sleep(2 * adoptAfter)
		q.mustBeReady("pub")
		if n = c.find("k8s", "c-pub"); n.Attributes[AttributeClusterUID] != "uid" || n.ID != 1 {
			t.Errorf("%+v", n)
		}
	})
}

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
