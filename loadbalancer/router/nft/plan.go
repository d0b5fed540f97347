package nft

import (
	"net/netip"
	"slices"
	"strconv"
	"time"

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
	// Elsewhere are backends that send their replies to clients past the router:
	// clients are hidden from them, unless a frontend says never.
	Elsewhere map[netip.Addr]bool
}

// Plan is the complete content of both tables. Its content is immutable.
type Plan struct {
	tables [len(families)]tableContent
	// numbering is there while the plan can be edited.
	numbering *numbering
	// changes lead here from another plan; nil when that is forgotten.
	from    *Plan
	changes *planChanges
}

type tableContent [numSets][]element

// New computes the plan. Equal inputs give equal plans.
func New(in Input) *Plan {
	p := &planner{in: in, numbering: newNumbering()}
	for i := range in.Documents {
		p.document(&in.Documents[i])
	}
	p.interfaces()
	plan := &Plan{tables: p.out, numbering: p.numbering}
	for i := range plan.tables {
		for s := range plan.tables[i] {
			sortElements(plan.tables[i][s])
		}
	}
	return plan
}

type planner struct {
	in  Input
	out [len(families)]tableContent
	*numbering
}

// numbering is what stands behind the numbers of a plan.
type numbering struct {
	taken  map[uint32]bool   // numbers in use
	tables map[string]*table // by content; but for those with session affinity
	uses   map[use]*usage
}

func newNumbering() *numbering {
	return &numbering{taken: map[uint32]bool{}, tables: map[string]*table{}, uses: map[use]*usage{}}
}

// table is one that groups with these usable members share.
type table struct {
	content string
	number  uint32
	family  int
	groups  int // that point at it
}

// use is a way in which a group is used. With session affinity its members have
// numbers, which are the group's own: who is in use in one group may be dead in
// another.
type use struct {
	cluster, group string
	affine         bool
}

func (u use) text() string {
	if u.affine {
		return u.cluster + "/" + u.group + " affine"
	}
	return u.cluster + "/" + u.group
}

// usage is what a use is known by.
type usage struct {
	number    uint32
	frontends int
	content   string // of the table that it points at; empty: none, or its own
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
	named := make(map[string]*router.Group, len(d.Groups))
	for i := range d.Groups {
		named[d.Groups[i].Name] = &d.Groups[i]
	}
	var previous netip.Addr
	for i := range d.Frontends {
		f := &d.Frontends[i]
		if f.Routed {
			if f.Address != previous {
				p.add(familyIndex(f.Address), routedTo, element{key: addressBytes(f.Address)})
				previous = f.Address
			}
			routed(f, p.add)
			continue
		}
		u := use{d.Cluster, f.Group, f.Affinity > 0}
		known := p.uses[u]
		if known == nil {
			known = p.begin(u)
			p.group(known, named[f.Group], u)
		}
		known.frontends++
		if f.Address != previous {
			p.add(familyIndex(f.Address), addresses, element{key: addressBytes(f.Address)})
			previous = f.Address
		}
		p.frontend(f, known.number, p.add)
	}
}

func (n *numbering) begin(u use) *usage {
	known := &usage{number: number(n.taken, u.text(), 0)}
	n.uses[u] = known
	return known
}

// frontend hands over the elements of a frontend whose use has this number.
func (p *planner) frontend(f *router.Frontend, group uint32, add func(int, set, element)) {
	family, key := familyIndex(f.Address), keyBytes(f.Key())
	add(family, frontends, element{key: key, val: markBytes(group)})
	add(family, ports, element{key: key, val: portBytes(f.BackendPort)})
	switch f.SNAT {
	case router.SNATAlways:
		add(family, snatAlways, element{key: key})
	case router.SNATNever:
		add(family, snatNever, element{key: key})
	case router.SNATAuto:
	}
	if f.Affinity > 0 {
		add(family, affine, element{key: key, val: keepPrefix + strconv.Itoa(int(f.Affinity/time.Second))})
	}
	if f.MaxConnections > 0 {
		limit(f, family, key, add)
	}
	if len(f.SourceRanges) > 0 {
		ranges(f, family, key, add)
	}
}

