package ipam

import (
	"math/rand/v2"
	"time"
)

// A failing pool is tried again after 200 ms, then after twice as long each
// time up to 30 s, each 20 % more or less so that pools do not march in step.
const (
	backoffFirst = 200 * time.Millisecond
	backoffMost  = 30 * time.Second
)

type backoff struct {
	fails int
	until time.Time
}

func (b *backoff) fail() {
	d := min(backoffMost, backoffFirst<<min(b.fails, 12))
	b.fails++
	b.until = time.Now().Add(jitter(d))
}

func (b *backoff) ok() { *b = backoff{} }

func (b *backoff) blocked() bool { return time.Now().Before(b.until) }

func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64())) //nolint:gosec // spreads load, keeps no secret
}
