package agent

import (
	"net/netip"
	"slices"

	"github.com/onelb/onelb/loadbalancer/router"
)

// admitOthers checks that what is new in a document takes no other cluster's nodes, pods
// or addresses: the router would answer in their place, or lead their packets elsewhere.
// Whose they are is not the cluster's to know.
func (s state) admitOthers(before router.Document, next step) *refusal {
	fresh, routes := next.doc.Frontends, next.doc.Routes
	if next.delta != nil {
		fresh, routes = next.delta.Frontends, next.delta.Routes
	}
	had := map[router.Route]bool{}
	if len(routes) > 0 {
		for _, r := range before.Routes {
			had[r] = true
		}
	}
	came := map[netip.Addr]router.Frontend{}
	for _, f := range fresh {
		if !before.HasAddress(f.Address) {
			came[f.Address] = f
		}
	}
	for cluster, o := range s {
		if cluster == next.doc.Cluster {
			continue
		}
		if a, taken := takenOf(o.doc.Document, came); taken {
			return refuse(router.ReasonTaken, "address %s is a node's, a pod's or a gateway's of another cluster", a).of(came[a])
		}
		for _, r := range routes {
			if had[r] {
				continue
			}
			if a, within := addressWithin(o.doc.Document, r.Destination); within {
				return refuse(router.ReasonRoute, "route %s: another cluster has %s", r, a)
			}
		}
	}
	return nil
}

// takenOf finds one of the addresses among what a cluster has, but for its frontends.
func takenOf(d router.Document, came map[netip.Addr]router.Frontend) (netip.Addr, bool) {
	if len(came) == 0 {
		return netip.Addr{}, false
	}
	for i := range d.Groups {
		for _, m := range d.Groups[i].Members {
			if _, is := came[m.Address]; is {
				return m.Address, true
			}
		}
	}
	for _, r := range d.Routes {
		if _, is := came[r.Gateway]; is {
			return r.Gateway, true
		}
	}
	if len(d.Routes) == 0 {
		return netip.Addr{}, false
	}
	for a := range came {
		if slices.ContainsFunc(d.Routes, func(r router.Route) bool { return r.Destination.Contains(a) }) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// addressWithin finds a frontend of a normalized document on an address in a network.
func addressWithin(d router.Document, p netip.Prefix) (netip.Addr, bool) {
	i, _ := slices.BinarySearchFunc(d.Frontends, p.Addr(), func(f router.Frontend, a netip.Addr) int { return f.Address.Compare(a) })
	if i < len(d.Frontends) && p.Contains(d.Frontends[i].Address) {
		return d.Frontends[i].Address, true
	}
	return netip.Addr{}, false
}
