package announcer

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/onelb/onelb/loadbalancer/announcer/addr"
	"github.com/onelb/onelb/loadbalancer/announcer/wire"
)

// step does all that is due and returns when the next thing is.
func (e *Engine) step(now time.Time) time.Time {
	if e.conversing && e.o.Wire.CatchUp() { // before silence is judged
		e.missed()
	}
	e.hear(now)
	e.urgent = false
	if !now.Before(e.refreshAt) {
		if err := e.refresh(now); err != nil {
			e.logger.Error(err, "Could not read the interfaces")
			e.refreshAt = now.Add(retryInterval)
		}
	}
	if e.dirty || !now.Before(e.rested) {
		e.changed, e.dirty = false, e.dirty || e.changed
		for _, c := range e.o.Group.Drain() {
			e.heed(c, now)
		}
	}
	evaluated := e.dirty
	if evaluated {
		e.evaluate(now)
		e.rested = time.Now().Add(min(time.Duration(len(e.order))*groupRest, groupRestMost))
	}
	if !now.Before(e.renewAt) {
		e.renewAt = e.onBeat(now.Add(e.o.Lifetime/3), now)
		e.renew(now)
	}
	next := earliest(e.refreshAt, e.renewAt)
	if e.judged.After(now) {
		next = earliest(next, e.judged)
	} else if !e.judged.IsZero() {
		e.judged, e.dirty = time.Time{}, true
	}
	if e.changed {
		next = earliest(next, e.rested)
	}
	next = earliest(next, e.tickAll(now))
	if evaluated || e.dirty {
		for _, n := range e.entries {
			e.report(n)
		}
	}
	if e.heldDirty || !e.filtered || evaluated && (e.elsewhere || e.ipvs() >= 0) {
		e.filter()
	}
	if e.heldDirty {
		e.remember()
	}
	if e.dirty || e.urgent { // something was taken or dropped: decide again at once
		return now
	}
	return next
}

// tickAll does what is due for all addresses and returns when the next thing is. What
// concerns many at once is done for all of them before the next kind of thing: the
// kernel, the announcements, the claims, the questions.
func (e *Engine) tickAll(now time.Time) (next time.Time) {
	e.conversing, e.frames = false, 0
	clear(e.scouts)
	for _, n := range e.entries {
		if n.ask != nil && n.ask.scout {
			e.scouts[string(n.ask.mac)]++
		}
	}
	e.asked, e.taking = e.asked[:0], e.taking[:0]
	for _, n := range e.entries {
		next = earliest(next, e.tick(n, now))
		e.conversing = e.conversing || n.ask != nil || n.relieves()
	}
	e.acquireAll(now)
	return earliest(next, e.askAll(now))
}

// tick does what is due for one address and returns when the next thing is;
// zero: never.
func (e *Engine) tick(n *entry, now time.Time) time.Time {
	switch {
	case n.hold != nil && n.known && !n.want:
		return e.unwanted(n, now)
	case n.hold != nil && n.want:
		if !n.leaveBy.IsZero() && !now.Before(n.leaveBy) {
			n.want = false // until the next evaluation, which finds that nobody has it
			return e.unwanted(n, now)
		}
		next := earliest(n.leaveBy, e.watchLink(n, now))
		if n.hold == nil {
			return next
		}
		return earliest(earliest(next, e.doubt(n, now)), earliest(e.announce(n, now), e.vanishing(n, now)))
	case n.hold == nil && n.want:
		return earliest(e.candidate(n, now), e.vanishing(n, now))
	}
	return time.Time{}
}

// vanishing is when a vanished address stops being wanted.
func (e *Engine) vanishing(n *entry, now time.Time) time.Time {
	if !n.keep.IsZero() && !now.Before(n.keep) {
		e.dirty = true
	}
	return n.keep
}

// unwanted lets an address go.
func (e *Engine) unwanted(n *entry, now time.Time) time.Time {
	if now.Before(n.retry) {
		return n.retry
	}
	reason := "ineligible"
	switch {
	case !n.wanted(now):
		reason = "unwanted"
	case n.other:
		reason = "other"
	}
	e.drop(n, reason, now)
	return n.retry
}

// drop removes an address from the kernel and says so. If the kernel refuses,
// it is still held, though no longer renewed.
func (e *Engine) drop(n *entry, reason string, now time.Time) {
	if err := e.o.Kernel.Remove(n.address, n.hold.on.Index); err != nil && n.hold.expires.After(now) {
		e.logger.Error(err, "Could not let an address go; trying again")
		n.retry = now.Add(retryInterval)
		return
	}
	e.logger.Info("Let an address go", "address", n.address, "interface", n.hold.on.Name, "reason", reason)
	e.o.Metrics.lost.WithLabelValues(reason).Inc()
	n.hold, n.retry, e.heldDirty, e.dirty = nil, time.Time{}, true, true
	e.release(n)
}

