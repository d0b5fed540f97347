package nft

import (
	"net/netip"
	"slices"

	"github.com/onelb/onelb/loadbalancer/router"
)

// Input is what a Plan is made from.
type Input struct {
	// Documents are normalized and valid, and no address is in two of them.
	Documents []router.Document
	// Healthy says whether a checked member passes; nil means all do. When it
	// is false for every member of a group, all of them stay in use.
	Healthy func(check router.Check, member netip.Addr) bool
	// Inner are the interfaces without public addresses: what comes in on one
	// and leaves on the same is masqueraded, or the reply would take a short cut.
	Inner []string
	// Networks are the networks that the router is on.
	Networks []netip.Prefix
}

// Plan is the complete content of both tables. It is immutable.
type Plan struct {
	tables [len(families)]tableContent
}

type tableContent [numSets][]element

// New computes the plan. Equal inputs give equal plans.
func New(in Input) *Plan {
	p := &planner{in: in, taken: map[uint32]bool{}, tables: map[string]uint32{}}
	for i := range in.Documents {
		p.document(&in.Documents[i])
	}
	p.interfaces()
	plan := &Plan{tables: p.out}
	for i := range plan.tables {
		for s := range plan.tables[i] {
			sortElements(plan.tables[i][s])
		}
	}
	return plan
}

type planner struct {
	in     Input
	out    [len(families)]tableContent
	taken  map[uint32]bool   // numbers in use
	tables map[string]uint32 // number of a table by its content
}

func (p *planner) add(family int, s set, e element) {
	p.out[family][s] = append(p.out[family][s], e)
}

func (p *planner) document(d *router.Document) {
	counts := [2]int{}
	for _, f := range d.Frontends {
		counts[familyIndex(f.Address)]++
	}
	for i, n := range counts {
		p.out[i][frontends] = slices.Grow(p.out[i][frontends], n)
		p.out[i][ports] = slices.Grow(p.out[i][ports], n)
	}
	numbers := make(map[string]uint32, len(d.Groups)) // of groups that are in use
	members := make(map[string]*router.Group, len(d.Groups))
	for i := range d.Groups {
		members[d.Groups[i].Name] = &d.Groups[i]
	}
	var previous netip.Addr
	for i := range d.Frontends {
		f := &d.Frontends[i]
		n, known := numbers[f.Group]
		if !known {
			n = number(p.taken, d.Cluster+"/"+f.Group, 0)
			numbers[f.Group] = n
			p.group(n, members[f.Group])
		}
		if f.Address != previous {
			p.add(familyIndex(f.Address), addresses, element{key: addressBytes(f.Address)})
			previous = f.Address
		}
		p.frontend(f, n)
	}
}

func (p *planner) frontend(f *router.Frontend, group uint32) {
	family, key := familyIndex(f.Address), keyBytes(f.Key())
	p.add(family, frontends, element{key: key, val: markBytes(group)})
	p.add(family, ports, element{key: key, val: portBytes(f.BackendPort)})
	switch f.SNAT {
	case router.SNATAlways:
		p.add(family, snatAlways, element{key: key})
	case router.SNATNever:
		p.add(family, snatNever, element{key: key})
	case router.SNATAuto:
	}
	if len(f.SourceRanges) > 0 {
		p.ranges(f, family, key)
	}
}

// ranges restricts a frontend. Ranges of the other family allow nobody here.
func (p *planner) ranges(f *router.Frontend, family int, key string) {
	var own []netip.Prefix
	for _, r := range f.SourceRanges {
		if familyIndex(r.Addr()) == family {
			own = append(own, r)
		}
	}
	own = outermost(own)
	if len(own) == 1 && own[0].Bits() == 0 {
		return // everybody
	}
	p.add(family, ranged, element{key: key})
	for _, r := range own {
		p.add(family, allowed, element{key: key + addressBytes(r.Addr()), end: key + addressBytes(lastAddress(r))})
	}
}

// group points a group at the table of its usable members. One without members
// gets no table: its connections fall through to the input chain, which
// refuses them.
func (p *planner) group(n uint32, g *router.Group) {
	members := p.usable(g)
	if len(members) == 0 {
		return
	}
	family := familyIndex(members[0].address)
	text := content(members)
	table, known := p.tables[text]
	if !known {
		c := classOf(members)
		table = number(p.taken, text, c)
		p.tables[text] = table
		for slot, address := range fill(members, classes[c]) {
			p.add(family, slots, element{
				key: markBytes(table) + markBytes(uint32(slot)),
				val: addressBytes(address),
			})
		}
	}
	p.add(family, groups, element{key: markBytes(n), val: markBytes(table)})
}

func (p *planner) usable(g *router.Group) []member {
	used := Usable(g, p.in.Healthy)
	members := make([]member, 0, len(used))
	for _, m := range used {
		members = append(members, member{address: m.Address, weight: m.EffectiveWeight()})
	}
	return members
}

// Usable returns the members of a group that take new connections: the healthy
// ones, or all when none is or nothing is checked.
func Usable(g *router.Group, healthy func(router.Check, netip.Addr) bool) []router.Member {
	if g.Check == nil || healthy == nil {
		return g.Members
	}
	var used []router.Member
	for _, m := range g.Members {
		if healthy(*g.Check, m.ProbeAddress()) {
			used = append(used, m)
		}
	}
	if len(used) == 0 {
		return g.Members
	}
	return used
}

func (p *planner) interfaces() {
	names := slices.Clone(p.in.Inner)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		for i := range families {
			p.add(i, inner, element{key: nameBytes(name) + nameBytes(name)})
		}
	}
	for _, n := range outermost(p.in.Networks) {
		first, last := addressBytes(n.Addr()), addressBytes(lastAddress(n))
		p.add(familyIndex(n.Addr()), same, element{key: first + first, end: last + last})
	}
}

// Counts says how large a plan is.
type Counts struct{ Frontends, Groups, Elements int }

// Counts returns the plan's size.
func (p *Plan) Counts() Counts {
	var c Counts
	for i := range p.tables {
		c.Frontends += len(p.tables[i][frontends])
		c.Groups += len(p.tables[i][groups])
		for s := range p.tables[i] {
			c.Elements += len(p.tables[i][s])
		}
	}
	return c
}
