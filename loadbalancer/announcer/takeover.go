package announcer

import (
	"bytes"
	"errors"
	"math/rand/v2"
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
	// askOften is the interval of the first candidate after an answer, for askScouts
	// addresses of each host. If one of them is silent, all of that host's are asked
	// for: an agent's addresses end together, and to ask for a thousand so often
	// takes more processor time than all the rest.
	askOften  = 10 * time.Millisecond
	askScouts = 8
	// askAlarm is after how many questions in vain.
	askAlarm = 2
	// askSeldom is that of the other candidates, whose turn comes a Step later, and
	// for the other addresses; with up to a quarter more, so that they spread.
	askSeldom = Step / 2
	// askLongPause follows an answer when the address should have lapsed in any case.
	askLongPause = time.Second
	// askForget is how many answers make a slow one count less.
	askForget = 50
	askSlack  = time.Second // what the kernel may add to a lifetime
	// askAloud is how many questions before a takeover all hosts get to hear: the
	// other candidates have at least one of them before they take the address.
	askAloud = 2
	// stoodStill is how late a question is if not only this agent had to wait for a
	// processor. What was answered meanwhile has been read, see wire.Wire.CatchUp.
	stoodStill = 250 * time.Millisecond
	askAgain   = 2
	// burst is how many questions, and announcements, are sent at once, burstPause
	// what follows: a receive queue of Linux has room for 1,000 frames.
	burst      = 512
	burstPause = time.Millisecond
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
	missed   int                // how often it began again, because answers may have been lost
	rivals   map[string]rivalry // other candidates, since the last answer
	scout    bool               // for the host's other addresses, too
}

// needed is how many questions must go unanswered. A link that loses or delays
// some shows it in the conversation before.
func (a *asking) needed() int { return max(askCount, 2*a.worst) }

// to is whom to ask: everybody, if it was one host that answered before and this is
// one of the last questions. Other candidates are to hear of them.
func (a *asking) to() net.HardwareAddr {
	if a.sent >= a.needed()-askAloud {
		return nil
	}
	return a.mac
}

// missing begins to ask again, since answers may have been lost; not for ever, or a
// host that is busy for long would never take anything.
func (a *asking) missing() {
	if a.missed < askAgain {
		a.missed++
		a.sent = 0
	}
}

// missed does so for all addresses.
func (e *Engine) missed() {
	for _, n := range e.entries {
		if n.ask != nil {
			n.ask.missing()
		}
	}
}

// interval until the next question.
func (e *Engine) interval(n *entry) time.Duration {
	switch {
	case n.ask.mac == nil:
		return askInterval
	case n.ask.sent == 0 && (n.rank > 0 || !n.ask.scout):
		return askSeldom + rand.N(askSeldom/4)
	}
	return askOften
}

// alarm has all addresses asked for that the host had. n's is silent.
func (e *Engine) alarm(n *entry, now time.Time) {
	for _, other := range e.entries {
		if a := other.ask; a != nil && a.sent == 0 && other.rank == 0 && bytes.Equal(a.mac, n.ask.mac) {
			a.next = now
		}
	}
	e.urgent = true // some of them have had their turn in this step
}

// enlist makes the address one of those that are asked for often, if more are needed.
func (e *Engine) enlist(n *entry) {
	host := string(n.ask.mac)
	if !n.ask.scout && n.rank == 0 && e.scouts[host] < askScouts {
		n.ask.scout = true
		e.scouts[host]++
	}
}

// candidate brings an address nearer that this node should take.
func (e *Engine) candidate(n *entry, now time.Time) time.Time {
	if n.handOver {
		if wait := e.inquire(n, now); !wait.IsZero() {
			return wait
		}
	}
	if wait := earliestAfter(now, n.start, n.retry); !wait.IsZero() {
		return wait
	}
	if !e.mayTake || !e.o.Group.Ready() {
		return time.Time{} // both tell when that changes
	}
	if n.ask != nil && !n.handOver && now.Before(n.ask.next) {
		return n.ask.next
	}
	on, err := e.place(n, now)
	if err != nil {
		return e.cannot(n, err, now)
	}
	if n.handOver {
		e.taking = append(e.taking, taking{n, on})
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
	if late := now.Sub(a.next); a.sent > 0 && late > stoodStill {
		a.missing() // the machine may have stood still, and with it what answers went through
	}
	if (a.sent >= a.needed() || a.sent >= askCount && now.Sub(a.silence) >= longSilence) && (n.claim.IsZero() || e.trusted(a, now)) {
		if a.mac != nil && n.rank > 0 {
			// All candidates hear the silence at once. Those before this one
			// have their turn; then everybody is asked, they included.
			*a = asking{on: a.on, began: now, next: now.Add(time.Duration(n.rank) * Step), silence: a.silence, rivals: a.rivals}
			return a.next
		}
		if e.yielded(n, now) {
			return a.next
		}
		e.taking = append(e.taking, taking{n, a.on})
		return time.Time{}
	}
	if len(e.asked) == burst {
		return now.Add(burstPause)
	}
	e.asked = append(e.asked, n)
	return time.Time{} // askAll tells
}

// askAll puts the questions of this step, after what is taken in it: that rests on
// what had been heard when the step began. It returns when the next one is due.
func (e *Engine) askAll(now time.Time) (next time.Time) {
	for _, n := range e.asked {
		if n.ask == nil {
			continue
		}
		if n.ask.scout && n.ask.sent == askAlarm {
			e.alarm(n, now)
		}
		if err := e.o.Wire.Ask(n.ask.on, n.address, n.ask.to()); err != nil {
			next = earliest(next, e.cannot(n, err, now))
			continue
		}
		if !n.claim.IsZero() {
			e.askControl(n.ask.on, now)
		}
		n.ask.sent++
	}
	sent := time.Now() // those asked last have time to answer, too
	for _, n := range e.asked {
		if n.ask != nil {
			n.ask.next = sent.Add(e.interval(n))
			next = earliest(next, n.ask.next)
		}
	}
	return next
}

// answered takes in that another host has an address that this node should take.
func (e *Engine) answered(n *entry, mac net.HardwareAddr, now time.Time) {
	a := n.ask
	if a.answers++; a.answers%askForget == 0 {
		a.worst--
	}
	a.worst, a.mac, a.sent, a.silence = max(a.worst, a.sent), mac, 0, now
	a.missed, a.rivals = 0, nil
	e.enlist(n)
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
