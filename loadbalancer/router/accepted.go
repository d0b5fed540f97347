package router

import (
	"cmp"
	"net/netip"
	"slices"
)

// Accepted is a normalized document that Validate has judged, with what makes the
// next change to it cheap. It is immutable; the zero value is an empty document.
type Accepted struct {
	Document
	contents contentSum
	members  int // of all groups
	ranges   int // of all frontends
}

// Accept judges a document as a whole. The error is an *InvalidError.
func Accept(d Document) (Accepted, error) {
	// Both walk through all of a large document; neither needs the other.
	summed := make(chan contentSum, 1)
	go func() { summed <- d.contents() }()
	err := d.Validate()
	a := Accepted{Document: d, contents: <-summed}
	if err != nil {
		return Accepted{}, err
	}
	for i := range d.Groups {
		a.members += len(d.Groups[i].Members)
	}
	for i := range d.Frontends {
		a.ranges += len(d.Frontends[i].SourceRanges)
	}
	return a, nil
}

// Hash is Document.Hash, without looking at the whole document.
func (a Accepted) Hash() string { return a.hashOf(a.contents) }

// Stamped returns the document with other names and numbers.
func (a Accepted) Stamped(cluster, identity string, token, generation uint64) Accepted {
	a.Cluster, a.Identity, a.Token, a.Generation = cluster, identity, token, generation
	return a
}

// Edit returns what Accept says of the patched document, at a cost that grows with
// the difference: of the rest, the lists are copied. A difference that does not fit
// gives the error of Patch, an invalid result an *InvalidError.
func (a Accepted) Edit(delta Delta) (Accepted, error) {
	patched, err := a.Patch(delta)
	if err != nil {
		return Accepted{}, err
	}
	if !delta.Plain() {
		return Accept(patched)
	}
	next := Accepted{Document: patched, contents: a.contents, members: a.members, ranges: a.ranges}
	next.countGroups(a, delta)
	next.countFrontends(a, delta)
	if err := next.judge(a, delta); err != nil {
		return Accepted{}, err
	}
	return next, nil
}

// Plain reports whether the difference has nothing twice and no routes, so that it can be counted
// item by item. Routes are few, and judged against each other.
func (d Delta) Plain() bool {
	return len(d.Routes)+len(d.RemovedRoutes) == 0 &&
		distinct(d.Groups, d.RemovedGroups, func(g Group) string { return g.Name }) &&
		distinct(d.Frontends, d.RemovedFrontends, Frontend.Key)
}

func distinct[T any, K comparable](added []T, removed []K, key func(T) K) bool {
	seen := make(map[K]bool, len(added)+len(removed))
	for _, k := range removed {
		seen[k] = true
	}
	for _, t := range added {
		seen[key(t)] = true
	}
	return len(seen) == len(added)+len(removed)
}

func (a *Accepted) countGroups(before Accepted, delta Delta) {
	var e encoder
	forget := func(name string) {
		if g, found := before.Group(name); found {
			a.contents.sub(e.group(g))
			a.members -= len(g.Members)
		}
	}
	for _, name := range delta.RemovedGroups {
		forget(name)
	}
	for _, g := range delta.Groups {
		forget(g.Name)
		a.contents.add(e.group(g))
		a.members += len(g.Members)
	}
}

func (a *Accepted) countFrontends(before Accepted, delta Delta) {
	var e encoder
	forget := func(k Key) {
		if f, found := before.Frontend(k); found {
			a.contents.sub(e.frontend(f))
			a.ranges -= len(f.SourceRanges)
		}
	}
	for _, k := range delta.RemovedFrontends {
		forget(k)
	}
	for _, f := range delta.Frontends {
		forget(f.Key())
		a.contents.add(e.frontend(f))
		a.ranges += len(f.SourceRanges)
	}
}

// judge finds what is wrong with the result: in what is new, in the totals, and, where
// a group went or has another family now, in the frontends that use it.
func (a *Accepted) judge(before Accepted, delta Delta) error {
	if len(a.Groups) > MaxGroups || len(a.Frontends) > MaxFrontends || a.members > MaxMembersTotal || a.ranges > MaxSourceRangeTotal {
		return a.Validate()
	}
	if err := a.validateNames(); err != nil {
		return err
	}
	for _, g := range delta.Groups {
		if err := g.Validate(); err != nil {
			return invalid(Frontend{}, "group %q: %v", g.Name, err)
		}
	}
	for _, f := range delta.Frontends {
		if err := f.Validate(); err != nil {
			return invalid(f, "%v", err)
		}
		if err := cmp.Or(a.validateUse(f), a.neighbours(f)); err != nil {
			return err
		}
	}
	doubtful := map[string]bool{}
	for _, name := range delta.RemovedGroups {
		doubtful[name] = true
	}
	for _, g := range delta.Groups {
		if old, found := before.Group(g.Name); found && old.family() != g.family() {
			doubtful[g.Name] = true
		}
	}
	if len(doubtful) == 0 {
		return nil
	}
	for i := range a.Frontends {
		if f := &a.Frontends[i]; doubtful[f.Group] {
			if err := a.validateUse(*f); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *Accepted) validateUse(f Frontend) error {
	g, known := a.Group(f.Group)
	return useOf(f, g.family(), known)
}

// neighbours judges that a frontend fits those before and after it.
func (a *Accepted) neighbours(f Frontend) error {
	i, found := a.position(f.Key())
	if !found {
		return nil
	}
	if i > 0 {
		if err := together(a.Frontends[i-1], f); err != nil {
			return err
		}
	}
	if i+1 < len(a.Frontends) {
		return together(a.Frontends[i+1], f)
	}
	return nil
}

func (d Document) position(k Key) (int, bool) {
	return slices.BinarySearchFunc(d.Frontends, k, func(f Frontend, k Key) int { return f.Key().Compare(k) })
}

// Frontend returns the frontend with that key of a normalized document.
func (d Document) Frontend(k Key) (Frontend, bool) {
	i, found := d.position(k)
	if !found {
		return Frontend{}, false
	}
	return d.Frontends[i], true
}

// HasAddress reports whether a normalized document has frontends on an address.
func (d Document) HasAddress(a netip.Addr) bool {
	_, found := d.First(a)
	return found
}

// First returns the first frontend on an address of a normalized document.
func (d Document) First(a netip.Addr) (Frontend, bool) {
	i, found := slices.BinarySearchFunc(d.Frontends, a, func(f Frontend, a netip.Addr) int { return f.Address.Compare(a) })
	if !found {
		return Frontend{}, false
	}
	return d.Frontends[i], true
}

// ConcernsRouted reports whether a frontend of the difference is routed, or was.
func (d Delta) ConcernsRouted(before Document) bool {
	was := func(k Key) bool { f, _ := before.Frontend(k); return f.Routed }
	return slices.ContainsFunc(d.RemovedFrontends, was) ||
		slices.ContainsFunc(d.Frontends, func(f Frontend) bool { return f.Routed || was(f.Key()) })
}
