package ipam

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestAnHourOfTrouble: OpenNebula is away for an hour, in each way. What is in use
// stays, what is reserved ahead is given, OpenNebula is asked rarely, one event
// says so, and all is caught up within a minute of its return.
func TestAnHourOfTrouble(t *testing.T) {
	for name, f := range map[string]fault{
		"refused":     {err: ErrUnavailable},
		"hanging":     {before: 10 * time.Second, err: ErrUnavailable},
		"lost answer": {err: ErrUnavailable, effect: true},
		"credentials": {err: ErrUnauthenticated},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { anHour(t, f) })
		})
	}
}

func anHour(t *testing.T, f fault) {
	c, s := newCloud(), newStore()
	c.network("public", range4("10.0.0.10", 50))
	p := start(t, c, s, nil)
	defer p.stop()
	p.SetPools([]PoolSpec{basePool("pub")})
	p.mustBeReady("pub")
	stays, goes := p.mustAllocate("pub", IPv4), p.mustAllocate("pub", IPv4)
	settle()
	reservation := c.find("k8s", "c-pub")

	var asked atomic.Int64
	p.client.setFault(func(string) fault { asked.Add(1); return f })
	begin := time.Now()
	s.let(goes.Address, false)
	fresh := []Record{p.mustAllocate("pub", IPv4), p.mustAllocate("pub", IPv4), p.mustAllocate("pub", IPv4), p.mustAllocate("pub", IPv4)}
	time.Sleep(time.Hour - time.Since(begin))
	synctest.Wait()
	t.Logf("asked %d times in an hour", asked.Load())
	if asked.Load() > 400 { // 3600 s / 24 s, and a few calls each time where they had an effect
		t.Errorf("OpenNebula was asked %d times", asked.Load())
	}
	if st, _ := p.PoolStatus("pub"); !st.Ready || st.Reason == ReasonReserved && f.effect == false {
		t.Errorf("status %+v", st)
	}
	if n := p.countEvents(EventOpenNebulaUnavailable); n != 1 {
		t.Errorf("%d events: %v", n, p.reasons())
	}
	for _, r := range append(fresh, stays) {
		if got := s.all()[r.Address]; got.Phase != Active || len(got.Owners) != 1 {
			t.Errorf("record %+v", got)
		}
	}
	if c.use(reservation.ID, stays.Address) != hold {
		t.Errorf("%s is no longer on hold", stays.Address)
	}

	p.client.setFault(nil)
	time.Sleep(backoffMost*6/5 + 10*time.Second)
	settle()
	for _, r := range append(fresh, stays) {
		if c.use(reservation.ID, r.Address) != hold || !s.all()[r.Address].OnHold {
			t.Errorf("%s is not on hold: %+v", r.Address, s.all()[r.Address])
		}
	}
	if c.use(reservation.ID, goes.Address) != "" {
		t.Errorf("%s is still on hold", goes.Address)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := p.Allocate(ctx, Request{Pool: "pub", Family: IPv4}); err != nil {
		t.Errorf("afterwards: %v", errors.Unwrap(err))
	}
	if st := p.mustBeReady("pub"); st.Reason != ReasonReserved {
		t.Errorf("status %+v", st)
	}
	if n := p.countEvents(EventOpenNebulaAvailable); n != 1 {
		t.Errorf("%d events: %v", n, p.reasons())
	}
}
