package loadbalancer

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestPacer: few Services are tried again at their pace, many at a bounded rate.
func TestPacer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pacer
		for range 3 {
			if d := p.after(5 * time.Second); d < 5*time.Second || d > 5*time.Second+3*retryGap {
				t.Errorf("a Service alone waits %s", d)
			}
			time.Sleep(5 * time.Second)
		}
		const waiting = 10_000
		var last time.Duration
		for range waiting {
			d := p.after(5 * time.Second)
			if d < last+retryGap {
				t.Fatalf("two retries within %s", d-last)
			}
			last = d
		}
		if most := 5*time.Second + (waiting+1)*retryGap; last > most {
			t.Errorf("the last of %d waits %s", waiting, last)
		}
		// They are gone: nobody waits for them.
		time.Sleep(last)
		if d := p.after(5 * time.Second); d != 5*time.Second {
			t.Errorf("afterwards one waits %s", d)
		}
	})
}
