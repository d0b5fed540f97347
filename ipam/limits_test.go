package ipam

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestLimits(t *testing.T) {
	edges := limits{noEdges: true}
	ranges := limits{ranges: []AddressRange{{addr("10.0.0.254"), addr("10.0.1.1")}}, noEdges: true}
	for _, tc := range []struct {
		l    limits
		a    string
		want bool
	}{
		{limits{}, "10.0.0.0", true},
		{edges, "10.0.0.0", false},
		{edges, "10.0.0.255", false},
		{edges, "10.0.255.1", true},
		{edges, "2001:db8::", true},
		{edges, "2001:db8::ff", true},
		{ranges, "10.0.0.254", true},
		{ranges, "10.0.1.0", false},
		{ranges, "10.0.1.2", false},
	} {
		if got := tc.l.allow(addr(tc.a)); got != tc.want {
			t.Errorf("%+v allows %s: %v", tc.l, tc.a, got)
		}
	}
	for _, tc := range []struct {
		l           limits
		first, last string
		want        bool
	}{
		{edges, "10.0.0.255", "10.0.1.0", false},
		{edges, "10.0.0.255", "10.0.1.1", true},
		{edges, "255.255.255.255", "255.255.255.255", false},
		{ranges, "10.0.0.250", "10.0.0.253", false},
		{ranges, "10.0.0.250", "10.0.0.254", true},
		{ranges, "10.0.0.255", "10.0.1.0", false},
		{ranges, "2001:db8::1", "2001:db8::9", false},
	} {
		if got := tc.l.overlap(addr(tc.first), addr(tc.last)); got != tc.want {
			t.Errorf("%+v overlaps %s-%s: %v", tc.l, tc.first, tc.last, got)
		}
	}
}

func TestAvoidEdges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		c.network("public", range4("10.0.0.250", 12)) // .250 to .255 and .0 to .5
		p := start(t, c, s, nil)
		defer p.stop()
		spec := basePool("pub")
		p.SetPools([]PoolSpec{spec})
		p.mustBeReady("pub")
		// An address that was given before the edges were avoided stays.
		if _, err := p.Allocate(t.Context(), Request{Pool: "pub", Want: addr("10.0.1.0")}); err != nil {
			t.Fatal(err)
		}
		settle()
		spec.AvoidEdges, spec.Generation = true, 2
		p.SetPools([]PoolSpec{spec})
		st := p.mustBeReady("pub")
		if st.IPv4.Total != 11 || st.IPv4.Free != 10 {
			t.Errorf("%+v, want 11 in all (.0 is in use, .255 is not counted)", st.IPv4)
		}
		for range 10 {
			if rec := p.mustAllocate("pub", IPv4); isEdge(rec.Address) {
				t.Errorf("gave %s", rec.Address)
			}
		}
		if err := p.allocateErr(Request{Pool: "pub", Family: IPv4}); !errors.Is(err, ErrNoSpace) {
			t.Errorf("%v: only 10.0.0.255 is left", err)
		}
		if err := p.allocateErr(Request{Pool: "pub", Want: addr("10.0.0.255")}); !errors.Is(err, ErrOutside) {
			t.Error(err)
		}
		settle()
		n := c.find("k8s", "c-pub")
		if c.use(n.ID, addr("10.0.1.0")) != hold {
			t.Error("10.0.1.0 is not on hold any more")
		}
		s.let(addr("10.0.1.0"), false)
		time.Sleep(time.Minute)
		if err := p.allocateErr(Request{Pool: "pub", Want: addr("10.0.1.0")}); !errors.Is(err, ErrOutside) {
			t.Errorf("after its release: %v", err)
		}
	})
}

