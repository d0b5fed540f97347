package announcer

import (
	"errors"
	"net"
	"time"

	"github.com/onelb/onelb/loadbalancer/announcer/addr"
)

// Asking the wire: askCount questions askInterval apart without an answer mean
// that nobody has the address. A host that answered before is asked directly, so
// that the others on the network are not bothered, and so often that the end of
// its address' lifetime is noticed at once: clients with an empty neighbour cache
// wait from then on.
const (
	askInterval = 15 * time.Millisecond
	askCount    = 4
	// askOften is the interval of the first candidate after an answer, if it asks
	// for few addresses. For each of many it leaves room: a node with a thousand
	// addresses is asked 10,000 times a second.
	askOften = 10 * time.Millisecond
	askRoom  = 100 * time.Microsecond
	// askSeldom is that of the other candidates, whose turn comes a Step later.
	askSeldom = Step / 2
	// askLongPause follows an answer when the address should have lapsed in any case.
	askLongPause = time.Second
	// askForget is how many answers make a slow one count less.
	askForget = 50
	askSlack  = time.Second // what the kernel may add to a lifetime
)

// asking is a candidate's conversation with the wire.
type asking struct {
	on       addr.Interface
	began    time.Time
	next     time.Time
	sent     int // questions since the last answer
	worst    int // the highest number of questions before an answer, lately
	answers  int
	silence  time.Time // since the last answer, or from the beginning
	mac      net.HardwareAddr
	reported bool
}

// needed is how many questions must go unanswered. A link that loses or delays
// some shows it in the conversation before.
func (a *asking) needed() int { return max(askCount, 2*a.worst) }

// interval until the next question.
func (e *Engine) interval(n *entry) time.Duration {
	switch {
	case n.ask.mac == nil:
		return askInterval
	case n.ask.sent == 0 && n.rank > 0:
		return askSeldom
	}
	return max(askOften, time.Duration(e.asking)*askRoom)
}

// candidate brings an address nearer that this node should take.
func (e *Engine) candidate(n *entry, now time.Time) time.Time {
	if wait := earliestAfter(now, n.start, n.retry); !wait.IsZero() {
		return wait
	}
	if !e.mayTake || !e.o.Group.Ready() {
		return time.Time{} // both tell when that changes
	}
	on, err := e.place(n, now)
	if err != nil {
		return e.cannot(n, err, now)
	}
	if n.handOver {
		e.acquire(n, on, now)
		return time.Time{}
	}
	if n.ask == nil || n.ask.on.Index != on.Index {
		n.ask = &asking{on: on, began: now, next: now, silence: now}
	}
	return e.question(n, now)
}

// earliestAfter is the later of the times that are still to come; zero: none is.
func earliestAfter(now time.Time, times ...time.Time) time.Time {
	var wait time.Time
	for _, t := range times {
		if t.After(now) && t.After(wait) {
			wait = t
		}
	}
	return wait
}

// cannot notes why this node cannot take an address, and tells the others, who
// would leave it to the node that had it last.
func (e *Engine) cannot(n *entry, err error, now time.Time) time.Time {
	if n.failed != err.Error() {
		n.failed = err.Error()
		e.logger.Info("Cannot take an address", "address", n.address, "reason", n.failed)
	}
	n.ask = nil
	e.release(n)
	n.retry = now.Add(retryInterval)
	if errors.Is(err, errWait) {
		n.retry = now.Add(linkUpTime / 10)
	}
	return n.retry
}

// question asks the wire, or takes the address if it was silent long enough.
func (e *Engine) question(n *entry, now time.Time) time.Time {
	a := n.ask
	if now.Before(a.next) {
		return a.next
	}
	if a.sent > 0 && now.Sub(a.next) > max(askInterval, e.interval(n)) {
		// This agent stood still. Answers may be waiting that it has not read,
		// so the silence proves nothing.
		a.sent = 0
	}
	if a.sent >= a.needed() && (n.claim.IsZero() || e.trusted(a, now)) {
		if a.mac != nil && n.rank > 0 {
			// All candidates hear the silence at once. Those before this one
			// have their turn; then everybody is asked, they included.
			*a = asking{on: a.on, began: now, next: now.Add(time.Duration(n.rank) * Step), silence: a.silence}
			return a.next
		}
		e.acquire(n, a.on, now)
		return time.Time{}
	}
	if err := e.o.Wire.Ask(a.on, n.address, a.mac); err != nil {
		return e.cannot(n, err, now)
	}
	if !n.claim.IsZero() {
		e.askControl(a.on, now)
	}
	a.sent++
	a.next = now.Add(e.interval(n))
	return a.next
}

// answered takes in that another host has an address that this node should take.
func (e *Engine) answered(n *entry, mac net.HardwareAddr, now time.Time) {
	a := n.ask
	if a.answers++; a.answers%askForget == 0 {
		a.worst--
	}
	a.worst, a.mac, a.sent, a.silence = max(a.worst, a.sent), mac, 0, now
	a.next = now.Add(e.interval(n))
	if now.Sub(a.began) > e.restart+askSlack {
		e.persistent(n, now)
	}
}

// persistent deals with a host that has answered for longer than a dead agent's
// kernel would: its agent lives but cannot be reached, or it is a stranger. The
// address is not fought over; the questions go on, slowly.
func (e *Engine) persistent(n *entry, now time.Time) {
	a := n.ask
	a.next = now.Add(askLongPause)
	if a.reported {
		return
	}
	a.reported = true
	if e.agent(a.mac) {
		e.logger.Info("A node whose agent cannot be reached has an address", "address", n.address, "node", e.macs[string(a.mac)])
		return
	}
	e.logger.Info("Another host has an address that this node should take", "address", n.address, "mac", a.mac.String())
	e.o.Metrics.conflicts.Inc()
	e.o.Reporter.Conflict(n.spec, a.mac)
}

// acquire takes the address.
func (e *Engine) acquire(n *entry, on addr.Interface, now time.Time) {
	if err := e.o.Kernel.Add(n.address, on, e.o.Lifetime); err != nil {
		e.logger.Error(err, "The kernel did not take an address")
		e.cannot(n, err, now)
		return
	}
	silence := time.Duration(0)
	if n.ask != nil {
		silence = time.Since(n.ask.silence)
		e.o.Metrics.silence.Observe(silence.Seconds())
	}
	if !n.free.IsZero() {
		e.o.Metrics.duration.Observe(now.Sub(n.free).Seconds())
	}
	reason := e.reason(n)
	// Not to be relieved until the next evaluation says so: the old holder may
	// still be heard.
	n.ask, n.failed, n.free, n.handOver = nil, "", time.Time{}, false
	n.hold = &hold{on: on, since: time.Now(), from: n.last(), expires: now.Add(e.o.Lifetime)}
	n.hold.announce(now)
	e.announce(n, now)
	c := e.claims(n, now)
	n.hold.epoch, n.hold.standIn = c.Epoch, c.StandIn
	e.heldDirty, e.dirty, e.moved = true, true, now
	e.logger.Info("Took an address", "address", n.address, "interface", on.Name, "reason", reason, "epoch", n.hold.epoch, "standIn", n.hold.standIn, "silence", silence)
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
