package router

import (
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/onelb/onelb/loadbalancer/router/wire"
)

// ToWire returns the document in its wire form.
func ToWire(d Document) *wire.Document {
	return &wire.Document{
		Cluster: d.Cluster, Identity: d.Identity, Token: d.Token, Generation: d.Generation,
		Groups: groupsToWire(d.Groups), Frontends: frontendsToWire(d.Frontends), Routes: routesToWire(d.Routes),
	}
}

// FromWire reads a document from its wire form. It refuses what cannot be
// represented; Validate must still judge the result.
func FromWire(w *wire.Document) (Document, error) {
	d := Document{Cluster: w.GetCluster(), Identity: w.GetIdentity(), Token: w.GetToken(), Generation: w.GetGeneration()}
	delta, err := DeltaFromWire(&wire.ApplyRequest{Groups: w.GetGroups(), Frontends: w.GetFrontends(), Routes: w.GetRoutes()})
	if err != nil {
		return Document{}, err
	}
	d.Groups, d.Frontends, d.Routes = delta.Groups, delta.Frontends, delta.Routes
	return d, nil
}

// DeltaFromWire reads the lists of a request.
func DeltaFromWire(r *wire.ApplyRequest) (Delta, error) {
	d := Delta{RemovedGroups: r.GetRemovedGroups()}
	for _, g := range r.GetGroups() {
		group, err := groupFromWire(g)
		if err != nil {
			return Delta{}, fmt.Errorf("group %q: %w", g.GetName(), err)
		}
		d.Groups = append(d.Groups, group)
	}
	for i, f := range r.GetFrontends() {
		frontend, err := frontendFromWire(f)
		if err != nil {
			return Delta{}, fmt.Errorf("frontend %d of Service %s: %w", i, f.GetService(), err)
		}
		d.Frontends = append(d.Frontends, frontend)
	}
	for i, k := range r.GetRemovedFrontends() {
		key, err := keyFromWire(k)
		if err != nil {
			return Delta{}, fmt.Errorf("removed frontend %d: %w", i, err)
		}
		d.RemovedFrontends = append(d.RemovedFrontends, key)
	}
	return d, d.routesFromWire(r)
}

func (d *Delta) routesFromWire(r *wire.ApplyRequest) error {
	for _, w := range r.GetRoutes() {
		to, err := PrefixFromWire(w.GetDestination())
		if err != nil {
			return fmt.Errorf("route: %w", err)
		}
		gateway, err := addressFromWire(w.GetGateway())
		if err != nil {
			return fmt.Errorf("route to %s: gateway: %w", to, err)
		}
		d.Routes = append(d.Routes, Route{Destination: to, Gateway: gateway})
	}
	for _, w := range r.GetRemovedRoutes() {
		to, err := PrefixFromWire(w)
		if err != nil {
			return fmt.Errorf("removed route: %w", err)
		}
		d.RemovedRoutes = append(d.RemovedRoutes, to)
	}
	return nil
}

func routesToWire(routes []Route) []*wire.Route {
	out := make([]*wire.Route, 0, len(routes))
	for _, r := range routes {
		out = append(out, &wire.Route{Destination: PrefixToWire(r.Destination), Gateway: r.Gateway.AsSlice()})
	}
	return out
}

// PrefixToWire returns a valid prefix in its wire form.
func PrefixToWire(p netip.Prefix) *wire.Prefix {
	return &wire.Prefix{Address: p.Addr().AsSlice(), Bits: uint32(p.Bits())} //nolint:gosec // 0..128
}

// PrefixFromWire reads a prefix.
func PrefixFromWire(w *wire.Prefix) (netip.Prefix, error) {
	address, err := addressFromWire(w.GetAddress())
	if err != nil {
		return netip.Prefix{}, err
	}
	if w.GetBits() > uint32(address.BitLen()) { //nolint:gosec // 32 or 128
		return netip.Prefix{}, fmt.Errorf("%s/%d: too many bits", address, w.GetBits())
	}
	return netip.PrefixFrom(address, int(w.GetBits())), nil
}

func groupsToWire(groups []Group) []*wire.Group {
	out := make([]*wire.Group, 0, len(groups))
	for _, g := range groups {
		w := &wire.Group{Name: g.Name, Members: make([]*wire.Member, 0, len(g.Members))}
		for _, m := range g.Members {
			w.Members = append(w.Members, &wire.Member{
				Address: m.Address.AsSlice(), Weight: uint32(m.Weight), Node: m.Node, //nolint:gosec // Validate bounds it
				CheckAddress: m.CheckAddress.AsSlice(),
			})
		}
		if g.Check != nil {
			w.Check = &wire.Check{Port: uint32(g.Check.Port), Path: g.Check.Path}
		}
		out = append(out, w)
	}
	return out
}

