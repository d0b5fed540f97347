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
		if st.IPv4 != (Counts{Total: 50, Reserved: 8, Free: 50, Ahead: 8}) || st.IPv6 != (Counts{}) || st.NetworkName != "public" || st.Reason != ReasonReserved {
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
		// Also if the keeper had found out while the last address was still free.
		synctest.Wait()
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

func TestAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		c.network("public", range4("10.0.0.10", 100))
		p := start(t, c, s, nil)
		defer p.stop()
		p.SetPools([]PoolSpec{basePool("pub")})
		p.mustBeReady("pub")
		synctest.Wait()
		before := c.count("Reserve")
		want := Request{Pool: "pub", Want: addr("10.0.0.100"), AtOnce: true}
		if err := p.allocateErr(want); !errors.Is(err, ErrNotNow) {
			t.Errorf("an address that is not reserved: %v", err)
		}
		time.Sleep(time.Minute)
		if n := c.count("Reserve"); n != before {
			t.Error("it was reserved although nobody waits for it")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		want.AtOnce = false
		if _, err := p.Allocate(ctx, want); err != nil {
			t.Errorf("when it is waited for: %v", err)
		}
		if _, err := p.Allocate(ctx, Request{Pool: "pub", Family: IPv4, AtOnce: true}); err != nil {
			t.Errorf("one that is reserved ahead: %v", err)
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
		{"no range of addresses", func(c *cloud) { c.network("public", Range{Kind: RangeEther, Size: 10}) }, nil, ReasonNetworkUnusable, ErrUnusable},
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
				if spec.validate("c") != nil {
					return
				}
				spec.Leaving = true // the pool is deleted: nothing of ours is in the way
				p.SetPools([]PoolSpec{spec})
				time.Sleep(time.Minute)
				settle()
				if st, _ := p.PoolStatus(spec.Name); st.Reason != ReasonRemoved || len(c.nets) != nets {
					t.Errorf("after its removal: status %+v, %d networks", st, len(c.nets))
				}
				if n := p.countEvents(EventReservationReturned); n != 0 {
					t.Error("an event about a reservation that there never was")
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
		time.Sleep(DefaultAdopt / 2)
		if c.find("k8s", "c-pub").Attributes[AttributeClusterUID] != "" {
			t.Error("adopted at once: its maker may be at it")
		}
		time.Sleep(2 * DefaultAdopt)
		q.mustBeReady("pub")
		if n = c.find("k8s", "c-pub"); n.Attributes[AttributeClusterUID] != "uid" || n.ID != 1 {
			t.Errorf("%+v", n)
		}
	})
}
