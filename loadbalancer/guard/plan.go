package guard

import (
	"cmp"
	"hash/fnv"
	"net/netip"
	"slices"

	"github.com/onelb/onelb/api/v1alpha1"
)

// Enough is how many candidates an address has: one that holds it, one that
// takes over at once, and one for while a hotplug, which takes seconds and needs
// OpenNebula, replaces the first. Each more costs a hotplug per address.
const Enough = 3

// node is a node as a candidate.
type node struct {
	name    string
	machine int
	// ready: it may become a candidate.
	ready bool
	// counts: it is ready, or was until a short while ago.
	counts bool
	// failing: hotplugs fail there. What is attached stays.
	failing bool
}

// subject is an address to choose candidates for.
type subject struct {
	address netip.Addr
	wanted  bool   // it is not being released
	holder  string // who has it now
	list    []v1alpha1.Candidate
}

// plan chooses. It is a pure function that returns the list of each subject, in
// order, sorted by node and machine; with its own result it returns the same
// again. Candidates stay as long as they count. A new one is a ready node with
// the fewest addresses, of several the one that rendezvous hashing prefers.
func plan(nodes []node, subjects []subject) [][]v1alpha1.Candidate {
	p := planner{nodes: nodes, known: map[string]node{}, load: map[string]int{}}
	for _, n := range nodes {
		p.known[n.name] = n
	}
	out := make([][]v1alpha1.Candidate, len(subjects))
	for i, s := range subjects {
		out[i] = p.retain(s)
		for _, c := range out[i] {
			if c.State != v1alpha1.CandidateDetaching {
				p.load[c.Node]++
			}
		}
	}
	for i, s := range subjects {
		if s.wanted {
			out[i] = p.drop(s, p.fill(s, out[i]))
		}
		slices.SortFunc(out[i], compareCandidates)
	}
	return out
}

func compareCandidates(a, b v1alpha1.Candidate) int {
	return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Machine, b.Machine))
}

type planner struct {
	nodes []node
	known map[string]node
	load  map[string]int // addresses by node
}

// retain is the list as it is, less what must go: all, if nobody wants the
// address, else candidates whose node is another machine now.
func (p planner) retain(s subject) []v1alpha1.Candidate {
	out := slices.Clone(s.list)
	for i, c := range out {
		n, ok := p.known[c.Node]
		if !s.wanted || ok && n.machine != int(c.Machine) {
			out[i].State = v1alpha1.CandidateDetaching
		}
	}
	return out
}

// good reports whether a candidate counts.
func (p planner) good(c v1alpha1.Candidate) bool {
	n, ok := p.known[c.Node]
	if !ok || !n.counts {
		return false
	}
	return c.State == v1alpha1.CandidateAttached || c.State == v1alpha1.CandidateAttaching && !n.failing
}

// fill adds candidates up to Enough. The node that has the address comes first:
// nothing moves then.
func (p planner) fill(s subject, list []v1alpha1.Candidate) []v1alpha1.Candidate {
	for need := Enough - count(list, p.good); need > 0; need-- {
		best, found := node{}, false
		for _, n := range p.nodes {
			used := slices.ContainsFunc(list, func(c v1alpha1.Candidate) bool {
				return c.Node == n.name && c.State != v1alpha1.CandidateDetaching
			})
			if n.ready && !used && (!found || p.before(s, n, best)) {
				best, found = n, true
			}
		}
		if !found {
			break
		}
		p.load[best.name]++
		list = enlist(list, best)
	}
	return list
}

func (p planner) before(s subject, a, b node) bool {
	if (a.name == s.holder) != (b.name == s.holder) {
		return a.name == s.holder
	}
	return cmp.Or(cmp.Compare(p.load[a.name], p.load[b.name]), cmp.Compare(score(b.name, s.address), score(a.name, s.address)),
		cmp.Compare(a.name, b.name)) < 0
}

// enlist adds a node; one that was about to lose the alias keeps it.
func enlist(list []v1alpha1.Candidate, n node) []v1alpha1.Candidate {
	next := v1alpha1.Candidate{Node: n.name, Machine: int32(n.machine), State: v1alpha1.CandidateAttaching} //nolint:gosec // OpenNebula's IDs are 32 bits
	i := slices.IndexFunc(list, func(c v1alpha1.Candidate) bool { return c.Node == next.Node && c.Machine == next.Machine })
	if i < 0 {
		return append(list, next)
	}
	list[i] = next
	return list
}

// drop takes off what is too much, once enough others are attached: those that
// do not count, and of the others the ones beyond Enough, never the holder.
func (p planner) drop(s subject, list []v1alpha1.Candidate) []v1alpha1.Candidate {
	attached := count(list, func(c v1alpha1.Candidate) bool { return p.good(c) && c.State == v1alpha1.CandidateAttached })
	if attached == 0 || attached < min(Enough, p.able()) {
		return list
	}
	for i, c := range list {
		if c.State != v1alpha1.CandidateDetaching && !p.good(c) {
			p.detach(list, i)
		}
	}
	for count(list, p.good) > Enough {
		worst := -1
		for i, c := range list {
			if p.good(c) && c.Node != s.holder && (worst < 0 || p.worse(c, list[worst], s.address)) {
				worst = i
			}
		}
		p.detach(list, worst) // of more than one, one is not the holder
	}
	return list
}

func (p planner) detach(list []v1alpha1.Candidate, i int) {
	p.load[list[i].Node]--
	list[i].State = v1alpha1.CandidateDetaching
}

// able is how many nodes count.
func (p planner) able() int {
	n := 0
	for _, k := range p.nodes {
		if k.counts {
			n++
		}
	}
	return n
}

func (p planner) worse(a, b v1alpha1.Candidate, address netip.Addr) bool {
	if attached := v1alpha1.CandidateAttached; (a.State == attached) != (b.State == attached) {
		return b.State == attached
	}
	return cmp.Or(cmp.Compare(p.load[b.Node], p.load[a.Node]), cmp.Compare(score(a.Node, address), score(b.Node, address)),
		cmp.Compare(a.Node, b.Node)) < 0
}

func count(list []v1alpha1.Candidate, keep func(v1alpha1.Candidate) bool) int {
	n := 0
	for _, c := range list {
		if keep(c) {
			n++
		}
	}
	return n
}

// score is rendezvous hashing: whoever chooses, the same node comes first.
func score(node string, a netip.Addr) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(node))
	b := a.As16()
	_, _ = h.Write(b[:])
	x := h.Sum64() // the last bytes do not reach all bits yet
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
