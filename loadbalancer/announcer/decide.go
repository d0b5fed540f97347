package announcer

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/onelb/onelb/loadbalancer/announcer/member"
)

// Step is how much longer than the candidate before it each candidate waits for
// that one to take an address. It is longer than a claim needs to reach
// everybody, so a candidate that cannot take it costs half a second, no more.
const Step = 500 * time.Millisecond

// HandOverDelay is how long a candidate waits before it relieves a live holder:
// by then the holder knows too, and does not defend itself.
const HandOverDelay = 100 * time.Millisecond

// View is all that Decide looks at.
type View struct {
	// Self is this node.
	Self string
	// Peers are the nodes that could hold something, this one included, sorted by name.
	Peers []Peer
	// Subjects are the addresses to decide on, sorted.
	Subjects []Subject
	// Even is when the next address may be moved to even out how many each node
	// has. Zero: none may.
	Even time.Time
}

// Peer is a node as a candidate.
type Peer struct {
	Name string
	// Live: its agent answers.
	Live bool
	// Doubted: it did not just now. What it holds may be taken, by others; for the
	// rest it counts as live until this is certain: who does not wait for it might
	// take an address at the same time as it does.
	Doubted bool
	// Excluded: it must not hold anything, and hands over what it holds.
	Excluded bool
	// Reluctant: it takes, and keeps, only what no other node may have: its
	// network is not ready, it is being drained, or its kube-proxy is unwell.
	Reluctant bool
	// Settled: it did not come up just now. The others are preferred for
	// addresses that have been held before.
	Settled bool
	// Damped: it has come and gone often lately. All others are preferred.
	Damped bool
}

// Subject is an address to decide on.
type Subject struct {
	Address netip.Addr
	// Wanted: it has Services.
	Wanted bool
	// Local: only the nodes in Endpoints may take it.
	Local     bool
	Endpoints []string // sorted
	// Selected: only the nodes in Nodes may take it.
	Selected bool
	Nodes    []string // sorted
	// Weights: the nodes with the highest one are preferred.
	Weights map[string]int
	// Created orders the placement of new addresses.
	Created time.Time
	// Claim is the best one known; zero if there is none.
	Claim member.Claim
	// StandIn is the best claim of those who stand in for Claim's node.
	StandIn member.Claim
	// Recent: it was taken for the first time just now, so others may not have
	// heard of it.
	Recent bool
	// Held: this node's kernel has it.
	Held bool
	// Free is when this node saw first that no live node has it, or that the one
	// that has it should hand it over.
	Free time.Time
}

// of reports whether the node has the address, as far as is known.
func (s *Subject) of(node string) bool {
	return s.Claim.Node == node && !s.Claim.Released || s.StandIn.Node == node && !s.StandIn.Released
}

// Decision is what this node should do about an address.
type Decision struct {
	Address netip.Addr
	// Hold: have it.
	Hold bool
	// NotBefore: if it does not have it yet, it waits until then.
	NotBefore time.Time
	// Rank is how many candidates come before this one.
	Rank int
	// First is the node that is to take the address, which is new; else "".
	First string
	// HandOver: a live holder is to be relieved. It keeps the address until
	// another node has it; the other node takes it although the holder answers.
	HandOver bool
}

// Decide says for each subject, in order, whether this node should hold it. It
// is a pure function; nodes with the same view never both decide to take an
// address at the same time.
func Decide(v View) []Decision {
	out := make([]Decision, 0, len(v.Subjects))
	p := v.plan()
	for i := range v.Subjects {
		out = append(out, v.decide(&v.Subjects[i], p))
	}
	return out
}

func (v View) decide(s *Subject, p plan) Decision {
	d := Decision{Address: s.Address, NotBefore: s.Free, First: p.first[s.Address]}
	holder, live := v.holder(s)
	switch {
	case !s.Wanted:
	case live && holder != v.Self:
		// A live holder is left in peace, whatever else holds, unless it is to be
		// relieved. It keeps the address until somebody else has it.
		if v.leaves(holder, s) {
			v.stand(&d, s, p)
			d.HandOver, d.NotBefore = d.Hold, d.NotBefore.Add(HandOverDelay)
		} else if p.move.is(s) && p.move.to == v.Self {
			d.Hold, d.HandOver, d.NotBefore = true, true, v.Even
		}
	case live, s.Held:
		d.HandOver = s.Held && (v.leaves(v.Self, s) || p.move.is(s))
		d.Hold = d.HandOver || v.keep(s)
	default:
		v.stand(&d, s, p)
	}
	return d
}

