package router

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Protocol is a transport protocol as Kubernetes spells it.
type Protocol string

// The protocols that can be forwarded.
const (
	TCP  Protocol = "TCP"
	UDP  Protocol = "UDP"
	SCTP Protocol = "SCTP"
)

// Number is the protocol's IP protocol number, 0 for an unknown one.
func (p Protocol) Number() uint8 {
	switch p {
	case TCP:
		return 6
	case UDP:
		return 17
	case SCTP:
		return 132
	}
	return 0
}

// SNAT says when a frontend's connections get the router's own source address.
type SNAT string

const (
	// SNATAuto keeps the client's address, except where the backend's reply
	// would not come back through the router: client and backend on one network.
	SNATAuto SNAT = "auto"
	// SNATAlways is for backends that do not route through the router.
	SNATAlways SNAT = "always"
	// SNATNever keeps the client's address in every case.
	SNATNever SNAT = "never"
)

// Document is one cluster's desired state of one router. Treat it as immutable
// once it has been handed to a Client.
type Document struct {
	// Cluster is the name in the client certificate.
	Cluster string
	// Identity tells two clusters of one name apart (UID of kube-system).
	Identity string
	// Token is the leader's fencing token; the router refuses a smaller one.
	Token uint64
	// Generation numbers the document; the Client assigns it.
	Generation uint64
	Groups     []Group
	Frontends  []Frontend
	// Routes lead to the pods of the cluster's nodes.
	Routes []Route
}

// Group is a set of backends that many frontends share, so that the cost of a
// health change grows with nodes and not with Services.
type Group struct {
	Name string
	// Members may be empty: connections are then refused.
	Members []Member
	// Check says how health is probed; nil means always healthy.
	Check *Check
}

// Member is one backend.
type Member struct {
	Address netip.Addr
	// Weight is its share against the other members; 0 means 1.
	Weight int
	// Node is for messages.
	Node string
	// CheckAddress is where health is asked, for example the IPv4 address of a
	// node whose kube-proxy tells its health over IPv4 only. Invalid: Address.
	CheckAddress netip.Addr
}

// ProbeAddress is CheckAddress with its default.
func (m Member) ProbeAddress() netip.Addr {
	if m.CheckAddress.IsValid() {
		return m.CheckAddress
	}
	return m.Address
}

// Check is an HTTP GET on each member: 200 is healthy.
type Check struct {
	Port uint16
	Path string
}

// Key identifies a frontend on a router.
type Key struct {
	Address  netip.Addr
	Protocol Protocol
	Port     uint16
}

// Frontend is one public address, protocol and port.
type Frontend struct {
	Address  netip.Addr
	Protocol Protocol
	Port     uint16
	// Service is namespace/name, for messages.
	Service string
	// Group names the backends, BackendPort the port on them.
	Group       string
	BackendPort uint16
	// SNAT defaults to SNATAuto.
	SNAT SNAT
	// SourceRanges are the clients that may connect; empty means all.
	SourceRanges []netip.Prefix
	// Affinity is for how long after its last new connection a client keeps its
	// backend, in whole seconds; 0: connections are spread one by one.
	Affinity time.Duration
	// MaxConnections is how many connections may be open at a time, of all
	// clients together; 0: any number.
	MaxConnections uint32
	// Routed: nothing is translated. One of the group's members holds the address on
	// the members' network, and packets for it are passed on there as they are. All
	// frontends of an address are, or none.
	Routed bool
}

// Key returns what identifies the frontend.
func (f Frontend) Key() Key {
	return Key{Address: f.Address, Protocol: f.Protocol, Port: f.Port}
}

// Compare orders keys by address (IPv4 first), protocol number and port: the
// order of the bytes in the kernel's maps, so that no second sort is needed.
func (k Key) Compare(o Key) int {
	if c := k.Address.Compare(o.Address); c != 0 {
		return c
	}
	if k.Protocol != o.Protocol {
		return cmp.Or(cmp.Compare(k.Protocol.Number(), o.Protocol.Number()), cmp.Compare(k.Protocol, o.Protocol))
	}
	return cmp.Compare(k.Port, o.Port)
}

// String is "203.0.113.100:80/TCP".
func (k Key) String() string {
	return fmt.Sprintf("%s/%s", netip.AddrPortFrom(k.Address, k.Port), k.Protocol)
}

// EffectiveWeight is the weight with its default.
func (m Member) EffectiveWeight() int {
	return max(m.Weight, 1)
}

// Normalize returns a copy in the one canonical form: defaults filled in,
// addresses unmapped, prefixes masked, everything sorted. It does not judge;
// Validate does.
func (d Document) Normalize() Document {
	d.Groups = slices.Clone(d.Groups)
	for i := range d.Groups {
		d.Groups[i] = d.Groups[i].normalize()
	}
	slices.SortStableFunc(d.Groups, func(a, b Group) int { return cmp.Compare(a.Name, b.Name) })
	d.Frontends = slices.Clone(d.Frontends)
	for i := range d.Frontends {
		d.Frontends[i] = d.Frontends[i].Normalize()
	}
	slices.SortStableFunc(d.Frontends, func(a, b Frontend) int { return a.Key().Compare(b.Key()) })
	d.Routes = normalizeRoutes(d.Routes)
	return d
}

func (g Group) normalize() Group {
	g.Members = slices.Clone(g.Members)
	for i, m := range g.Members {
		g.Members[i].Address = m.Address.Unmap()
		g.Members[i].CheckAddress = m.CheckAddress.Unmap()
		if m.Weight == 0 {
			g.Members[i].Weight = 1
		}
	}
	slices.SortStableFunc(g.Members, func(a, b Member) int { return a.Address.Compare(b.Address) })
	if g.Check != nil {
		check := *g.Check
		if check.Path == "" {
			check.Path = "/"
		}
		g.Check = &check
	}
	return g
}

// Normalize returns the frontend in its one canonical form. It does not judge.
func (f Frontend) Normalize() Frontend {
	f.Address = f.Address.Unmap()
	if f.SNAT == "" {
		f.SNAT = SNATAuto
	}
	if len(f.SourceRanges) == 0 {
		f.SourceRanges = nil
		return f
	}
	ranges := make([]netip.Prefix, 0, len(f.SourceRanges))
	for _, r := range f.SourceRanges {
		ranges = append(ranges, r.Masked())
	}
	slices.SortFunc(ranges, comparePrefix)
	f.SourceRanges = slices.Compact(ranges)
	return f
}

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// Group returns the group of that name of a normalized document.
func (d Document) Group(name string) (Group, bool) {
	i, found := slices.BinarySearchFunc(d.Groups, name, func(g Group, name string) int { return cmp.Compare(g.Name, name) })
	if !found {
		return Group{}, false
	}
	return d.Groups[i], true
}

// Equal reports whether two groups are the same.
func (g Group) Equal(o Group) bool {
	if g.Name != o.Name || !slices.Equal(g.Members, o.Members) || (g.Check == nil) != (o.Check == nil) {
		return false
	}
	return g.Check == nil || *g.Check == *o.Check
}

// Equal reports whether two frontends are the same.
func (f Frontend) Equal(o Frontend) bool {
	return f.Key() == o.Key() && f.Service == o.Service && f.Group == o.Group &&
		f.BackendPort == o.BackendPort && f.SNAT == o.SNAT && f.Affinity == o.Affinity && f.MaxConnections == o.MaxConnections && f.Routed == o.Routed && slices.Equal(f.SourceRanges, o.SourceRanges)
}