func TestDraining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		c.network("public", range4("10.0.0.1", 64))
		p := start(t, c, s, nil)
		defer p.stop()
		spec := basePool("pub")
		p.SetPools([]PoolSpec{spec})
		p.mustBeReady("pub")
		var mine []Record
		for range 20 {
			mine = append(mine, p.mustAllocate("pub", IPv4))
		}
		settle()
		spec.Draining, spec.Generation = true, 2
		p.SetPools([]PoolSpec{spec})
		settle()
		if st, _ := p.PoolStatus("pub"); st.Ready || st.Reason != ReasonDraining || st.IPv4.Used != 20 || st.ReservationID == NoNetwork {
			t.Errorf("%+v", st)
		}
		if err := p.allocateErr(Request{Pool: "pub", Family: IPv4}); !errors.Is(err, ErrDraining) {
			t.Error(err)
		}
		if err := p.allocateErr(Request{Pool: "pub", Want: addr("10.0.0.60")}); !errors.Is(err, ErrDraining) {
			t.Error(err)
		}
		// What was given stays, on hold, also if it leaves the reservation.
		n := c.find("k8s", "c-pub")
		for _, r := range mine {
			if c.use(n.ID, r.Address) != hold {
				t.Errorf("%s is not on hold", r.Address)
			}
		}
		// What is released goes back, all but the last range.
		for _, r := range mine[1:] {
			s.let(r.Address, false)
		}
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		if n := c.find("k8s", "c-pub"); n == nil || len(n.ranges) != 1 || c.use(n.ID, mine[0].Address) != hold {
			t.Errorf("%+v, want one range left, with %s", n, mine[0].Address)
		}
		if got := s.all(); len(got) != 1 || got[mine[0].Address].Phase != Active {
			t.Errorf("records %+v", got)
		}
		spec.Draining, spec.Generation = false, 3
		p.SetPools([]PoolSpec{spec})
		p.mustBeReady("pub")
		p.mustAllocate("pub", IPv4)
	})
}

// An allocation that waits for more addresses learns at once that there will be none.
func TestDrainingEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		c.network("public", range4("10.0.0.1", 64))
		var slow atomic.Bool
		p := start(t, c, s, func(_ *Options, p *process) {
			p.client.fault = func(method string) fault {
				if method == "Reserve" && slow.Load() {
					return fault{before: time.Hour}
				}
				return fault{}
			}
		})
		defer p.stop()
		spec := basePool("pub")
		p.SetPools([]PoolSpec{spec})
		p.mustBeReady("pub")
		slow.Store(true)
		done := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			for {
				if _, err := p.Allocate(ctx, Request{Pool: "pub", Family: IPv4, Owner: Owner{UID: "1"}}); err != nil {
					done <- err
					return
				}
			}
		}()
		time.Sleep(10 * time.Second) // all that was reserved is given
		spec.Draining, spec.Generation = true, 2
		p.SetPools([]PoolSpec{spec})
		if err := <-done; !errors.Is(err, ErrDraining) {
			t.Error(err)
		}
	})
}

// A record that is active without owner is kept for somebody: its address stays
// ours and on hold, and nobody gets it.
func TestKeptWithoutOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		c.network("public", range4("10.0.0.1", 8))
		p := start(t, c, s, nil)
		defer p.stop()
		p.SetPools([]PoolSpec{basePool("pub")})
		p.mustBeReady("pub")
		rec := p.mustAllocate("pub", IPv4)
		settle()
		s.edit(rec.Address, func(r *Record) { r.Owners = nil })
		for range 7 {
			if r := p.mustAllocate("pub", IPv4); r.Address == rec.Address {
				t.Error("it was given to another")
			}
		}
		if err := p.allocateErr(Request{Pool: "pub", Want: rec.Address}); !errors.Is(err, ErrTaken) {
			t.Error(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		n := c.find("k8s", "c-pub")
		if c.use(n.ID, rec.Address) != hold || s.all()[rec.Address].Phase != Active {
			t.Errorf("after an hour: %q, %+v", c.use(n.ID, rec.Address), s.all()[rec.Address])
		}
	})
}
