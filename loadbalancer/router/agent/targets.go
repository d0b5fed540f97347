package agent

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/health"
)

// targetCounts are what a document has to have probed, by how many members. Groups
// share targets, so there are as many as nodes and not as many as members.
type targetCounts map[health.Target]int

func countTargets(groups []router.Group) targetCounts {
	t := targetCounts{}
	for i := range groups {
		t.count(&groups[i], 1)
	}
	return t
}

func (t targetCounts) count(g *router.Group, by int) {
	if g.Check == nil {
		return
	}
	for _, m := range g.Members {
		target := targetOf(g, m)
		if t[target] += by; t[target] == 0 {
			delete(t, target)
		}
	}
}

func targetOf(g *router.Group, m router.Member) health.Target {
	return health.Target{Address: m.ProbeAddress(), Port: g.Check.Port, Path: g.Check.Path}
}

// after returns what is to be probed after a difference.
func (t targetCounts) after(before router.Document, delta *router.Delta) targetCounts {
	if len(delta.Groups)+len(delta.RemovedGroups) == 0 {
		return t
	}
	next := maps.Clone(t)
	forget := func(name string) {
		if g, was := before.Group(name); was {
			next.count(&g, -1)
		}
	}
	for _, name := range delta.RemovedGroups {
		forget(name)
	}
	for i := range delta.Groups {
		forget(delta.Groups[i].Name)
		next.count(&delta.Groups[i], 1)
	}
	return next
}

// probe has the checks follow the documents.
func (a *Agent) probe() {
	targets := map[health.Target]bool{}
	for _, o := range a.state {
		for t := range o.targets {
			targets[t] = true
		}
	}
	if !maps.Equal(targets, a.probing) {
		a.probing = targets
		a.health.Set(slices.Collect(maps.Keys(targets)))
	}
}

// healthy tells, as of now, which members pass their checks.
func (a *Agent) healthy() func(router.Check, netip.Addr) bool {
	results := a.health.Snapshot()
	return func(check router.Check, probed netip.Addr) bool {
		return results[health.Target{Address: probed, Port: check.Port, Path: check.Path}].State == health.Healthy
	}
}