// renew gives all held addresses their lifetime anew.
func (e *Engine) renew(now time.Time) {
	var entries []addr.Entry
	for _, n := range e.order {
		if n.hold == nil || n.known && !n.want {
			continue
		}
		if !now.Before(n.hold.expires) {
			e.lapsed(n)
			continue
		}
		if n.want {
			entries = append(entries, addr.Entry{Address: n.address, Index: n.hold.on.Index})
		}
	}
	if len(entries) == 0 {
		return
	}
	failed := failures(e.o.Kernel.Renew(entries, e.o.Lifetime))
	if err := failed.all; err != nil {
		e.logger.Error(err, "Could not renew addresses", "count", len(entries))
		e.o.Metrics.renewFails.Add(float64(len(entries)))
		e.renewAt = now.Add(e.o.Lifetime / 20)
		return
	}
	for _, x := range entries {
		if err := failed.single[x.Address]; err != nil {
			e.logger.Error(err, "Could not renew an address")
			e.o.Metrics.renewFails.Inc()
			e.renewAt = now.Add(e.o.Lifetime / 20)
			continue
		}
		e.entries[x.Address].hold.expires = now.Add(e.o.Lifetime)
	}
}

// lapsed notes that the kernel has dropped an address, because this agent stood
// still or the kernel refused to renew it. Another node may have it by now, so
// it is not simply added again.
func (e *Engine) lapsed(n *entry) {
	e.logger.Info("An address has lapsed", "address", n.address, "interface", n.hold.on.Name)
	if err := e.o.Kernel.Remove(n.address, n.hold.on.Index); err != nil {
		e.logger.Error(err, "Could not remove a lapsed address")
	}
	e.o.Metrics.lost.WithLabelValues("lapsed").Inc()
	n.hold, e.heldDirty, e.dirty = nil, true, true
}

type renewFailures struct {
	single map[netip.Addr]error
	all    error
}

func failures(err error) renewFailures {
	f := renewFailures{single: map[netip.Addr]error{}}
	if err == nil {
		return f
	}
	parts := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // the outermost error is the list
		parts = joined.Unwrap()
	}
	for _, p := range parts {
		var one *addr.EntryError
		if !errors.As(p, &one) {
			f.all = err
			return f
		}
		f.single[one.Entry.Address] = one
	}
	return f
}

// watchLink lets a held address go when its interface has lost its carrier and
// there are others who could take it.
func (e *Engine) watchLink(n *entry, now time.Time) time.Time {
	s, there := e.linkSince[n.hold.on.Index]
	switch {
	case !there: // the interface is gone, and the address with it
	case s.up, e.alone():
		return time.Time{}
	case now.Before(s.since.Add(linkDownTime)):
		return s.since.Add(linkDownTime)
	}
	e.drop(n, "link", now)
	return n.retry
}

// linkMoved reacts to a carrier that came or went.
func (e *Engine) linkMoved(i addr.Interface, now time.Time) {
	e.logger.Info("Interface changed", "interface", i.Name, "up", i.Up)
	for _, n := range e.entries {
		if n.hold != nil && n.hold.on.Index == i.Index && i.Up {
			n.hold.announce(now)
		}
	}
}

// announce makes the announcements start anew.
func (h *hold) announce(now time.Time) {
	h.began, h.announced, h.announceAt = now, 0, now
}

// announce sends the announcement that is due.
func (e *Engine) announce(n *entry, now time.Time) time.Time {
	h := n.hold
	if now.Before(h.announceAt) {
		return h.announceAt
	}
	if e.frames++; e.frames > burst {
		return now.Add(burstPause)
	}
	if err := e.o.Wire.Announce(h.on, n.address); err != nil {
		e.logger.V(2).Info("Could not announce an address", "address", n.address, "err", err)
	} else {
		family := "ipv4"
		if n.address.Is6() {
			family = "ipv6"
		}
		e.o.Metrics.announced.WithLabelValues(family).Inc()
	}
	h.announced++
	if h.announced < len(announceAfter) {
		h.announceAt = h.began.Add(announceAfter[h.announced])
	} else {
		h.announceAt = e.onBeat(now.Add(announceMin+rand.N(announceMax-announceMin)), now)
	}
	return h.announceAt
}

// sight takes in a claim of another host.
func (e *Engine) sight(s wire.Sighting, now time.Time) {
	if c := e.controls[s.Index]; c != nil {
		c.answer(s.Address, s.MAC, e.read, now)
	}
	n := e.entries[s.Address]
	if n == nil && !e.controlled(s.Address, now) {
		e.interest.Delete(s.Address) // a node's own address, of a conversation that is over
	}
	switch {
	case n == nil:
	case n.relieves():
		e.forestalled(n, s.MAC, now)
	case n.ask != nil && n.ask.on.Index == s.Index:
		e.answered(n, s.MAC, now)
	case n.hold != nil && n.hold.on.Index == s.Index && n.handOver:
		// The successor announces itself: sooner than its claim gets here.
		e.drop(n, "handover", now)
	case n.hold != nil && n.hold.on.Index == s.Index && e.doubted(n, now):
		// A claim that counts more was heard, and now its node on the wire.
		e.drop(n, "other", now)
	case e.agent(s.MAC):
	case n.hold != nil && n.hold.on.Index == s.Index:
		e.o.Metrics.conflicts.Inc()
		defend, report := n.rows.seen(s.MAC, now)
		if defend && n.want {
			n.hold.announceAt, e.urgent = now, true
		}
		if report {
			e.logger.Info("Another host claims an address that this node holds", "address", s.Address, "mac", s.MAC.String())
			e.o.Reporter.Conflict(n.spec, s.MAC)
		}
	}
}
