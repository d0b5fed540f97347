package onesim

import (
	"fmt"
	"net/netip"
	"slices"
)

// Snapshot is the state as a test or an operator wants to see it.
type Snapshot struct {
	Networks []VNetSnapshot    `json:"networks"`
	VMs      []VMSnapshot      `json:"vms"`
	Routers  []VRouterSnapshot `json:"virtualRouters"`
	Users    []UserSnapshot    `json:"users"`
}

// UserSnapshot is an account.
type UserSnapshot struct {
	ID     int            `json:"id"`
	Name   string         `json:"name"`
	Groups []string       `json:"groups"`
	Leases map[string]int `json:"leases,omitempty"` // used by the quota, by network name
}

// VNetSnapshot is a network; Parent is -1 unless it is a reservation.
type VNetSnapshot struct {
	ID         int               `json:"id"`
	Name       string            `json:"name"`
	Owner      string            `json:"owner"`
	State      string            `json:"state"`
	Parent     int               `json:"parent"`
	Broken     bool              `json:"broken,omitempty"`
	Attributes map[string]string `json:"attributes"` // single attributes of the template
	Ranges     []RangeSnapshot   `json:"ranges"`
}

// RangeSnapshot is an address range with its leases.
type RangeSnapshot struct {
	ID         int               `json:"id"`
	Type       string            `json:"type"`
	First      netip.Addr        `json:"first,omitzero"`
	First6     netip.Addr        `json:"first6,omitzero"`
	Size       int               `json:"size"`
	Shared     bool              `json:"shared,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"` // free attributes
	Leases     []LeaseSnapshot   `json:"leases,omitempty"`
}

// LeaseSnapshot is an address in use. Owner is "hold", "VM 3", "VNET 8" or "VROUTER 0".
type LeaseSnapshot struct {
	IP    netip.Addr `json:"ip,omitzero"`
	IP6   netip.Addr `json:"ip6,omitzero"`
	MAC   string     `json:"mac,omitempty"`
	Owner string     `json:"owner"`
}

// VMSnapshot is a VM. State is what oned calls it in error texts: RUNNING, POWEROFF, HOTPLUG_NIC.
type VMSnapshot struct {
	ID    int           `json:"id"`
	Name  string        `json:"name"`
	Owner string        `json:"owner"`
	State string        `json:"state"`
	NICs  []NICSnapshot `json:"nics"`
}

// NICSnapshot is a NIC of a VM, or of a virtual router with its floating addresses.
type NICSnapshot struct {
	ID      int        `json:"id"`
	Network int        `json:"network"`
	Alias   bool       `json:"alias,omitempty"`
	IP      netip.Addr `json:"ip,omitzero"`
	IP6     netip.Addr `json:"ip6,omitzero"`
	MAC     string     `json:"mac,omitempty"`
}

// VRouterSnapshot is a virtual router.
type VRouterSnapshot struct {
	ID   int           `json:"id"`
	Name string        `json:"name"`
	VMs  []int         `json:"vms"`
	NICs []NICSnapshot `json:"nics"`
}

// VNet is a network as it is now, also one that oned could not load.
func (s *Sim) VNet(id int) (VNetSnapshot, error) {
	s.catchUp()
	s.mu.RLock()
	defer s.mu.RUnlock()
	v := s.vnets.byID[id]
	if v == nil {
		return VNetSnapshot{}, fmt.Errorf("network %d: %w", id, ErrNotFound)
	}
	return s.snapVNet(v), nil
}

// VNetNamed finds a network by its owner's name and its own.
func (s *Sim) VNetNamed(owner, name string) (VNetSnapshot, error) {
	s.catchUp()
	s.mu.RLock()
	defer s.mu.RUnlock()
	u, err := s.owner(owner)
	if err != nil {
		return VNetSnapshot{}, err
	}
	v, ok := s.vnets.named(u.id, name)
	if !ok {
		return VNetSnapshot{}, fmt.Errorf("network %q of %s: %w", name, u.name, ErrNotFound)
	}
	return s.snapVNet(v), nil
}

// VM is a VM as it is now.
func (s *Sim) VM(id int) (VMSnapshot, error) {
	s.catchUp()
	s.mu.RLock()
	defer s.mu.RUnlock()
	v := s.vms.byID[id]
	if v == nil {
		return VMSnapshot{}, fmt.Errorf("VM %d: %w", id, ErrNotFound)
	}
	return s.snapVM(v), nil
}