// stand makes this node wait for its turn, if it is a candidate.
func (v View) stand(d *Decision, s *Subject, p plan) {
	rank := slices.Index(p.order(s, v.candidates(s)), v.Self)
	d.Hold, d.Rank = rank >= 0, max(rank, 0)
	d.NotBefore = s.Free.Add(time.Duration(d.Rank) * Step)
}

// holder is the live node that has claimed s and not released it; if there is none,
// the one that stands in for it.
func (v View) holder(s *Subject) (string, bool) {
	for _, c := range []member.Claim{s.Claim, s.StandIn} {
		if c.IsZero() || c.Released {
			continue
		}
		if p, ok := v.peer(c.Node); ok && p.Live && !p.Doubted {
			return p.Name, true
		}
	}
	return "", false
}

func (v View) peer(name string) (Peer, bool) {
	i, found := slices.BinarySearchFunc(v.Peers, name, func(p Peer, n string) int { return cmp.Compare(p.Name, n) })
	if !found {
		return Peer{}, false
	}
	return v.Peers[i], true
}

// keep reports whether this node goes on holding s: as long as it may, or
// nobody else could take over.
func (v View) keep(s *Subject) bool {
	self, known := v.peer(v.Self)
	if !known || self.Excluded {
		return false
	}
	in, some := v.among(v.Self, s)
	return in || !some
}

// leaves reports whether the node, which has s, should have it no longer and
// there is another one to take it.
func (v View) leaves(holder string, s *Subject) bool {
	in, some := v.among(holder, s)
	return some && !in
}

// among reports whether the node is one of the candidates, and whether there are any.
// It is asked of all addresses that somebody has, whenever anything changes.
func (v View) among(node string, s *Subject) (in, some bool) {
	if p, ok := v.peer(node); ok && !p.Reluctant && may(p, s) {
		return true, true
	}
	for _, reluctant := range []bool{false, true} {
		for _, p := range v.Peers {
			if p.Reluctant == reluctant && may(p, s) {
				in, some = in || p.Name == node, true
			}
		}
		if some {
			break
		}
	}
	return in, some
}

// may reports whether the node may take s, if it is not too reluctant.
func may(p Peer, s *Subject) bool { return eligible(p, s) && !(p.Doubted && s.of(p.Name)) }

// candidates are the nodes that may take s, the first choice first: reluctant
// ones only if there are no others.
func (v View) candidates(s *Subject) []string {
	if all := v.ordered(s, false); len(all) > 0 {
		return all
	}
	return v.ordered(s, true)
}

func (v View) ordered(s *Subject, reluctant bool) []string {
	type candidate struct {
		Peer
		score uint64
	}
	var all []candidate
	for _, p := range v.Peers {
		if p.Reluctant == reluctant && may(p, s) {
			// Which nodes are new does not matter for an address that nobody
			// had before: nothing breaks if they go again at once.
			p.Settled = p.Settled || s.Claim.Epoch == 0 || s.Recent
			all = append(all, candidate{p, score(p.Name, s.Address)})
		}
	}
	slices.SortFunc(all, func(a, b candidate) int {
		return cmp.Or(last(a.Damped, b.Damped), last(!a.Settled, !b.Settled),
			cmp.Compare(s.Weights[b.Name], s.Weights[a.Name]), cmp.Compare(b.score, a.score), cmp.Compare(a.Name, b.Name))
	})
	names := make([]string, 0, len(all))
	for _, c := range all {
		names = append(names, c.Name)
	}
	return names
}

// last sorts what is so after what is not.
func last(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func eligible(p Peer, s *Subject) bool {
	if !p.Live || p.Excluded {
		return false
	}
	return (!s.Local || contains(s.Endpoints, p.Name)) && (!s.Selected || contains(s.Nodes, p.Name))
}

func contains(sorted []string, name string) bool {
	_, found := slices.BinarySearch(sorted, name)
	return found
}

// score is rendezvous hashing: the node with the highest score has the address.
// When a node comes or goes, only the addresses it wins or had move.
func score(node string, a netip.Addr) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211 // FNV-1a
	h := uint64(offset)
	for i := range len(node) {
		h = (h ^ uint64(node[i])) * prime
	}
	b := a.As16()
	for _, x := range b {
		h = (h ^ uint64(x)) * prime
	}
	return mix(h)
}

// mix spreads the last bytes over all bits (the finaliser of splitmix64): FNV
// alone lets the order of nodes be the same for neighbouring addresses.
func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
