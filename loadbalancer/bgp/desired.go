package bgp

import (
	"net/netip"
	"slices"
	"time"
)

// Desired is all that a Speaker should do. It is not changed after it has been
// handed over.
type Desired struct {
	Global Global
	// Peers, sorted by name. Names and addresses are unique.
	Peers []Peer
	// Routes, sorted by prefix. Prefixes are unique.
	Routes []Route
}

// Global is what all sessions share. A change of it begins all of them anew.
type Global struct {
	ASN uint32
	// RouterID is an IPv4 address, or 32 bits written as one.
	RouterID netip.Addr
	// ListenPort is where peers may connect to, on the NextHops. 0: nowhere.
	ListenPort uint16
	// NextHops are this node's addresses, at most one of each family, for routes of
	// another family than the session's.
	NextHops [2]netip.Addr
}

// Peer is a router to announce to.
type Peer struct {
	// Name by which routes and sessions refer to the peer.
	Name string
	// Address with a zone is link-local: then routes of both families have this node's
	// link-local address as next hop.
	Address  netip.Addr
	Port     uint16
	ASN      uint32
	LocalASN uint32 // 0: the Global one
	Password string // empty: none
	// Source is this node's end of the session. Invalid: the kernel chooses.
	Source netip.Addr
	// VRF is the device through which the peer is reached. Empty: none.
	VRF string
	// Far: the peer is on no network of this node.
	Far bool
	// Multihop is the TTL towards an external peer. 0: it is on the same network.
	Multihop uint8
	// Whole seconds, 3 s and more for HoldTime.
	HoldTime, KeepaliveTime, ConnectRetryTime time.Duration
	// RestartTime is for how long the peer is asked to keep the routes when the
	// session breaks. 0: it is not asked.
	RestartTime time.Duration
	// BFDInterval is 0 without BFD.
	BFDInterval   time.Duration
	BFDMultiplier uint8
	// Families of which routes are announced.
	IPv4, IPv6 bool
	// Problem says why the peer cannot be followed as it is wanted. A session that
	// runs is left alone, and none is begun.
	Problem string
}

// Route is a prefix to announce.
type Route struct {
	Prefix netip.Prefix
	*Attributes
}

// Attributes of routes; many share the same. Equal ones may be different pointers.
type Attributes struct {
	Communities      []uint32 // sorted
	LargeCommunities [][3]uint32
	LocalPreference  *uint32
	MED              *uint32
	// Peers are the names of those that get the route, sorted. None: all.
	Peers []string
	// Leaving marks the route with the community GRACEFUL_SHUTDOWN (RFC 8326) and
	// the lowest local preference: it is about to be withdrawn.
	Leaving bool
}

func (a *Attributes) equal(b *Attributes) bool {
	return a == b || slices.Equal(a.Communities, b.Communities) && slices.Equal(a.LargeCommunities, b.LargeCommunities) &&
		same(a.LocalPreference, b.LocalPreference) && same(a.MED, b.MED) && slices.Equal(a.Peers, b.Peers) && a.Leaving == b.Leaving
}

func same(a, b *uint32) bool {
	return a == b || a != nil && b != nil && *a == *b
}

func (p Peer) speaks(a netip.Addr) bool {
	return a.Is4() && p.IPv4 || a.Is6() && p.IPv6
}

// gets reports whether the peer is to have the route.
func (p Peer) gets(r Route) bool {
	return p.speaks(r.Prefix.Addr()) && (len(r.Peers) == 0 || slices.Contains(r.Peers, p.Name))
}
