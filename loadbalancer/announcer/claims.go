package announcer

import (
	"time"

	"github.com/onelb/onelb/loadbalancer/announcer/member"
)

// heed takes in a claim that another agent has spread.
func (e *Engine) heed(c member.Claim, now time.Time) {
	n := e.entry(c.Address)
	known := &n.claim
	switch {
	case c.StandIn:
		known = &n.standIn
	case n.hearsay:
		n.claim, n.hearsay = member.Claim{}, false
	}
	if !c.Beats(*known) {
		return
	}
	if c.Node != known.Node {
		e.moved = now
	}
	if c.Node != e.o.Node {
		n.heard = now
		if c.StandIn && n.hold != nil { // its side of the network may have believed it
			n.hold.announce(now)
		}
	}
	*known, e.dirty = c, true
}

// believe takes in a claim that beats the known one, and passes it on.
func (e *Engine) believe(n *entry, c member.Claim) {
	known := &n.claim
	if c.StandIn {
		known = &n.standIn
	}
	if c.Beats(*known) {
		*known = c
		e.o.Group.Announce(c)
	}
	if !c.StandIn {
		n.hearsay = false
	}
}

// claims makes and spreads a claim above all others that are known. It lasts,
// unless this node stands in for one that it cannot reach.
func (e *Engine) claims(n *entry, now time.Time) member.Claim { return e.claim(n, e.standsIn(n, now)) }

func (e *Engine) claim(n *entry, standIn bool) member.Claim {
	c := member.Claim{Address: n.address, Node: e.o.Node, Epoch: n.highest() + 1, StandIn: standIn}
	e.believe(n, c)
	return c
}

// standsIn reports whether this node may only stand in for the one that has the
// lasting claim.
func (e *Engine) standsIn(n *entry, now time.Time) bool {
	if n.claim.IsZero() || n.claim.Released || n.claim.Node == e.o.Node {
		return false
	}
	_, exists := e.cluster.node(n.claim.Node)
	return exists && e.damper.standsIn(now)
}

// highest is the highest epoch that is known.
func (n *entry) highest() int64 {
	top := max(n.claim.Epoch, n.standIn.Epoch)
	if h := n.spec.Holder; h != nil {
		top = max(top, h.Epoch)
	}
	return top
}

// passed is the epoch of the holder that the API server names, if it has done so
// for long enough for the other agents to have spoken of a lasting claim: a stand-in
// has told of itself there.
func (n *entry) passed(now time.Time) int64 {
	if h := n.spec.Holder; h != nil && now.Sub(n.namedAt) >= meetTime {
		return h.Epoch
	}
	return 0
}

// confirmClaim makes the claim of a held address agree with the kernel.
func (e *Engine) confirmClaim(n *entry, now time.Time) {
	h := n.hold
	lasting := n.claim.Node == e.o.Node && !n.claim.Released
	standing := n.standIn.Node == e.o.Node && !n.standIn.Released
	switch {
	case lasting && n.claim.Epoch < n.passed(now) && e.damper.leads(now):
		// A stand-in counted on; this one goes on from there, else people would be
		// told of the stand-in for ever.
		e.adjust(h, e.claims(n, now))
	case lasting:
		if n.hearsay {
			e.o.Group.Announce(n.claim)
			n.hearsay = false
		}
		e.adjust(h, n.claim)
	case standing && e.standsIn(n, now):
		e.adjust(h, n.standIn)
	case standing, e.o.Group.Ready() && now.Sub(n.heard) >= meetTime:
		e.adjust(h, e.claims(n, now))
	}
	if !h.standIn && n.standIn.Node == e.o.Node && !n.standIn.Released {
		e.end(n, n.standIn)
	}
}

func (e *Engine) adjust(h *hold, c member.Claim) {
	if h.epoch != c.Epoch || h.standIn != c.StandIn {
		h.epoch, h.standIn, e.heldDirty = c.Epoch, c.StandIn, true
	}
}

// release tells the other agents that this node no longer has the address.
func (e *Engine) release(n *entry) {
	for _, c := range []member.Claim{n.claim, n.standIn} {
		if c.Node == e.o.Node && !c.Released {
			e.end(n, c)
			e.dirty = true
		}
	}
}

// end releases a claim of this node.
func (e *Engine) end(n *entry, c member.Claim) {
	c.Released = true
	e.believe(n, c)
}

// doubtInterval is between the questions of a holder that has heard of another one.
const doubtInterval = 20 * time.Millisecond

// doubted reports whether a claim that counts more than this node's was heard just
// now, though its node is not seen among the live.
func (e *Engine) doubted(n *entry, now time.Time) bool {
	other := func(c member.Claim) bool { return !c.IsZero() && c.Node != e.o.Node && !c.Released }
	return n.hold != nil && now.Sub(n.heard) < meetTime &&
		(other(n.claim) || n.hold.standIn && other(n.standIn))
}

// doubt asks the wire for the address that this node holds, if another one may
// have it too: its answer settles it (see sight). It returns when to ask again.
func (e *Engine) doubt(n *entry, now time.Time) time.Time {
	if !e.doubted(n, now) {
		if n.doubting { // nobody answered: this node claims the address anew
			n.doubting, e.dirty = false, true
		}
		return time.Time{}
	}
	n.doubting = true
	if !now.Before(n.doubtAt) {
		n.doubtAt = now.Add(doubtInterval)
		if err := e.o.Wire.Ask(n.hold.on, n.address, nil); err != nil {
			e.logger.V(2).Info("Could not ask for an address", "address", n.address, "err", err)
		}
	}
	return n.doubtAt
}
