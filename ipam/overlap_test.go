package ipam

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		c.network("public", range4("10.0.0.1", 20))
		c.network("twin", range4("10.0.0.10", 20))
		p := start(t, c, s, nil)
		defer p.stop()
		a, b, other := basePool("a"), basePool("b"), basePool("other")
		a.Ranges = []AddressRange{{addr("10.0.0.1"), addr("10.0.0.12")}}
		b.Ranges = []AddressRange{{addr("10.0.0.12"), addr("10.0.0.20")}}
		p.SetPools([]PoolSpec{a, b})
		p.mustBeReady("a")
		time.Sleep(time.Minute)
		for name, twin := range map[string]string{"a": `"b"`, "b": `"a"`} {
			if st := p.mustBeReady(name); st.Overlap.Reason != ReasonSameNetwork || !strings.Contains(st.Overlap.Message, "10.0.0.12 to 10.0.0.12") || !strings.Contains(st.Overlap.Message, twin) {
				t.Errorf("%s: %+v", name, st.Overlap)
			}
		}
		// The same addresses in another network: nobody gets one twice.
		other.Network.Name = "twin"
		p.SetPools([]PoolSpec{a, b, other})
		p.mustBeReady("other")
		time.Sleep(time.Minute)
		given := map[string]bool{}
		for _, pool := range []string{"b", "other", "b", "other", "b", "other", "b", "other"} {
			rec := p.mustAllocate(pool, IPv4)
			if given[rec.Address.String()] {
				t.Errorf("%s twice", rec.Address)
			}
			given[rec.Address.String()] = true
		}
		if st := p.mustBeReady("b"); st.Overlap.Reason != ReasonOtherNetwork || !strings.Contains(st.Overlap.Message, `"twin"`) {
			t.Errorf("%+v", st.Overlap)
		}
		reads := c.count("Get")
		time.Sleep(time.Minute)
		if n := c.count("Get") - reads; n > 6 {
			t.Errorf("%d reads in a minute for addresses that another pool has", n)
		}
		a.Ranges, b.Ranges = a.Ranges[:1], []AddressRange{{addr("10.0.0.13"), addr("10.0.0.20")}}
		p.SetPools([]PoolSpec{a, b})
		time.Sleep(time.Minute)
		if st := p.mustBeReady("a"); st.Overlap != (Finding{}) {
			t.Errorf("%+v", st.Overlap)
		}
	})
}

func TestEditThatStrandsAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		c.network("public", range4("10.0.0.1", 40))
		p := start(t, c, s, nil)
		defer p.stop()
		spec := basePool("pub")
		p.SetPools([]PoolSpec{spec})
		rec := p.mustAllocate("pub", IPv4)
		settle()
		spec.Ranges, spec.Generation = []AddressRange{{addr("10.0.0.20"), addr("10.0.0.30")}}, 2
		p.SetPools([]PoolSpec{spec})
		time.Sleep(20 * time.Minute)
		st := p.mustBeReady("pub")
		if st.Stranded.Reason != ReasonOutsideOfSpec || !strings.Contains(st.Stranded.Message, rec.Address.String()) {
			t.Errorf("%+v", st.Stranded)
		}
		if r := s.all()[rec.Address]; r.Phase != Active || !r.OnHold || c.use(st.ReservationID, rec.Address) != hold {
			t.Errorf("%+v", r)
		}
		s.let(rec.Address, false)
		time.Sleep(time.Minute)
		if st := p.mustBeReady("pub"); st.Stranded != (Finding{}) {
			t.Errorf("after its release: %+v", st.Stranded)
		}
	})
}

// TestRangeRemovedByForce: an administrator takes a range away from a network
// although we have reserved of it (onevnet rmar --force).
func TestRangeRemovedByForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		id := c.network("public", range4("10.0.0.1", 8), range4("10.0.1.1", 30))
		p := start(t, c, s, nil)
		defer p.stop()
		p.SetPools([]PoolSpec{basePool("pub")})
		rec := p.mustAllocate("pub", IPv4)
		settle()
		other := basePool("other")
		c.network("private", range4("10.5.0.1", 9))
		other.Network.Name = "private"
		p.SetPools([]PoolSpec{basePool("pub"), other})
		c.mu.Lock()
		c.nets[id].ranges = c.nets[id].ranges[1:]
		c.mu.Unlock()
		time.Sleep(20 * time.Minute)
		st := p.mustBeReady("pub")
		if st.Stranded.Reason != ReasonRangeRemoved || !strings.Contains(st.Stranded.Message, "10.0.0.1 to 10.0.0.8") {
			t.Errorf("%+v", st.Stranded)
		}
		if r := s.all()[rec.Address]; r.Phase != Active || !r.OnHold {
			t.Errorf("the Service has lost its address: %+v", r)
		}
		for range 5 {
			if rec := p.mustAllocate("pub", IPv4); !(AddressRange{addr("10.0.1.1"), addr("10.0.1.30")}).contains(rec.Address) {
				t.Errorf("gave %s, which somebody else may be given", rec.Address)
			}
		}
		if n := c.count("DeleteReservation"); n > 0 {
			t.Error("the reservation was deleted")
		}
		p.mustBeReady("other")
	})
}

// TestNetworkVanishes: the pool gives nothing, keeps what it has given, still
// releases, and the others go on.
func TestNetworkVanishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		id := c.network("public", range4("10.0.0.1", 20))
		c.network("private", range4("10.5.0.1", 9))
		p := start(t, c, s, nil)
		defer p.stop()
		other := basePool("other")
		other.Network.Name = "private"
		p.SetPools([]PoolSpec{basePool("pub"), other})
		kept, released := p.mustAllocate("pub", IPv4).Address, p.mustAllocate("pub", IPv4).Address
		settle()
		reservation := p.mustBeReady("pub").ReservationID
		c.mu.Lock()
		gone := c.nets[id]
		delete(c.nets, id)
		c.mu.Unlock()
		time.Sleep(20 * time.Minute)
		if st, _ := p.PoolStatus("pub"); st.Ready || st.Reason != ReasonNetworkNotFound {
			t.Errorf("%+v", st)
		}
		if err := p.allocateErr(Request{Pool: "pub", Family: IPv4}); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
		s.let(released, false)
		time.Sleep(5 * time.Minute)
		if _, ok := s.all()[released]; ok || c.use(reservation, released) != "" {
			t.Errorf("not released: %+v, %q", s.all()[released], c.use(reservation, released))
		}
		if r := s.all()[kept]; r.Phase != Active || c.use(reservation, kept) != hold {
			t.Errorf("%+v", r)
		}
		p.mustAllocate("other", IPv4)
		if n := p.countEvents(EventPoolNotReady); n != 1 {
			t.Errorf("%d events: %v", n, p.reasons())
		}
		c.mu.Lock()
		c.nets[id] = gone
		c.mu.Unlock()
		time.Sleep(5 * time.Minute)
		p.mustBeReady("pub")
		p.mustAllocate("pub", IPv4)
	})
}
