package announcer

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/onelb/onelb/loadbalancer/announcer/addr"
	"github.com/onelb/onelb/loadbalancer/announcer/member"
)

// linkDownTime is how long a carrier may be away before its addresses move.
const linkDownTime = 300 * time.Millisecond

// linkUpTime is how long a carrier must have been back before silence on it
// means anything: switches and neighbour tables need a moment.
const linkUpTime = time.Second

// handOverTime is how long an excluded node waits for others to take an address.
const handOverTime = 5 * time.Second

// errWait means that it is too early to say.
var errWait = errors.New("the interface has had no carrier until now")

// evaluate decides anew on all addresses.
func (e *Engine) evaluate(now time.Time) {
	e.dirty = false
	if !e.begun {
		return // nobody has said what is wanted
	}
	e.observe(now)
	view := View{Self: e.o.Node, Peers: e.peers, Even: e.evenAt(now)}
	e.known, e.subjects = e.known[:0], e.subjects[:0]
	for _, n := range e.order {
		if n.known {
			n.subject = e.subject(n, view, now)
			e.known, e.subjects = append(e.known, n), append(e.subjects, n.subject)
		}
	}
	view.Subjects = e.subjects
	self, _ := view.peer(e.o.Node)
	for i, d := range Decide(view) {
		n := e.known[i]
		n.want, n.start, n.rank, n.handOver, n.planFirst = d.Hold, d.NotBefore, d.Rank, d.HandOver, d.First
		if !d.Hold {
			n.ask = nil
		}
		e.limitHandOver(n, self, now)
		if d.Hold && n.hold != nil {
			e.confirm(n, now)
		}
	}
}

// observe reads who is live.
func (e *Engine) observe(now time.Time) {
	live := map[string]member.Member{}
	var others, doubted []string
	for _, m := range e.o.Group.Members() {
		live[m.Name] = m
		if m.Name != e.o.Node {
			others = append(others, m.Name)
		}
		if m.Doubted {
			doubted = append(doubted, m.Name)
		}
	}
	if e.o.Group.Ready() {
		var nodes []string
		for _, c := range e.cluster.Nodes {
			if c.Name != e.o.Node {
				nodes = append(nodes, c.Name)
			}
		}
		e.returned(e.damper.observe(nodes, others, doubted, now), now)
	}
	state := member.State{
		Settled: e.damper.settled(now), Damped: e.damper.dampedSelf(now), Unwell: e.unwell.Load() || e.leaving.Load(), MACs: e.hardware(),
	}
	e.o.Group.SetState(state)
	live[e.o.Node] = member.Member{Name: e.o.Node, State: state}
	e.peers = e.peers[:0]
	for _, c := range e.cluster.Nodes {
		m, ok := live[c.Name]
		if ok {
			e.states[c.Name] = m.State
		} else {
			m.State = e.states[c.Name] // in case it is heard of otherwise
		}
		for mac := range slices.Chunk([]byte(m.MACs), 6) {
			e.macs[string(mac)] = c.Name
		}
		e.peers = append(e.peers, Peer{
			Name: c.Name, Live: ok, Doubted: ok && m.Doubted, Excluded: c.Excluded, Reluctant: c.Unavailable || c.Draining || m.Unwell,
			Settled: m.Settled, Damped: m.Damped || e.damper.dampedOther(c.Name, now),
		})
		delete(live, c.Name)
	}
	for name := range live {
		// Its Node is deleted: it may still have something, but takes nothing.
		e.peers = append(e.peers, Peer{Name: name, Live: true, Excluded: true})
	}
	slices.SortFunc(e.peers, func(a, b Peer) int { return cmp.Compare(a.Name, b.Name) })
	e.shown.publish(e.peers)
	e.o.Metrics.peers.Set(float64(len(others) - len(doubted)))
	e.judged = e.damper.next(now)
}

// hardware are the hardware addresses from which this node may answer.
func (e *Engine) hardware() string {
	var macs strings.Builder
	for _, i := range e.interfaces {
		if len(i.MAC) == 6 && len(i.Networks) > 0 {
			macs.Write(i.MAC)
		}
	}
	return macs.String()
}

// agent reports whether the hardware address belongs to a node whose agent was
// heard of. That one and this node sort out between them who holds what.
func (e *Engine) agent(mac net.HardwareAddr) bool { return e.macs[string(mac)] != "" }

// returned announces anew what was taken from nodes that are back: they, and their
// side of the network, may have gone on with it.
func (e *Engine) returned(names []string, now time.Time) {
	for _, n := range e.entries {
		if n.hold != nil && slices.Contains(names, n.hold.from) {
			n.hold.announce(now)
		}
	}
}

// alone reports whether no other agent is alive for sure.
func (e *Engine) alone() bool {
	return !slices.ContainsFunc(e.peers, func(p Peer) bool { return p.Live && !p.Doubted && p.Name != e.o.Node })
}

func (e *Engine) subject(n *entry, v View, now time.Time) Subject {
	if h := n.spec.Holder; h != nil && h.Epoch > 0 && (n.claim.IsZero() || n.hearsay) {
		// The API server says who had it, which is better than nothing. It is not
		// passed on: in a partition both sides may write there.
		n.claim, n.hearsay = member.Claim{Address: n.address, Node: h.Node, Epoch: h.Epoch}, true
	}
	s := Subject{
		Address: n.address, Created: n.spec.Created, Wanted: n.wanted(now), Local: n.spec.Local, Endpoints: n.spec.Endpoints,
		Selected: n.spec.Selected, Nodes: n.spec.Nodes, Weights: n.spec.Weights,
		Claim: n.claim, StandIn: n.standIn, Held: n.hold != nil,
	}
	switch {
	case n.claim.IsZero():
		n.virgin = true
	case n.virgin:
		n.virgin, n.first = false, now
	}
	s.Recent = n.claim.Epoch == 1 && !n.first.IsZero() && now.Sub(n.first) < recentTime
	holder, live := v.holder(&s)
	n.other = live && holder != e.o.Node
	leaving := n.other && v.leaves(holder, &s)
	switch {
	case !s.Wanted, live && !leaving, s.Held:
		n.free = time.Time{}
	case n.free.IsZero(), leaving != n.leaving: // else all candidates' turns could have come
		n.free = now
	}
	n.leaving = leaving
	if !leaving {
		n.ceded = 0
	}
	s.Free = n.free
	return s
}

