package announcer

import (
	"cmp"
	"slices"
	"time"

	"github.com/onelb/onelb/loadbalancer/announcer/addr"
)

// taking is an address that is to be taken in this step.
type taking struct {
	entry *entry
	on    addr.Interface
}

// acquireAtOnce is how many addresses the kernel is given at once. With each further
// one, more can have changed since it was decided that nobody has them.
const acquireAtOnce = 32

// acquireAll takes the addresses of this step, lot by lot: first the kernel has them and
// they are announced, then others are told, since clients wait for the first two. Before
// the next lot it hears what has come meanwhile: with the claims made, so that the host
// that had an address before is not taken for one that comes after this one.
func (e *Engine) acquireAll(now time.Time) {
	first := true
	for lot := range slices.Chunk(e.taking, acquireAtOnce) {
		if !first {
			if e.o.Wire.CatchUp() {
				e.missed()
			}
			e.hear(time.Now())
		}
		first = false
		for _, t := range e.acquire(slices.DeleteFunc(lot, e.overtaken), now) {
			e.acquired(t.entry, now)
		}
	}
	e.taking = e.taking[:0]
}

// overtaken reports whether another host was heard of since it was decided to take the
// address.
func (e *Engine) overtaken(t taking) bool {
	n := t.entry
	gone := n.retry.After(time.Now())
	if !n.handOver {
		gone = n.ask == nil || n.ask.sent == 0 || e.yielded(n, time.Now())
	}
	e.urgent = e.urgent || gone // it is asked for again, sooner or later
	return gone
}

// acquire takes some addresses, and returns those that the kernel has.
func (e *Engine) acquire(lot []taking, now time.Time) []taking {
	if len(lot) == 0 {
		return nil
	}
	places := make([]addr.Place, 0, len(lot))
	for _, t := range lot {
		places = append(places, addr.Place{Address: t.entry.address, On: t.on})
	}
	failed := failures(e.o.Kernel.AddAll(places, e.o.Lifetime))
	lot = slices.DeleteFunc(lot, func(t taking) bool {
		err := cmp.Or(failed.all, failed.single[t.entry.address])
		if err != nil {
			e.logger.Error(err, "The kernel did not take an address")
			e.cannot(t.entry, err, now)
		}
		return err != nil
	})
	e.frames = 0
	for _, t := range lot {
		n := t.entry
		// What last says is of before this takeover.
		n.hold = &hold{on: t.on, since: time.Now(), from: n.last(), expires: now.Add(e.o.Lifetime)}
		n.hold.announce(now)
		e.announce(n, now)
	}
	return lot
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
	// Who relieves a live holder does not stand in for it: while that one's claim
	// counted, too, each of them would let go when it hears the other.
	standIn := !n.handOver && e.standsIn(n, now)
	// Not to be relieved until the next evaluation says so: the old holder may
	// still be heard.
	n.ask, n.failed, n.free, n.handOver, n.ceded = nil, "", time.Time{}, false, 0
	c := e.claim(n, standIn)
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
