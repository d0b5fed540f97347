package agent

import (
	"context"
	"net/netip"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/wire"
)

// admitRoutes checks the routes of a document against what the operator allows,
// the other clusters' and the interfaces.
func (a *Agent) admitRoutes(d router.Document) *refusal {
	for _, r := range d.Routes {
		switch {
		case !within(a.opts.PodNetworks, r.Destination):
			return refuse(router.ReasonRoute, "route %s: %s is not in --pod-networks of the router", r, r.Destination)
		case !a.onLink(r.Gateway):
			return refuse(router.ReasonRoute, "route %s: no interface of the router is on the gateway's network", r)
		}
	}
	for cluster, o := range a.state {
		if cluster == d.Cluster {
			continue
		}
		for _, r := range d.Routes {
			for _, other := range o.doc.Routes {
				if r.Destination.Overlaps(other.Destination) { // whose is not theirs to know
					return refuse(router.ReasonRoute, "route %s: another cluster has %s", r, other.Destination)
				}
			}
		}
	}
	return nil
}

// within reports whether one of the networks contains all of p.
func within(networks []netip.Prefix, p netip.Prefix) bool {
	for _, n := range networks {
		if n.Bits() <= p.Bits() && n.Contains(p.Addr()) {
			return true
		}
	}
	return false
}

func (a *Agent) onLink(gateway netip.Addr) bool {
	for _, i := range a.opts.Addresses.Interfaces() {
		if within(i.Networks, netip.PrefixFrom(gateway, gateway.BitLen())) {
			return true
		}
	}
	return false
}

// route brings the documents' routes into force. A node's network that is down
// must not keep frontends to others from working, so an error is only told.
func (a *Agent) route(ctx context.Context, documents []router.Document) {
	var routes []router.Route
	for _, d := range documents {
		routes = append(routes, d.Routes...)
	}
	a.note("pod routes", a.opts.Routes.Set(ctx, routes))
}

// lookAtRoutes tells the clusters to where they can be forwarded.
func (a *Agent) lookAtRoutes() {
	networks, err := a.opts.Routes.List()
	a.note("routes", err)
	if err != nil {
		return
	}
	a.routes = make([]*wire.Prefix, 0, len(networks))
	for _, n := range networks {
		a.routes = append(a.routes, router.PrefixToWire(n))
	}
}