func limit(f *router.Frontend, family int, key string, add func(int, set, element)) {
	add(family, limited, element{key: key, val: limitPrefix + strconv.FormatUint(uint64(f.MaxConnections), 10)})
}

// ranges restricts a frontend. Ranges of the other family allow nobody here.
func ranges(f *router.Frontend, family int, key string, add func(int, set, element)) {
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
	add(family, ranged, element{key: key})
	for _, r := range own {
		add(family, allowed, element{key: key + addressBytes(r.Addr()), end: key + addressBytes(lastAddress(r))})
	}
}

// group points a group at the table of its usable members. One without members
// gets no table: its connections fall through to the input chain, which
// refuses them.
func (p *planner) group(known *usage, g *router.Group, u use) {
	members := p.usable(g)
	if len(members) == 0 {
		return
	}
	if u.affine {
		p.affineGroup(familyIndex(members[0].address), known.number, members)
		return
	}
	t := p.point(known, members, p.add)
	p.add(t.family, groups, element{key: markBytes(known.number), val: markBytes(t.number)})
}

// point notes that a use points at the table of these members, which is made if need
// be.
func (n *numbering) point(known *usage, members []member, add func(int, set, element)) *table {
	known.content = content(members)
	t := n.tables[known.content]
	if t == nil {
		c := classOf(members)
		t = &table{content: known.content, number: number(n.taken, known.content, c), family: familyIndex(members[0].address)}
		n.tables[known.content] = t
		for slot, address := range fill(members, classes[c]) {
			add(t.family, slots, element{
				key: markBytes(t.number) + markBytes(uint32(slot)), //nolint:gosec // small
				val: addressBytes(address),
			})
		}
	}
	t.groups++
	return t
}

// affineGroup gives each member a number, and a table of its own to the group.
func (p *planner) affineGroup(family int, n uint32, usable []member) {
	ids := make(map[netip.Addr]uint32, len(usable))
	for _, m := range usable {
		id := number(p.taken, markBytes(n)+addressBytes(m.address), noClass)
		ids[m.address] = id
		p.add(family, members, element{key: markBytes(id), val: addressBytes(m.address)})
	}
	c := classOf(usable)
	table := number(p.taken, markBytes(n)+content(usable), c)
	for slot, address := range fill(usable, classes[c]) {
		p.add(family, choices, element{key: markBytes(table) + markBytes(uint32(slot)), val: markBytes(ids[address])}) //nolint:gosec // small
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
	for a := range p.in.Elsewhere {
		p.add(familyIndex(a), elsewhere, element{key: addressBytes(a)}) // sorted in the end
	}
	for _, n := range outermost(p.in.Networks) {
		first, last := addressBytes(n.Addr()), addressBytes(lastAddress(n))
		p.add(familyIndex(n.Addr()), same, element{key: first + first, end: last + last})
	}
}

// valueChains names the chains that the elements of a family jump to.
func (p *Plan) valueChains(family int) map[string]bool {
	names := map[string]bool{}
	for _, s := range []set{affine, limited} {
		for _, e := range p.tables[family][s] {
			names[e.val] = true
		}
	}
	return names
}

// Counts says how large a plan is.
type Counts struct{ Frontends, Groups, Elements int }

// Counts returns the plan's size.
func (p *Plan) Counts() Counts {
	var c Counts
	for i := range p.tables {
		c.Frontends += len(p.tables[i][frontends]) + len(p.tables[i][passing])
		c.Groups += len(p.tables[i][groups])
		for s := range p.tables[i] {
			c.Elements += len(p.tables[i][s])
		}
	}
	return c
}
