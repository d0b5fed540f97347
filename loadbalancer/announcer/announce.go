package announcer

import (
	"net/netip"
	"slices"
	"sync/atomic"
)

// Verdict says what a node does about an address that many nodes announce.
type Verdict int

const (
	// Silent: it does not announce the address.
	Silent Verdict = iota
	// Announces: it does.
	Announces
	// Withdraws: it would, were there no better nodes: it takes the address back in order.
	Withdraws
)

// Judge says whether self announces an address, by the rules that say who may hold
// one: excluded nodes never do, reluctant ones only if no other node may, and those
// that come and go only beside others that do the same. peers are sorted by name, and
// are only those that could announce it instead. Whether self was doubted by others does
// not matter.
func Judge(peers []Peer, self string, s Subject) Verdict {
	v := View{Self: self, Peers: peers}
	me, known := v.peer(self)
	if !known || !s.Wanted || !eligible(me, &s) {
		return Silent
	}
	better := func(p Peer) bool { return choice(p) < choice(me) && !p.Doubted && eligible(p, &s) }
	if slices.ContainsFunc(peers, better) {
		return Withdraws
	}
	return Announces
}

// choice ranks the nodes that may announce an address: the least ones do.
func choice(p Peer) int {
	switch {
	case p.Reluctant:
		return 2
	case p.Damped:
		return 1
	}
	return 0
}

// First is the one of the nodes to which rendezvous hashing gives the address; "" of none.
func First(nodes []string, a netip.Addr) (first string) {
	best := uint64(0)
	for _, n := range nodes {
		if s := score(n, a); first == "" || s > best {
			first, best = n, s
		}
	}
	return first
}

// Subject is the address as Judge wants it.
func (a Address) Subject() Subject {
	return Subject{
		Address: a.Address, Created: a.Created, Wanted: len(a.Services) > 0, Local: a.Local, Endpoints: a.Endpoints,
		Selected: a.Selected, Nodes: a.Nodes, Weights: a.Weights,
	}
}

// peersView is the peers for those who do not belong to Run.
type peersView struct {
	now     atomic.Pointer[[]Peer]
	changed func()
}

// publish shows the peers to others. Run alone calls it.
func (p *peersView) publish(peers []Peer) {
	if old := p.now.Load(); old != nil && slices.Equal(*old, peers) {
		return
	}
	shown := slices.Clone(peers)
	p.now.Store(&shown)
	if p.changed != nil {
		p.changed()
	}
}

// Peers are the nodes as the Engine sees them, sorted by name, not to be changed. Nil:
// it does not know them yet.
func (e *Engine) Peers() []Peer {
	if p := e.shown.now.Load(); p != nil {
		return *p
	}
	return nil
}
