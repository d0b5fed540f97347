package announcer

import (
	"net/netip"
	"slices"
	"time"
)

// Cluster is what the API server says, reduced to what matters here. It is kept
// on disk for the times when nobody says anything. It is never changed after it
// has been handed over.
type Cluster struct {
	// Nodes, sorted by name.
	Nodes []Node `json:"nodes"`
	// Addresses that nodes hold, sorted.
	Addresses []Address `json:"addresses"`
}

// Node is a node of the cluster.
type Node struct {
	Name string `json:"name"`
	// Addresses by which the other nodes reach it, the preferred one first.
	Addresses []netip.Addr `json:"addresses,omitempty"`
	// Excluded: it must not hold addresses.
	Excluded bool `json:"excluded,omitempty"`
	// Unavailable: its network is not ready; it holds an address only if no
	// other node can.
	Unavailable bool `json:"unavailable,omitempty"`
	// Draining: it is about to go; it holds an address only if no other node can.
	Draining bool `json:"draining,omitempty"`
}

// Address is one address that a node should hold.
type Address struct {
	Address netip.Addr `json:"address"`
	// Created says in which order the addresses came to be.
	Created time.Time `json:"created,omitzero"`
	// Services behind it. None: it is being released.
	Services []Service `json:"services,omitempty"`
	// Local: only nodes in Endpoints may take it. So it is too for guarded addresses.
	Local bool `json:"local,omitempty"`
	// Endpoints are the nodes with a ready endpoint, sorted (Local only); of a
	// guarded address the nodes that OpenNebula lets send from it.
	Endpoints []string `json:"endpoints,omitempty"`
	// Selected: only nodes in Nodes may take it.
	Selected bool `json:"selected,omitempty"`
	// Nodes that the pool names, sorted (Selected only).
	Nodes []string `json:"nodes,omitempty"`
	// Weights of preferred nodes.
	Weights map[string]int `json:"weights,omitempty"`
	// Interfaces are names or regular expressions of the interfaces that may
	// have it. None: the one with an address in the same network.
	Interfaces []string `json:"interfaces,omitempty"`
	// Routed: it is in no network of the nodes; a router passes it on to who holds it
	// on the interface by which the other nodes reach the node.
	Routed bool `json:"routed,omitempty"`
	// Conflict: the API server knows that a stranger claims it.
	Conflict bool `json:"conflict,omitempty"`
	// Holder as it is known to the API server.
	Holder *Holding `json:"holder,omitempty"`
}

// Service names a Service.
type Service struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
}

// Holding says who has an address.
type Holding struct {
	Node      string `json:"node"`
	Interface string `json:"interface"`
	// Since is the wall clock time of the takeover, for people only.
	Since time.Time `json:"since"`
	// Epoch counts the takeovers of the address.
	Epoch int64 `json:"epoch"`
	// StandIn: until the node with the lasting claim can be reached again.
	StandIn bool `json:"standIn,omitempty"`
}

// same reports whether both say that the same takeover happened.
func (h Holding) same(other *Holding) bool {
	return other != nil && h.Node == other.Node && h.Interface == other.Interface && h.Epoch == other.Epoch
}

func (c *Cluster) node(name string) (Node, bool) {
	i, found := slices.BinarySearchFunc(c.Nodes, name, func(n Node, s string) int {
		switch {
		case n.Name < s:
			return -1
		case n.Name > s:
			return 1
		}
		return 0
	})
	if !found {
		return Node{}, false
	}
	return c.Nodes[i], true
}
