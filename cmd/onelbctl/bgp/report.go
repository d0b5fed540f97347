// Package bgp shows BGP sessions and routes as the node agents report them in
// BGPNodes and VirtualIPs. It reads and changes nothing; the same objects give the
// same report, sorted.
package bgp

import (
	"slices"
	"time"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/inventory"
)

// Report is what is shown, and what -o json and -o yaml give.
type Report struct {
	Time time.Time `json:"time"`
	// ASN of the BGPConfiguration; 0: there is none.
	ASN      int64           `json:"asn"`
	Sessions []Session       `json:"sessions"`
	Routes   []Route         `json:"routes"`
	Problems []Problem       `json:"problems,omitempty"`
	Gaps     []inventory.Gap `json:"gaps,omitempty"`
	// configured: there is a BGPConfiguration and a BGPPeer.
	configured bool
}

// Session is that of a node with a peer.
type Session struct {
	Node    string `json:"node"`
	Peer    string `json:"peer"`
	Address string `json:"address"`
	// ASN is the peer's as the BGPPeer says, LocalASN and RouterID the node's.
	ASN             int64      `json:"asn"`
	LocalASN        int64      `json:"localASN"`
	RouterID        string     `json:"routerID,omitempty"`
	State           string     `json:"state"`
	Since           *time.Time `json:"since,omitempty"`
	Announced       int32      `json:"announced"`
	Received        int32      `json:"received"`
	GracefulRestart bool       `json:"gracefulRestart"`
	Families        []string   `json:"families,omitempty"`
	HoldTime        string     `json:"holdTime,omitempty"`
	BFD             string     `json:"bfd,omitempty"`
	Reason          string     `json:"reason,omitempty"`
	LastError       string     `json:"lastError,omitempty"`
}

// Route is an address and who announces it.
type Route struct {
	Address  string   `json:"address"`
	Pool     string   `json:"pool"`
	Services []string `json:"services,omitempty"`
	// Announcers, sorted by node.
	Announcers []Announcer `json:"announcers"`
}

// Announcer is a node and the peers that get an address from it.
type Announcer struct {
	Node  string   `json:"node"`
	Peers []string `json:"peers"`
}

// Problem is something that a node cannot follow.
type Problem struct {
	Node string `json:"node"`
	Text string `json:"text"`
}

// New makes the report of an inventory.
func New(inv *inventory.Inventory, f Filter) *Report {
	r := &Report{Time: inv.Time, Sessions: []Session{}, Routes: []Route{}, Gaps: inv.Gaps}
	if inv.BGPConfig != nil {
		r.ASN = inv.BGPConfig.Spec.ASN
	}
	r.configured = inv.BGPConfig != nil && len(inv.BGPPeers) > 0
	peers := map[string]v1alpha1.BGPPeerSpec{}
	for _, p := range inv.BGPPeers {
		peers[p.Name] = p.Spec
	}
	for i := range inv.BGPNodes {
		n := &inv.BGPNodes[i]
		if f.Node != "" && n.Name != f.Node {
			continue
		}
		for _, s := range n.Status.Sessions {
			if f.Peer == "" || s.Peer == f.Peer {
				r.Sessions = append(r.Sessions, session(n, s, peers[s.Peer]))
			}
		}
		for _, text := range n.Status.Problems {
			r.Problems = append(r.Problems, Problem{Node: n.Name, Text: text})
		}
	}
	for i := range inv.VirtualIPs {
		if v := &inv.VirtualIPs[i]; v.Spec.Role == v1alpha1.RoleBGP {
			if route, some := route(v, f); some {
				r.Routes = append(r.Routes, route)
			}
		}
	}
	return r
}

func session(n *v1alpha1.BGPNode, s v1alpha1.BGPSession, peer v1alpha1.BGPPeerSpec) Session {
	out := Session{
		Node: n.Name, Peer: s.Peer, Address: s.Address, ASN: peer.ASN, LocalASN: n.Status.ASN, RouterID: n.Status.RouterID,
		State: s.State, Announced: s.Announced, Received: s.Received, GracefulRestart: s.GracefulRestart, BFD: s.BFD, Reason: s.Reason, LastError: s.LastError,
	}
	if peer.LocalASN != nil {
		out.LocalASN = *peer.LocalASN
	}
	if s.Since != nil {
		out.Since = &s.Since.Time
	}
	if s.HoldTime != nil {
		out.HoldTime = s.HoldTime.Duration.String()
	}
	for _, family := range s.Families {
		out.Families = append(out.Families, string(family))
	}
	return out
}

// route is an address; some: there is something to show of it.
func route(v *v1alpha1.VirtualIP, f Filter) (out Route, some bool) {
	out = Route{Address: v.Spec.Address, Pool: v.Spec.Pool, Announcers: []Announcer{}}
	for _, s := range v.Spec.Services {
		out.Services = append(out.Services, s.Namespace+"/"+s.Name)
	}
	for _, a := range v.Status.Announcers {
		if (f.Node == "" || a.Node == f.Node) && (f.Peer == "" || slices.Contains(a.Peers, f.Peer)) {
			out.Announcers = append(out.Announcers, Announcer{Node: a.Node, Peers: a.Peers})
		}
	}
	return out, len(out.Announcers) > 0 || f == Filter{} && len(out.Services) > 0
}
