package announcer

import (
	"cmp"
	"net"
	"slices"
	"time"

	"github.com/onelb/onelb/loadbalancer/announcer/wire"
)

// Two candidates that cannot hear each other's gossip, because one of them or the
// machine is too busy or because something stands between, both believe that it is
// their turn. They hear the same silence and would take the address in the same
// moment. But each hears the other's last questions, as everybody does (see
// asking.to), and the one that comes later in the order waits.

// rivalFresh is how long after another one's question this node counts with it: it
// asks a few times before it takes the address.
const rivalFresh = Step / 2

// rivalry is what a candidate knows of another one.
type rivalry struct {
	asked   time.Time // last
	yielded int       // how often this node has waited for it
}

// rival takes in a question of another host for an address.
func (e *Engine) rival(s wire.Sighting, now time.Time) {
	n, name := e.entries[s.Address], e.macs[string(s.MAC)]
	if n != nil && n.hold == nil && (n.ask == nil || n.relieves()) {
		e.contend(n, name, now)
		return
	}
	if n == nil || n.ask == nil || n.ask.on.Index != s.Index || name == "" || name == e.o.Node {
		return
	}
	if n.ask.rivals == nil {
		n.ask.rivals = map[string]rivalry{}
	}
	r := n.ask.rivals[name]
	r.asked = now
	n.ask.rivals[name] = r
}

// yielded makes this node, which could take the address, wait if another one is about
// to take it and comes first.
func (e *Engine) yielded(n *entry, now time.Time) bool {
	a, waits := n.ask, false
	for name, r := range a.rivals {
		if now.Sub(r.asked) < rivalFresh && e.yields(n, name, r.yielded) {
			r.yielded++
			a.rivals[name], waits = r, true
			e.logger.V(2).Info("Another candidate comes first", "address", n.address, "node", name)
		}
	}
	if waits {
		a.sent, a.missed, a.next = 0, 0, now.Add(Step)
	}
	return waits
}

// yields reports whether this node waits for the other one. It does so once if it has
// that one before itself. Where they see the other nodes differently, each might have
// the other one before itself; the second time the order alone counts that is the same
// everywhere. It never waits a third time: the other one cannot take the address, or
// would have.
func (e *Engine) yields(n *entry, name string, before int) bool {
	v := View{Self: e.o.Node, Peers: slices.Clone(e.peers)}
	i, found := slices.BinarySearchFunc(v.Peers, name, func(p Peer, s string) int { return cmp.Compare(p.Name, s) })
	if !found {
		return false
	}
	var p plan
	if v.Peers[i].Live {
		p = n.planned()
	}
	v.Peers[i].Live = true // it asks
	order := p.order(&n.subject, v.candidates(&n.subject))
	me, other := slices.Index(order, e.o.Node), slices.Index(order, name)
	switch {
	case other < 0, before > 1:
		return false
	case before == 1:
		return e.outranks(name, n)
	}
	return me < 0 || other < me
}

// outranks reports whether a node comes before this one whatever each sees of the others.
func (e *Engine) outranks(name string, n *entry) bool {
	return cmp.Or(cmp.Compare(score(name, n.address), score(e.o.Node, n.address)), cmp.Compare(e.o.Node, name)) > 0
}

// holder is the live node that has the address, by what was heard; "": none. A claim of
// one that stood in, long ago, does not make it one.
func (e *Engine) holder(n *entry) string {
	holder, _ := View{Self: e.o.Node, Peers: e.peers}.holder(&n.subject)
	return holder
}

// relieves reports whether this node is to relieve a live holder.
func (n *entry) relieves() bool { return n.want && n.hold == nil && n.handOver }

// inquire asks the wire, before this node's turn to relieve a holder, whether another
// candidate has done so: that one's claim may wait for a processor. The holder answers
// in any case, until it is relieved. Nonzero: it is too early.
func (e *Engine) inquire(n *entry, now time.Time) time.Time {
	if n.inquired.Equal(n.start) {
		return time.Time{}
	}
	if wait := earliestAfter(now, n.start.Add(-HandOverDelay), n.retry); !wait.IsZero() {
		return wait
	}
	on, err := e.place(n, now)
	if err != nil {
		return time.Time{} // nothing is taken then
	}
	if e.frames++; e.frames > burst {
		return now.Add(burstPause)
	}
	if err := e.o.Wire.Ask(on, n.address, nil); err != nil {
		return e.cannot(n, err, now)
	}
	n.inquired, n.retry = n.start, now.Add(HandOverDelay)
	if !n.rivalled.IsZero() && now.Sub(n.rivalled) < HandOverDelay {
		e.cede(n, now)
	}
	return time.Time{}
}

// contend takes in that another candidate has inquired, too, or before this one knows
// that there is somebody to relieve. Where the two see the other nodes differently, such
// as which of them is damped, each may be the first one for itself: then their turns are
// at the same time, and one has to wait.
func (e *Engine) contend(n *entry, name string, now time.Time) {
	if name == "" || name == e.o.Node || name == n.claim.Node || name == e.holder(n) || !e.outranks(name, n) {
		return
	}
	n.rivalled = now
	if n.relieves() && n.inquired.Equal(n.start) && n.retry.After(now) {
		e.cede(n, now)
	}
}

// cede leaves the address to another candidate for now; not for ever, since that one
// may be unable to take it.
func (e *Engine) cede(n *entry, now time.Time) {
	if n.ceded > 1 {
		return
	}
	n.ceded++
	n.inquired, n.rivalled, n.retry = time.Time{}, time.Time{}, now.Add(Step)
}

// forestalled takes in that another agent than the holder's has the address that this
// node should take from the holder. It goes on asking until it hears that one's claim.
func (e *Engine) forestalled(n *entry, mac net.HardwareAddr, now time.Time) {
	switch e.macs[string(mac)] {
	case "", e.o.Node, n.claim.Node, e.holder(n): // who has it may be doubted just now
	default:
		n.inquired, n.retry = time.Time{}, now.Add(Step)
	}
}
