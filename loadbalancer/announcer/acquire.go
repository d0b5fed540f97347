package announcer

import (
	"time"

	"github.com/onelb/onelb/loadbalancer/announcer/addr"
)

// taking is an address that is to be taken in this step.
type taking struct {
	entry *entry
	on    addr.Interface
}

// acquireAll takes the addresses of this step. First the kernel has all of them,
// then all are announced, then others are told: clients wait for the first two.
func (e *Engine) acquireAll(now time.Time) {
	if len(e.taking) == 0 {
		return
	}
	places := make([]addr.Place, 0, len(e.taking))
	for _, t := range e.taking {
		places = append(places, addr.Place{Address: t.entry.address, On: t.on})
	}
	failed := failures(e.o.Kernel.AddAll(places, e.o.Lifetime))
	// The lifetimes run from here at the latest; the announcements, too.
	taken := e.taking[:0]
	for _, t := range e.taking {
		err := failed.all
		if err == nil {
			err = failed.single[t.entry.address]
		}
		if err != nil {
			e.logger.Error(err, "The kernel did not take an address")
			e.cannot(t.entry, err, now)
			continue
		}
		taken = append(taken, t)
	}
	for _, t := range taken {
		n := t.entry
		// What last says is of before this takeover.
		n.hold = &hold{on: t.on, since: time.Now(), from: n.last(), expires: now.Add(e.o.Lifetime)}
		n.hold.announce(now)
		e.announce(n, now)
	}
	for _, t := range taken {
		e.acquired(t.entry, now)
	}
	e.taking = e.taking[:0]
}

// acquired tells of an address that this node has taken.
func (e *Engine) acquired(n *entry, now time.Time) {
	silence := time.Duration(0)
	if n.ask != nil {
		silence = now.Sub(n.ask.silence)
		e.o.Metrics.silence.Observe(silence.Seconds())
	}
	if !n.free.IsZero() {
		e.o.Metrics.duration.Observe(time.Since(n.free).Seconds())
	}
	reason := e.reason(n)
	// Not to be relieved until the next evaluation says so: the old holder may
	// still be heard.
	n.ask, n.failed, n.free, n.handOver = nil, "", time.Time{}, false
	c := e.claims(n, now)
	n.hold.epoch, n.hold.standIn = c.Epoch, c.StandIn
	e.heldDirty, e.dirty, e.moved = true, true, now
	e.logger.Info("Took an address", "address", n.address, "interface", n.hold.on.Name, "reason", reason, "epoch", n.hold.epoch, "standIn", n.hold.standIn, "silence", silence)
	if n.hold.standIn {
		reason = reasonStandIn
	} else {
		n.hold.told = true
		e.o.Reporter.Moved(n.spec, n.holding(e.o.Node))
	}
	e.o.Metrics.takeovers.WithLabelValues(reason).Inc()
}

func (e *Engine) reason(n *entry) string {
	switch {
	case n.handOver && !n.leaving:
		return reasonEven
	case n.handOver:
		return reasonHandOver
	case n.claim.IsZero():
		return reasonNew
	case n.claim.Released:
		return reasonReleased
	case n.claim.Node == e.o.Node:
		return reasonRetaken
	}
	return reasonDead
}
