package returnpath

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// backend answers, or not, to the router's own address and to the public one.
type backend struct {
	mu          sync.Mutex
	own, public bool
	tries       int
}

func (b *backend) set(own, public bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.own, b.public = own, public
}

func (b *backend) answers(_ context.Context, _ Backend, from netip.Addr) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tries++
	if from.IsValid() {
		return b.public
	}
	return b.own
}

// TestProber goes through what a backend may do.
func TestProber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, changes := &backend{own: true, public: true}, 0
		p, err := New(Options{Answers: b.answers, Changed: func() { changes++ }})
		if err != nil {
			t.Fatal(err)
		}
		address := netip.MustParseAddr("10.20.0.11")
		p.Set([]Backend{{Address: address, Port: 10256, From: netip.MustParseAddr("203.0.113.100"), Interface: "eth1"}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = p.Run(ctx) }()
		for _, step := range []struct {
			name        string
			own, public bool
			wait        time.Duration
			want        bool
			changes     int
		}{
			{"replies come back", true, true, 25 * time.Second, false, 0},
			{"they do not, once", true, false, 5500 * time.Millisecond, false, 0},
			{"they do not, twice", true, false, time.Second, true, 1},
			{"nothing is known", false, false, time.Minute, true, 1},
			{"they come back again", true, true, 11 * time.Second, false, 2},
			{"nothing was known", false, false, time.Minute, false, 2},
		} {
			b.set(step.own, step.public)
			time.Sleep(step.wait)
			synctest.Wait()
			if got := p.Elsewhere()[address]; got != step.want || changes != step.changes {
				t.Errorf("%s: elsewhere %v after %d changes, want %v after %d", step.name, got, changes, step.want, step.changes)
			}
		}
		p.Set(nil)
		synctest.Wait()
		tries := b.tries
		time.Sleep(time.Minute)
		if b.tries != tries {
			t.Error("a backend that is gone is tried")
		}
		cancel()
		<-done
	})
}