func frontendsToWire(frontends []Frontend) []*wire.Frontend {
	out := make([]*wire.Frontend, 0, len(frontends))
	for _, f := range frontends {
		w := &wire.Frontend{
			Key: keyToWire(f.Key()), Service: f.Service, Group: f.Group,
			BackendPort: uint32(f.BackendPort), Snat: string(f.SNAT),
			AffinitySeconds: uint32(f.Affinity / time.Second), MaxConnections: f.MaxConnections, //nolint:gosec // Validate bounds it
			Routed: f.Routed,
		}
		for _, r := range f.SourceRanges {
			w.SourceRanges = append(w.SourceRanges, PrefixToWire(r))
		}
		out = append(out, w)
	}
	return out
}

func keyToWire(k Key) *wire.Key {
	return &wire.Key{Address: k.Address.AsSlice(), Protocol: string(k.Protocol), Port: uint32(k.Port)}
}

func groupFromWire(w *wire.Group) (Group, error) {
	g := Group{Name: w.GetName()}
	for _, m := range w.GetMembers() {
		address, err := addressFromWire(m.GetAddress())
		if err != nil {
			return Group{}, fmt.Errorf("member %q: %w", m.GetNode(), err)
		}
		if m.GetWeight() > MaxWeight {
			return Group{}, fmt.Errorf("member %s: weight %d is above %d", address, m.GetWeight(), MaxWeight)
		}
		check, err := optionalAddressFromWire(m.GetCheckAddress())
		if err != nil {
			return Group{}, fmt.Errorf("member %q: check address: %w", m.GetNode(), err)
		}
		g.Members = append(g.Members, Member{Address: address, Weight: int(m.GetWeight()), Node: m.GetNode(), CheckAddress: check})
	}
	if c := w.GetCheck(); c != nil {
		port, err := portFromWire(c.GetPort())
		if err != nil {
			return Group{}, fmt.Errorf("check: %w", err)
		}
		g.Check = &Check{Port: port, Path: c.GetPath()}
	}
	return g, nil
}

func frontendFromWire(w *wire.Frontend) (Frontend, error) {
	key, err := keyFromWire(w.GetKey())
	if err != nil {
		return Frontend{}, err
	}
	backend, err := portFromWire(w.GetBackendPort())
	if err != nil {
		return Frontend{}, fmt.Errorf("backend: %w", err)
	}
	f := Frontend{
		Address: key.Address, Protocol: key.Protocol, Port: key.Port,
		Service: w.GetService(), Group: w.GetGroup(), BackendPort: backend, SNAT: SNAT(w.GetSnat()),
		Affinity: time.Duration(w.GetAffinitySeconds()) * time.Second, MaxConnections: w.GetMaxConnections(), Routed: w.GetRouted(),
	}
	for _, r := range w.GetSourceRanges() {
		p, err := PrefixFromWire(r)
		if err != nil {
			return Frontend{}, fmt.Errorf("source range: %w", err)
		}
		f.SourceRanges = append(f.SourceRanges, p)
	}
	return f, nil
}

func keyFromWire(w *wire.Key) (Key, error) {
	address, err := addressFromWire(w.GetAddress())
	if err != nil {
		return Key{}, err
	}
	port, err := portFromWire(w.GetPort())
	if err != nil {
		return Key{}, err
	}
	return Key{Address: address, Protocol: internProtocol(w.GetProtocol()), Port: port}, nil
}

// internProtocol avoids keeping a string for each of many frontends.
func internProtocol(s string) Protocol {
	switch s {
	case "TCP":
		return TCP
	case "UDP":
		return UDP
	case "SCTP":
		return SCTP
	}
	return Protocol(s)
}

func addressFromWire(b []byte) (netip.Addr, error) {
	address, ok := netip.AddrFromSlice(b)
	if !ok {
		return netip.Addr{}, fmt.Errorf("address of %d bytes", len(b))
	}
	return address, nil
}

func portFromWire(n uint32) (uint16, error) {
	if n > math.MaxUint16 {
		return 0, fmt.Errorf("port %d is above %d", n, math.MaxUint16)
	}
	return uint16(n), nil
}

// optionalAddressFromWire takes no bytes for no address.
func optionalAddressFromWire(b []byte) (netip.Addr, error) {
	if len(b) == 0 {
		return netip.Addr{}, nil
	}
	return addressFromWire(b)
}
