package node

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/announcer"
	"github.com/onelb/onelb/loadbalancer/bgp"
)

// goingTime is how long a route is marked as going before a node that is drained
// withdraws it: time for the routers to move traffic to other nodes.
const goingTime = 5 * time.Second

// announcements decides which routes this node has, and remembers what that takes.
type announcements struct {
	node string
	// good are the settings of pools that could be used last.
	good map[string]settings
	// had are the prefixes that were announced last.
	had map[netip.Prefix]bool
	// going is when a prefix is to be withdrawn.
	going map[netip.Prefix]time.Time
}

// settings are those of a pool, read.
type settings struct {
	plain, leaving *bgp.Attributes
	length         [2]int // of prefixes: IPv4, IPv6
}

func newAnnouncements(node string) *announcements {
	return &announcements{node: node, good: map[string]settings{}, had: map[netip.Prefix]bool{}, going: map[netip.Prefix]time.Time{}}
}

// routes are those to announce now, sorted, what is wrong with the settings of pools,
// and when to ask again; zero: when something changes. speakers say which nodes are
// heard by routers: this one gives way to no others.
func (r *announcements) routes(n *network, nodes []announcer.Peer, speakers []*v1alpha1.BGPNode, now time.Time) (out []bgp.Route, problems []string, next time.Time) {
	pools, problems := r.settings(n)
	wanted := map[netip.Prefix]*bgp.Attributes{}
	able := map[string][]announcer.Peer{}
	for name, s := range pools {
		able[name] = ableOf(nodes, r.node, s.plain.Peers, speakers)
	}
	for _, a := range n.Addresses {
		s, known := pools[a.Pool]
		if !known {
			continue // the pool's object was removed by force, or its settings never could be used
		}
		prefix := s.prefix(a.Address)
		verdict := announcer.Judge(able[a.Pool], r.node, a.Subject())
		switch old := wanted[prefix]; {
		case verdict == announcer.Announces && (old == nil || old.Leaving):
			wanted[prefix] = s.plain
		case verdict == announcer.Withdraws && old == nil && r.mayGo(prefix, now):
			wanted[prefix] = s.leaving
		}
	}
	for prefix, a := range wanted {
		out = append(out, bgp.Route{Prefix: prefix, Attributes: a})
		if !a.Leaving {
			delete(r.going, prefix)
		} else if at := r.going[prefix]; next.IsZero() || at.Before(next) {
			next = at
		}
	}
	slices.SortFunc(out, func(a, b bgp.Route) int { return a.Prefix.Compare(b.Prefix) })
	r.remember(wanted)
	return out, problems, next
}

// mayGo reports whether a route that is to be withdrawn is still on its way.
func (r *announcements) mayGo(prefix netip.Prefix, now time.Time) bool {
	at, going := r.going[prefix]
	if !going && r.had[prefix] {
		at = now.Add(goingTime)
		r.going[prefix] = at
	}
	return now.Before(at)
}

func (r *announcements) remember(wanted map[netip.Prefix]*bgp.Attributes) {
	clear(r.had)
	for prefix := range wanted {
		r.had[prefix] = true
	}
	maps.DeleteFunc(r.going, func(prefix netip.Prefix, _ time.Time) bool { return !r.had[prefix] })
}

// prefix is the route of an address. Traffic for a Service with endpoints on a few
// nodes must come to these, so its address is not announced with others.
func (s settings) prefix(a announcer.Address) netip.Prefix {
	bits := a.Address.BitLen()
	switch {
	case a.Local:
	case a.Address.Is4():
		bits = s.length[0]
	default:
		bits = s.length[1]
	}
	return netip.PrefixFrom(a.Address, bits).Masked()
}

// settings reads those of all pools. For a pool whose settings cannot be used, those
// that could be used last stay.
func (r *announcements) settings(n *network) (map[string]settings, []string) {
	peers := map[string]bool{}
	for _, p := range n.Peers {
		peers[p.Name] = true
	}
	var problems []string
	now := map[string]settings{}
	for _, name := range slices.Sorted(maps.Keys(n.Pools)) {
		s, err := read(n.Pools[name])
		if err != nil {
			problems = append(problems, fmt.Sprintf("AddressPool %s: %v", name, err))
			old, had := r.good[name]
			if !had {
				continue
			}
			s = old
		}
		now[name] = s
		if names := s.plain.Peers; len(names) > 0 && !slices.ContainsFunc(names, func(p string) bool { return peers[p] }) {
			problems = append(problems, fmt.Sprintf("AddressPool %s: this node has none of the peers %s", name, strings.Join(names, ", ")))
		}
	}
	r.good = now
	return now, problems
}

func read(spec v1alpha1.BGPSpec) (settings, error) {
	a := bgp.Attributes{LocalPreference: number(spec.LocalPreference), MED: number(spec.MED), Peers: slices.Sorted(slices.Values(spec.Peers))}
	for _, text := range spec.Communities {
		c, err := bgp.ParseCommunity(text)
		if err != nil {
			return settings{}, fmt.Errorf("spec.bgp.communities: %w", err)
		}
		a.Communities = append(a.Communities, c)
	}
	slices.Sort(a.Communities)
	for _, text := range spec.LargeCommunities {
		c, err := bgp.ParseLargeCommunity(text)
		if err != nil {
			return settings{}, fmt.Errorf("spec.bgp.largeCommunities: %w", err)
		}
		a.LargeCommunities = append(a.LargeCommunities, c)
	}
	leaving := a
	leaving.Leaving = true
	return settings{plain: &a, leaving: &leaving, length: [2]int{length(spec.AggregationLength, 32), length(spec.AggregationLengthV6, 128)}}, nil
}

func number(n *int64) *uint32 {
	if n == nil {
		return nil
	}
	u := uint32(*n)
	return &u
}

func length(n *int32, otherwise int) int {
	if n == nil {
		return otherwise
	}
	return int(*n)
}
