package path

import (
	"fmt"
	"slices"
	"strings"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/inventory"
)

// mostNamed is how many nodes a text names.
const mostNamed = 6

// announcers: the nodes that announce the address to BGP peers.
func (w *way) announcers() Hop {
	h := Hop{Kind: "announcers", State: OK}
	all := w.v.Status.Announcers
	if len(all) == 0 {
		return w.noAnnouncer(h)
	}
	var names, alone []string
	for _, a := range all {
		names = append(names, fmt.Sprintf("%s (%s)", a.Node, strings.Join(a.Peers, ", ")))
		if n := w.inv.Node(a.Node); n != nil && !inventory.NodeReady(n) {
			alone = append(alone, a.Node)
		}
	}
	h.Name = fmt.Sprintf("%d nodes", len(all))
	if len(all) == 1 {
		h.Name = "1 node"
	}
	h.Detail = "announced by " + strings.Join(shorten(names), ", ")
	switch {
	case len(alone) == len(all):
		h.State, h.Detail = Warning, h.Detail+"; none of them is Ready"
		h.Remedy = "kubectl describe node " + alone[0]
	case len(all) == 1 && w.v.Spec.TrafficPolicy != v1alpha1.TrafficPolicyLocal && len(w.inv.Nodes) > 1:
		h.State, h.Detail = Warning, h.Detail+" alone: if it is lost, so is the address"
		h.Remedy = "onelbctl bgp shows why the other nodes have no session"
	}
	return h
}

func shorten(names []string) []string {
	if more := len(names) - mostNamed; more > 0 {
		return append(slices.Clone(names[:mostNamed]), fmt.Sprintf("%d more", more))
	}
	return names
}

func (w *way) noAnnouncer(h Hop) Hop {
	h.State, h.Detail = Down, "no node announces "+w.v.Spec.Address
	established := func(n v1alpha1.BGPNode) bool { return n.Status.Established > 0 }
	switch {
	case w.inv.Unread("BGP"), w.inv.Count != nil: // or not watched by who looks
		h.Remedy = "onelbctl bgp, run by somebody who may read BGPNodes, shows the sessions"
	case w.inv.BGPConfig == nil:
		h.Detail += ": there is no BGPConfiguration"
		h.Remedy = "make one, and a BGPPeer (docs/how-to/bgp.md)"
	case len(w.inv.BGPPeers) == 0:
		h.Detail += ": there is no BGPPeer"
		h.Remedy = "make one (docs/how-to/bgp.md)"
	case !slices.ContainsFunc(w.inv.BGPNodes, established):
		h.Detail += ": no node has a session with a peer"
		h.Remedy = "onelbctl bgp shows why, and onelbctl doctor which side to correct"
	case w.v.Spec.TrafficPolicy == v1alpha1.TrafficPolicyLocal && len(w.inv.Endpoints(w.svc, w.ipv6()).Nodes) == 0:
		h.Detail += ": externalTrafficPolicy is Local, and no node has a ready endpoint"
		h.Remedy = "kubectl -n " + w.svc.Namespace + " get pods; each node with a ready pod of the Service announces the address"
	default:
		h.Remedy = "a node with a session has to be let by the node selectors of the BGPPeer and of spec.bgp of AddressPool " + w.v.Spec.Pool + ", and its family be one of the peer's (onelbctl bgp)"
	}
	return h
}
