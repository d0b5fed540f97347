package loadbalancer

import (
	"sync"
	"time"
)

// retryGap is the least time between two retries. Each is a few reads of caches,
// but the library writes an event about it, and thousands of Services may be
// waiting for one pool.
const retryGap = 20 * time.Millisecond

// pacer spreads the retries of all Services that wait for something.
type pacer struct {
	mu   sync.Mutex // guards last
	last time.Time  // the latest retry that was promised
}

// after returns how long to wait: d, or longer while others are waiting for
// their turn.
func (p *pacer) after(d time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	next := now.Add(d)
	if turn := p.last.Add(retryGap); turn.After(next) {
		next = turn
	}
	p.last = next
	return next.Sub(now)
}