// meetTime is how long a holder waits, after it has heard of another one that it
// does not see among the live, before it claims the address anew: when a partition
// heals, claims are heard before the agents have met, and of two that claim anew
// again and again either may win.
const meetTime = 2 * time.Second

// recentTime is longer than any agent needs to hear of a claim.
const recentTime = 3 * time.Second

// evenInterval is the time between two moves that even things out: each of them
// breaks connections.
const evenInterval = time.Minute

// evenAt is when the next such move may be, if that is so soon that the holder
// should prepare to let go; else zero.
func (e *Engine) evenAt(now time.Time) time.Time {
	if e.moved.IsZero() {
		e.moved = now
	}
	at := e.moved.Add(evenInterval)
	if !e.o.Even || now.Before(at.Add(-2*refreshInterval)) || !e.mayTake {
		return time.Time{}
	}
	return at
}

// limitHandOver bounds how long an excluded node waits to be relieved; one that
// is only reluctant keeps an address until then, however long it takes.
func (e *Engine) limitHandOver(n *entry, self Peer, now time.Time) {
	switch {
	case n.hold == nil || !n.handOver || !self.Excluded:
		n.leaveBy = time.Time{}
	case n.leaveBy.IsZero():
		n.leaveBy = now.Add(handOverTime)
	}
}

// confirm makes the claim of a held address agree with the kernel, and its
// interface with what is wanted.
func (e *Engine) confirm(n *entry, now time.Time) {
	e.confirmClaim(n, now)
	if n.hold.expires.Sub(now) < e.o.Lifetime/2 {
		e.renewAt = now // adopted with little time left
	}
	current, there := e.byIndex(n.hold.on.Index)
	if there {
		n.hold.on = current
	}
	on, err := e.place(n, now)
	if err != nil || on.Index == n.hold.on.Index {
		return
	}
	e.logger.Info("Moving an address to another interface", "address", n.address, "from", n.hold.on.Name, "to", on.Name)
	if err := e.o.Kernel.Add(n.address, on, e.o.Lifetime); err != nil {
		e.logger.Error(err, "Could not move an address")
		return
	}
	if err := e.o.Kernel.Remove(n.address, n.hold.on.Index); err != nil {
		e.logger.Error(err, "Could not remove an address from the interface it had before") // it lapses
	}
	e.o.Metrics.lost.WithLabelValues("moved").Inc()
	n.hold.on, n.hold.expires, e.heldDirty = on, now.Add(e.o.Lifetime), true
	n.hold.announce(now)
}

// place is the interface on which this node can take the address now.
func (e *Engine) place(n *entry, now time.Time) (addr.Interface, error) {
	if len(n.patterns) != len(n.spec.Interfaces) {
		return addr.Interface{}, ErrNoInterface // a pattern that cannot be compiled
	}
	on, found := e.choose(n)
	switch s := e.linkSince[on.Index]; {
	case !found:
		return on, ErrNoInterface
	case on.Has(n.address):
		return on, fmt.Errorf("%s: %w", on.Name, addr.ErrForeign)
	case !on.Up, !s.since.IsZero() && now.Sub(s.since) < linkUpTime:
		return on, fmt.Errorf("%s: %w", on.Name, errWait)
	}
	return on, nil
}

// choose finds the interface that is to have the address, whatever its state.
func (e *Engine) choose(n *entry) (addr.Interface, bool) {
	if !n.spec.Routed {
		return addr.Choose(e.interfaces, n.address, n.patterns)
	}
	self, _ := e.cluster.node(e.o.Node)
	return addr.Primary(e.interfaces, self.Addresses, n.address)
}

// standInTime is how long a node stands in for another one before it tells the API
// server: a link that comes and goes would change the holder there each time.
const standInTime = 10 * time.Second

// peace takes a conflict back that is over: by the holder, who would see it.
func (e *Engine) peace(n *entry) {
	if n.spec.Conflict && n.hold != nil && n.want && time.Since(n.hold.since) > conflictGap && time.Since(n.rows.last) > conflictGap {
		e.o.Reporter.Peace(n.address)
	}
}

// report tells the API server's view of the holder where it differs from ours.
func (e *Engine) report(n *entry) {
	if !e.fresh || !n.known || !n.keep.IsZero() {
		return
	}
	e.peace(n)
	known := n.spec.Holder
	switch {
	case n.hold != nil && n.want && n.hold.epoch > 0:
		if n.hold.standIn && time.Since(n.hold.since) < standInTime {
			return
		}
		h := n.holding(e.o.Node)
		if !n.hold.told {
			n.hold.told = true
			e.o.Reporter.Moved(n.spec, h)
		}
		if !h.same(known) && (known == nil || known.Epoch <= h.Epoch) {
			e.o.Reporter.Holder(n.address, &h)
		}
	case n.hold == nil && !n.want && !n.other && known != nil && known.Node == e.o.Node:
		e.o.Reporter.Holder(n.address, nil)
	}
}
