package announcer

import (
	"context"
	"time"

	"github.com/onelb/onelb/loadbalancer/announcer/addr"
)

// leavePoll is how often a node that leaves looks whether it has been relieved.
const leavePoll = 10 * time.Millisecond

// HandOver asks the others to take what this node holds, as they do for a node that is
// unwell, and takes nothing any more that another one can have. It returns when this
// node holds nothing, or ctx is done: then nobody else could. What is left is left to
// the kernel. It is for an agent that ends for good; one that restarts hands nothing over.
func (e *Engine) HandOver(ctx context.Context) {
	e.leaving.Store(true)
	began := time.Now()
	e.nudge()
	ticker := time.NewTicker(leavePoll)
	defer ticker.Stop()
	// What was taken in a step that is under way is not counted before its end.
	for !e.steppedSince(began) || e.holds.Load() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// steppedSince tells whether a whole step has begun and ended after t.
func (e *Engine) steppedSince(t time.Time) bool {
	stepped := e.stepped.Load()
	return stepped != nil && stepped.After(t)
}

// leave makes the addresses outlast a restart.
func (e *Engine) leave() {
	var entries []addr.Entry
	now := time.Now()
	for _, n := range e.order {
		if n.hold != nil && n.want && n.hold.expires.After(now) {
			entries = append(entries, addr.Entry{Address: n.address, Index: n.hold.on.Index})
		}
	}
	if err := e.o.Kernel.Renew(entries, e.restart); err != nil {
		e.logger.Error(err, "Could not leave addresses to the next start")
	}
	e.remember()
}
