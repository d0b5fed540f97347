package lab

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestProbe has a service that is away from 1000 to 1300 ms.
func TestProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		gone := errors.New("gone")
		p := Probe(t.Context(), 10*time.Millisecond, func(context.Context) error {
			if since := time.Since(begin); since >= time.Second && since < 1300*time.Millisecond {
				return gone
			}
			return nil
		})
		time.Sleep(2*time.Second + time.Millisecond)
		r := p.Stop()
		if r.Sent != 201 || r.Failed != 30 || len(r.Outages) != 1 {
			t.Errorf("got %+v; want 201 probes, 30 failed, one outage", r)
		}
		if r.Longest.Duration != 300*time.Millisecond || !errors.Is(r.Longest.Err, gone) || r.Longest.Open {
			t.Errorf("longest outage %+v; want 300 ms", r.Longest)
		}
	})
}

// TestProbeTimeout has a service that stops answering at 100 ms, so that every
// later probe hangs, and comes back at 2 s.
func TestProbeTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		p := Probe(t.Context(), 50*time.Millisecond, func(ctx context.Context) error {
			if since := time.Since(begin); since >= 100*time.Millisecond && since < 2*time.Second {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		})
		time.Sleep(1900 * time.Millisecond)
		if r := p.Result(); !r.Longest.Open {
			t.Errorf("an outage that lasts counts as over: %+v", r.Longest)
		}
		time.Sleep(200 * time.Millisecond)
		if err := p.WaitAnswer(t.Context()); err != nil {
			t.Error(err)
		}
		if r := p.Stop(); r.Longest.Duration != 1900*time.Millisecond || r.Longest.Open {
			t.Errorf("longest outage %+v; want 1.9 s", r.Longest)
		}
	})
}
