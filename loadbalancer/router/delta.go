package router

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Delta turns one normalized document into another: Groups, Frontends and Routes
// are added or replace their namesakes. A further list goes into Empty, Diff, Patch
// and Sum.
type Delta struct {
	Groups           []Group
	Frontends        []Frontend
	RemovedGroups    []string
	RemovedFrontends []Key
	Routes           []Route
	RemovedRoutes    []netip.Prefix
}

// Empty reports whether the delta changes nothing.
func (d Delta) Empty() bool {
	return len(d.Groups)+len(d.Frontends)+len(d.Routes)+len(d.RemovedGroups)+len(d.RemovedFrontends)+len(d.RemovedRoutes) == 0
}

// Diff returns what must change to get from one normalized document to another.
func Diff(from, to Document) Delta {
	var d Delta
	merge(from.Groups, to.Groups, compareGroup,
		func(g Group) { d.RemovedGroups = append(d.RemovedGroups, g.Name) },
		func(g Group) { d.Groups = append(d.Groups, g) }, Group.Equal)
	merge(from.Frontends, to.Frontends, compareFrontend,
		func(f Frontend) { d.RemovedFrontends = append(d.RemovedFrontends, f.Key()) },
		func(f Frontend) { d.Frontends = append(d.Frontends, f) }, Frontend.Equal)
	merge(from.Routes, to.Routes, compareRoute,
		func(r Route) { d.RemovedRoutes = append(d.RemovedRoutes, r.Destination) },
		func(r Route) { d.Routes = append(d.Routes, r) }, equalRoute)
	return d
}

func compareGroup(a, b Group) int       { return cmp.Compare(a.Name, b.Name) }
func compareFrontend(a, b Frontend) int { return a.Key().Compare(b.Key()) }

// merge walks two sorted lists and calls back for what is only in the first,
// and what is new or different in the second.
func merge[T any](from, to []T, compare func(a, b T) int, removed, added func(T), equal func(a, b T) bool) {
	for len(from) > 0 || len(to) > 0 {
		switch {
		case len(to) == 0 || len(from) > 0 && compare(from[0], to[0]) < 0:
			removed(from[0])
			from = from[1:]
		case len(from) == 0 || compare(from[0], to[0]) > 0:
			added(to[0])
			to = to[1:]
		default:
			if !equal(from[0], to[0]) {
				added(to[0])
			}
			from, to = from[1:], to[1:]
		}
	}
}

// Patch returns the document with the delta applied; the receiver stays as it is.
// A removal of something that is not there is an error: the two sides then do
// not mean the same base.
func (d Document) Patch(delta Delta) (Document, error) {
	var err error
	d.Groups, err = patch(d.Groups, delta.Groups, delta.RemovedGroups, compareGroup,
		strings.Compare, func(g Group, name string) int { return cmp.Compare(g.Name, name) })
	if err != nil {
		return Document{}, fmt.Errorf("patch groups: %w", err)
	}
	d.Frontends, err = patch(d.Frontends, delta.Frontends, delta.RemovedFrontends, compareFrontend,
		Key.Compare, func(f Frontend, k Key) int { return f.Key().Compare(k) })
	if err != nil {
		return Document{}, fmt.Errorf("patch frontends: %w", err)
	}
	d.Routes, err = patch(d.Routes, delta.Routes, delta.RemovedRoutes, compareRoute,
		comparePrefix, func(r Route, p netip.Prefix) int { return comparePrefix(r.Destination, p) })
	if err != nil {
		return Document{}, fmt.Errorf("patch routes: %w", err)
	}
	return d, nil
}

// patch finds each change in the base and copies what lies between as it is: of
// many thousand elements few change.
func patch[T, K any](base, added []T, removed []K, compare func(a, b T) int,
	order func(a, b K) int, match func(T, K) int,
) ([]T, error) {
	added, removed = slices.Clone(added), slices.Clone(removed)
	slices.SortStableFunc(added, compare)
	slices.SortFunc(removed, order)
	out := make([]T, 0, len(base)+len(added))
	for len(added) > 0 || len(removed) > 0 {
		removal := len(added) == 0 || len(removed) > 0 && match(added[0], removed[0]) >= 0
		var at int
		var found bool
		if removal {
			at, found = slices.BinarySearchFunc(base, removed[0], match)
		} else {
			at, found = slices.BinarySearchFunc(base, added[0], compare)
		}
		out, base = append(out, base[:at]...), base[at:]
		switch {
		case removal && !found:
			return nil, fmt.Errorf("remove %v: not in the base", removed[0])
		case removal:
			removed = removed[1:]
		default:
			out, added = append(out, added[0]), added[1:]
		}
		if found {
			base = base[1:]
		}
	}
	return append(out, base...), nil
}

// Sum makes one delta of several that follow each other on a base. Patch with it
// costs one pass, however many there are.
func Sum(base Document, deltas []Delta) Delta {
	var d Delta
	d.Groups, d.RemovedGroups = sum(base.Groups, deltas, func(g Group) string { return g.Name },
		func(d Delta) ([]Group, []string) { return d.Groups, d.RemovedGroups })
	d.Frontends, d.RemovedFrontends = sum(base.Frontends, deltas, Frontend.Key,
		func(d Delta) ([]Frontend, []Key) { return d.Frontends, d.RemovedFrontends })
	d.Routes, d.RemovedRoutes = sum(base.Routes, deltas, func(r Route) netip.Prefix { return r.Destination },
		func(d Delta) ([]Route, []netip.Prefix) { return d.Routes, d.RemovedRoutes })
	return d
}

// sum keeps the last word about each key. A removal concerns only what is in the base.
func sum[T any, K comparable](base []T, deltas []Delta, key func(T) K, lists func(Delta) (added []T, removed []K)) (added []T, removed []K) {
	last := map[K]*T{} // nil: removed
	for _, d := range deltas {
		more, less := lists(d)
		for _, k := range less {
			last[k] = nil
		}
		for i := range more {
			last[key(more[i])] = &more[i]
		}
	}
	if len(last) == 0 {
		return nil, nil
	}
	for i := range base {
		k := key(base[i])
		if t, is := last[k]; is && t == nil {
			removed = append(removed, k)
		}
	}
	for _, t := range last {
		if t != nil {
			added = append(added, *t) // Patch sorts
		}
	}
	return added, removed
}
