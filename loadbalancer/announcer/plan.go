package announcer

import (
	"net/netip"
	"slices"
)

// plan is what concerns several addresses at once.
type plan struct {
	// first is the node that should take a new address: the one that has the
	// fewest. Others come after it in the order of their scores.
	first map[netip.Addr]string
	// move is the address that changes its holder to even things out.
	move move
}

// move is one address on its way from a node with many to one with few.
type move struct {
	address  netip.Addr
	from, to string
}

func (m move) is(s *Subject) bool { return m.address == s.Address }

// order puts the planned node first.
func (p plan) order(s *Subject, candidates []string) []string {
	if i := slices.Index(candidates, p.first[s.Address]); i > 0 {
		first := candidates[i]
		copy(candidates[1:], candidates[:i])
		candidates[0] = first
	}
	return candidates
}

// plan places the addresses that nobody ever had, in the order in which they came
// to be. What was taken just now is planned again, for nodes that have not heard of
// it: so all make the same plan. Failovers are not planned like that: then all must
// agree even if their views differ for longer.
func (v View) plan() plan {
	p := plan{first: map[netip.Addr]string{}}
	load, fresh, quiet := map[string]int{}, []*Subject(nil), true
	for i := range v.Subjects {
		s := &v.Subjects[i]
		holder, live := v.holder(s)
		switch {
		case !s.Wanted:
			continue
		case s.Claim.Epoch == 0 && !s.Held, s.Recent:
			fresh = append(fresh, s)
		case live:
			load[holder]++
			continue
		case s.Held:
			load[v.Self]++
		default:
			if all := v.candidates(s); len(all) > 0 {
				load[all[0]]++
			}
		}
		quiet = false
	}
	slices.SortStableFunc(fresh, func(a, b *Subject) int { return a.Created.Compare(b.Created) })
	for _, s := range fresh {
		if all := v.candidates(s); len(all) > 0 {
			n := least(load, v.best(s, all))
			p.first[s.Address] = n
			load[n]++
		}
	}
	if quiet && !v.Even.IsZero() {
		p.move = v.even(load)
	}
	return p
}

// best are the candidates for a new address, which are in order, that are as good
// as the first: damped or not, and of its weight.
func (v View) best(s *Subject, all []string) []string {
	first, _ := v.peer(all[0])
	worse := func(n string) bool {
		p, _ := v.peer(n)
		return p.Damped != first.Damped || s.Weights[n] < s.Weights[first.Name]
	}
	if i := slices.IndexFunc(all, worse); i > 0 {
		return all[:i]
	}
	return all
}

// least is the first of those that have the fewest.
func least(load map[string]int, nodes []string) string {
	best := nodes[0]
	for _, n := range nodes[1:] {
		if load[n] < load[best] {
			best = n
		}
	}
	return best
}

// even is the move that evens out most: from a node that has at least two
// addresses more than the other one; of several the one that rendezvous hashing
// would prefer.
func (v View) even(load map[string]int) move {
	var best move
	bestGain, bestScore := 1, uint64(0)
	if !v.skewed(load) {
		return best
	}
	for i := range v.Subjects {
		s := &v.Subjects[i]
		holder, live := v.holder(s)
		if !s.Wanted || !live {
			continue
		}
		for _, n := range v.candidates(s) {
			to, _ := v.peer(n)
			gain, points := load[holder]-load[n], score(n, s.Address)
			if to.Settled && !to.Damped && !to.Doubted && s.Weights[n] >= s.Weights[holder] && (gain > bestGain || gain == bestGain && gain > 1 && points > bestScore) {
				best, bestGain, bestScore = move{s.Address, holder, n}, gain, points
			}
		}
	}
	return best
}

// skewed reports whether any two nodes differ by two addresses or more; it spares
// most calls the search.
func (v View) skewed(load map[string]int) bool {
	low, high := -1, 0
	for _, p := range v.Peers {
		if !p.Live {
			continue
		}
		if n := load[p.Name]; low < 0 || n < low {
			low = n
		}
		high = max(high, load[p.Name])
	}
	return high-low >= 2
}
