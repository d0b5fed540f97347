package nft

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/onelb/onelb/loadbalancer/router"
)

// planChanges is what must happen to each set.
type planChanges [len(families)][numSets]change

// Edit returns the plan after a difference between two documents of one cluster, at
// a cost that grows with the difference; of the sets that change, the list is copied.
// What else the plan was made from is taken to be as it was, but for the health of
// the members of groups that change. The result equals the one of New, but for
// numbers that had to step aside for others.
//
// ok is false where all has to be planned anew. Either way the receiver cannot be
// edited again.
func (p *Plan) Edit(before, after router.Document, delta router.Delta, healthy func(router.Check, netip.Addr) bool) (next *Plan, ok bool) {
	if p.numbering == nil || !delta.Plain() {
		return nil, false
	}
	e := &editor{planner: planner{in: Input{Healthy: healthy}, numbering: p.numbering}, from: p, after: after, touched: map[use]bool{}}
	p.numbering = nil
	e.frontends(before, delta)
	for name, was := range changedGroups(before, delta) {
		for _, affine := range []bool{false, true} {
			u := use{after.Cluster, name, affine}
			if e.uses[u] != nil && was {
				e.touched[u] = true
			}
		}
	}
	for _, u := range slices.SortedFunc(maps.Keys(e.touched), compareUses) {
		if u.affine || !e.repoint(u) {
			return nil, false
		}
	}
	return e.result()
}

func compareUses(a, b use) int { return strings.Compare(a.text(), b.text()) }

// changedGroups maps the groups that are removed or new to whether they were there
// before.
func changedGroups(before router.Document, delta router.Delta) map[string]bool {
	names := map[string]bool{}
	for _, name := range delta.RemovedGroups {
		names[name] = true
	}
	for i := range delta.Groups {
		_, names[delta.Groups[i].Name] = before.Group(delta.Groups[i].Name)
	}
	return names
}

// editor makes the changes from one plan to the next.
type editor struct {
	planner
	from    *Plan
	after   router.Document
	touched map[use]bool // uses that came, went, or whose group changed
	changes planChanges
}

func (e *editor) put(family int, s set, el element) {
	c := &e.changes[family][s]
	c.add = append(c.add, el)
}

func (e *editor) take(family int, s set, el element) {
	c := &e.changes[family][s]
	c.remove = append(c.remove, el)
}

// frontends takes out the elements of frontends that were, and puts in those of the
// ones that are.
func (e *editor) frontends(before router.Document, delta router.Delta) {
	concerned := map[netip.Addr]bool{}
	leave := func(k router.Key) {
		f, was := before.Frontend(k)
		switch {
		case was && f.Routed:
			routed(&f, e.take)
		case was:
			u := use{before.Cluster, f.Group, f.Affinity > 0}
			known := e.uses[u]
			e.frontend(&f, known.number, e.take)
			if known.frontends--; known.frontends == 0 {
				e.touched[u] = true
			}
		}
		concerned[k.Address] = true
	}
	for _, k := range delta.RemovedFrontends {
		leave(k)
	}
	for i := range delta.Frontends {
		f := &delta.Frontends[i]
		leave(f.Key())
		if f.Routed {
			routed(f, e.put)
			continue
		}
		u := use{e.after.Cluster, f.Group, f.Affinity > 0}
		known := e.uses[u]
		if known == nil {
			known = e.begin(u)
			e.touched[u] = true
		}
		known.frontends++
		e.frontend(f, known.number, e.put)
	}
	for a := range concerned {
		if s, was := setOf(before, a); was {
			e.take(familyIndex(a), s, element{key: addressBytes(a)})
		}
		if s, is := setOf(e.after, a); is {
			e.put(familyIndex(a), s, element{key: addressBytes(a)})
		}
	}
}

// setOf is the set that a document has an address in, if it has it.
func setOf(d router.Document, a netip.Addr) (set, bool) {
	f, found := d.First(a)
	if f.Routed {
		return routedTo, found
	}
	return addresses, found
}

// repoint points a use at the table that it now has to have.
func (e *editor) repoint(u use) bool {
	known := e.uses[u]
	old := e.tables[known.content] // nil: none
	var now *table
	if known.frontends > 0 {
		g, found := e.after.Group(u.group)
		if !found {
			return false
		}
		known.content = ""
		if members := e.usable(&g); len(members) > 0 {
			now = e.point(known, members, e.put)
		}
	} else {
		delete(e.uses, u)
		delete(e.taken, known.number)
	}
	if old != nil {
		e.take(old.family, groups, element{key: markBytes(known.number), val: markBytes(old.number)})
	}
	if now != nil {
		e.put(now.family, groups, element{key: markBytes(known.number), val: markBytes(now.number)})
	}
	if old != nil {
		if old.groups--; old.groups == 0 {
			e.drop(old)
		}
	}
	return true
}

// drop takes out a table that no group points at.
func (e *editor) drop(t *table) {
	list := e.from.tables[t.family][slots]
	prefix := markBytes(t.number)
	at, _ := slices.BinarySearchFunc(list, element{key: prefix}, compareElements)
	for ; at < len(list) && strings.HasPrefix(list[at].key, prefix); at++ {
		e.take(t.family, slots, list[at])
	}
	delete(e.tables, t.content)
	delete(e.taken, t.number)
}

// result is the plan with the changes; not ok if they do not fit.
func (e *editor) result() (*Plan, bool) {
	next := &Plan{tables: e.from.tables, numbering: e.numbering, from: e.from, changes: &e.changes}
	for i := range e.changes {
		for s := range e.changes[i] {
			c := e.changes[i][s].net()
			e.changes[i][s] = c
			if c.empty() {
				continue
			}
			list, ok := c.apply(e.from.tables[i][s])
			if !ok {
				return nil, false
			}
			next.tables[i][s] = list
		}
	}
	return next, true
}

// changesFrom returns what leads here from another plan.
func (p *Plan) changesFrom(from *Plan) (changes *planChanges, dirty bool) {
	if p.from == from && p.changes != nil {
		changes = p.changes
	} else {
		changes = &planChanges{}
		for i := range families {
			for s := range changes[i] {
				changes[i][s] = diff(from.tables[i][s], p.tables[i][s])
			}
		}
	}
	for i := range changes {
		for s := range changes[i] {
			dirty = dirty || !changes[i][s].empty()
		}
	}
	return changes, dirty
}

// ofValues reports whether elements change that jump to chains of their own.
func (c *planChanges) ofValues() bool {
	for i := range families {
		if !c[i][affine].empty() || !c[i][limited].empty() {
			return true
		}
	}
	return false
}

// forget lets go of the plan before.
func (p *Plan) forget() { p.from, p.changes = nil, nil }