// Holds are the addresses held in a network, both of a dual-stack pair, sorted. MAC-only holds are left out.
func (s *Sim) Holds(vnetID int) []netip.Addr {
	snap, err := s.VNet(vnetID)
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, r := range snap.Ranges {
		for _, l := range r.Leases {
			for _, a := range []netip.Addr{l.IP, l.IP6} {
				if l.Owner == "hold" && a.IsValid() {
					out = append(out, a)
				}
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// Context has the variables of a VM's context.
func (s *Sim) Context(id int) (map[string]string, error) {
	s.catchUp()
	s.mu.RLock()
	defer s.mu.RUnlock()
	v := s.vms.byID[id]
	if v == nil || v.context == nil {
		return nil, fmt.Errorf("context of VM %d: %w", id, ErrNotFound)
	}
	out := map[string]string{}
	context := s.contextOf(v)
	for _, p := range context.pairs {
		out[p.key] = p.value
	}
	return out, nil
}

// Reservations are the ids of the reservations of a network, sorted.
func (s *Sim) Reservations(parent int) []int {
	s.catchUp()
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []int
	for _, id := range s.vnets.sorted() {
		if s.vnets.byID[id].parent == parent {
			out = append(out, id)
		}
	}
	return out
}

// Snapshot is the whole state.
func (s *Sim) Snapshot() Snapshot {
	s.catchUp()
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out Snapshot
	for _, id := range s.vnets.sorted() {
		out.Networks = append(out.Networks, s.snapVNet(s.vnets.byID[id]))
	}
	for _, id := range s.vms.sorted() {
		out.VMs = append(out.VMs, s.snapVM(s.vms.byID[id]))
	}
	for _, id := range s.vrouters.sorted() {
		out.Routers = append(out.Routers, snapVRouter(s.vrouters.byID[id]))
	}
	for _, id := range s.users.sorted() {
		out.Users = append(out.Users, s.snapUser(s.users.byID[id]))
	}
	return out
}

func (s *Sim) snapUser(u *user) UserSnapshot {
	out := UserSnapshot{ID: u.id, Name: u.name}
	for _, g := range u.groups {
		out.Groups = append(out.Groups, s.groupName(g))
	}
	for _, q := range u.quota.nets {
		if out.Leases == nil {
			out.Leases = map[string]int{}
		}
		name := "network " + itoa(q.net)
		if v := s.vnets.byID[q.net]; v != nil {
			name = v.name
		}
		out.Leases[name] = q.used
	}
	return out
}

func (s *Sim) snapVNet(v *vnet) VNetSnapshot {
	out := VNetSnapshot{
		ID: v.id, Name: v.name, Owner: s.userName(v.uid), State: v.state.String(), Parent: v.parent, Broken: v.broken(),
		Attributes: map[string]string{},
	}
	for i := range v.template.attrs {
		if a := &v.template.attrs[i]; !a.vector {
			out.Attributes[a.name] = a.value
		}
	}
	for _, ar := range v.ars {
		r := RangeSnapshot{
			ID: ar.id, Type: ar.typ, First: ar.ip, First6: ar.ip6, Size: ar.size, Shared: ar.shared, Attributes: pairMap(ar.custom),
		}
		for _, l := range ar.leases.list {
			snap := LeaseSnapshot{Owner: "hold"}
			snap.IP, snap.IP6, snap.MAC = addressesOf(ar.address(l.index), "")
			if l.owner != ownerHold {
				p := ownerPair(l.owner)
				snap.Owner = p.key + " " + p.value
			}
			r.Leases = append(r.Leases, snap)
		}
		out.Ranges = append(out.Ranges, r)
	}
	return out
}

func pairMap(pairs []pair) map[string]string {
	out := map[string]string{}
	for _, p := range pairs {
		out[p.key] = p.value
	}
	return out
}

// addressesOf reads the addresses among attributes with a prefix; a SLAAC address counts as IP6.
func addressesOf(pairs []pair, prefix string) (ip, ip6 netip.Addr, mac string) {
	for _, p := range pairs {
		switch p.key {
		case prefix + "IP":
			ip, _ = netip.ParseAddr(p.value)
		case prefix + "IP6", prefix + "IP6_GLOBAL":
			ip6, _ = netip.ParseAddr(p.value)
		case prefix + "MAC":
			mac = p.value
		}
	}
	return ip, ip6, mac
}

func (s *Sim) snapVM(v *vm) VMSnapshot {
	out := VMSnapshot{ID: v.id, Name: v.name, Owner: s.userName(v.uid), State: v.stateName()}
	for _, n := range v.nics {
		snap := NICSnapshot{ID: n.id, Network: n.net, Alias: n.alias}
		snap.IP, snap.IP6, snap.MAC = addressesOf(n.attrs.pairs, "")
		out.NICs = append(out.NICs, snap)
	}
	return out
}

func snapVRouter(r *vrouter) VRouterSnapshot {
	out := VRouterSnapshot{ID: r.id, Name: r.name, VMs: slices.Clone(r.vms)}
	for _, n := range r.nics {
		snap := NICSnapshot{ID: n.id, Network: n.net}
		snap.IP, snap.IP6, snap.MAC = addressesOf(n.attrs.pairs, "VROUTER_")
		out.NICs = append(out.NICs, snap)
	}
	return out
}
