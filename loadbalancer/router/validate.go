package router

import (
	"fmt"
	"net/netip"
	"regexp"
	"time"
)

// Bounds of a document. They protect the router's memory and the time of one
// transaction, and are far above what one router is meant for.
const (
	MaxFrontends        = 200_000
	MaxGroups           = 50_000
	MaxMembers          = 1_024   // of one group
	MaxMembersTotal     = 500_000 // of all groups
	MaxSourceRanges     = 1_024   // of one frontend
	MaxSourceRangeTotal = 100_000 // of all frontends
	MaxWeight           = 1_000
	// MaxAffinity is Kubernetes' own.
	MaxAffinity = 24 * time.Hour
	// MaxConnectionLimit keeps what one new connection costs small: those that are
	// counted are looked at again and again.
	MaxConnectionLimit = 1_000_000
	maxName            = 253
	maxService         = 320
	maxPath            = 256
)

var clusterName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// plain reports whether a text is printable ASCII without spaces and not too
// long. It runs for each of many thousand frontends at every push.
func plain(s string, most int) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return len(s) <= most
}

// ValidCluster reports whether a name can be a cluster's: a DNS label.
func ValidCluster(name string) bool { return clusterName.MatchString(name) }

// Validate judges a normalized document as a whole: sorted, unique, in bounds,
// groups known, families matching. The error is an *InvalidError and names the
// frontend and its Service where one is at fault.
func (d Document) Validate() error {
	if err := d.validateNames(); err != nil {
		return err
	}
	families, err := d.validateGroups()
	if err != nil {
		return err
	}
	if err := d.validateFrontends(families); err != nil {
		return err
	}
	return d.validateRoutes()
}

func (d Document) validateNames() error {
	if !ValidCluster(d.Cluster) {
		return invalid(Frontend{}, "cluster %q is not a DNS label", d.Cluster)
	}
	if !plain(d.Identity, maxName) {
		return invalid(Frontend{}, "identity is longer than %d bytes or not printable ASCII", maxName)
	}
	return nil
}

// family is what the members of a group have in common.
type family uint8

const (
	noFamily family = iota
	ipv4
	ipv6
)

func familyOf(a netip.Addr) family {
	switch {
	case a.Is4():
		return ipv4
	case a.Is6():
		return ipv6
	default:
		return noFamily
	}
}

func (f family) String() string {
	return [...]string{"no family", "IPv4", "IPv6"}[f]
}

func (d Document) validateGroups() (map[string]family, error) {
	if len(d.Groups) > MaxGroups {
		return nil, invalid(Frontend{}, "%d groups, at most %d", len(d.Groups), MaxGroups)
	}
	families := make(map[string]family, len(d.Groups))
	total := 0
	for i, g := range d.Groups {
		if i > 0 && d.Groups[i-1].Name >= g.Name {
			return nil, invalid(Frontend{}, "group %q is not sorted or not unique", g.Name)
		}
		if err := g.Validate(); err != nil {
			return nil, invalid(Frontend{}, "group %q: %v", g.Name, err)
		}
		if total += len(g.Members); total > MaxMembersTotal {
			return nil, invalid(Frontend{}, "more than %d members in all groups", MaxMembersTotal)
		}
		families[g.Name] = g.family()
	}
	return families, nil
}

// family is what all members of a valid group have; none without members.
func (g Group) family() family {
	if len(g.Members) == 0 {
		return noFamily
	}
	return familyOf(g.Members[0].Address)
}

// Validate judges one normalized group by itself.
func (g Group) Validate() error {
	if g.Name == "" || !plain(g.Name, maxName) {
		return fmt.Errorf("its name is empty, longer than %d bytes or not printable ASCII", maxName)
	}
	if len(g.Members) > MaxMembers {
		return fmt.Errorf("%d members, at most %d", len(g.Members), MaxMembers)
	}
	for i, m := range g.Members {
		if err := m.validate(); err != nil {
			return fmt.Errorf("member %s (%s): %w", m.Address, m.Node, err)
		}
		if i == 0 {
			continue
		}
		if g.Members[i-1].Address.Compare(m.Address) >= 0 {
			return fmt.Errorf("member %s is not sorted or not unique", m.Address)
		}
		if familyOf(m.Address) != familyOf(g.Members[0].Address) {
			return fmt.Errorf("member %s is of another family than %s", m.Address, g.Members[0].Address)
		}
	}
	if g.Check == nil {
		return nil
	}
	if c := *g.Check; c.Port == 0 || c.Path == "" || c.Path[0] != '/' || !plain(c.Path, maxPath) {
		return fmt.Errorf("check :%d%q needs a port and a path of at most %d bytes that starts with /", c.Port, c.Path, maxPath)
	}
	return nil
}

func (m Member) validate() error {
	if err := usable(m.Address); err != nil {
		return err
	}
	if m.CheckAddress.IsValid() {
		if err := usable(m.CheckAddress); err != nil {
			return fmt.Errorf("check address %s: %w", m.CheckAddress, err)
		}
	}
	if m.Weight < 1 || m.Weight > MaxWeight {
		return fmt.Errorf("weight %d is not in 1..%d", m.Weight, MaxWeight)
	}
	if !plain(m.Node, maxName) {
		return fmt.Errorf("node name is longer than %d bytes or not printable ASCII", maxName)
	}
	return nil
}

// usable refuses addresses that no packet can be sent to from elsewhere.
func usable(a netip.Addr) error {
	switch {
	case !a.IsValid():
		return fmt.Errorf("no address")
	case a.Is4In6() || a.Zone() != "":
		return fmt.Errorf("address is mapped or has a zone")
	case a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || a == broadcast:
		return fmt.Errorf("address is not a global unicast address")
	}
	return nil
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

func (d Document) validateFrontends(families map[string]family) error {
	if len(d.Frontends) > MaxFrontends {
		return invalid(Frontend{}, "%d frontends, at most %d", len(d.Frontends), MaxFrontends)
	}
	total := 0
	for i, f := range d.Frontends {
		if err := f.Validate(); err != nil {
			return invalid(f, "%v", err)
		}
		if i > 0 {
			switch c := d.Frontends[i-1].Key().Compare(f.Key()); {
			case c == 0:
				return invalid(f, "Service %s has the same frontend", d.Frontends[i-1].Service)
			case c > 0:
				return invalid(f, "frontends are not sorted")
			}
			if err := together(d.Frontends[i-1], f); err != nil {
				return err
			}
		}
		family, known := families[f.Group]
		if err := useOf(f, family, known); err != nil {
			return err
		}
		if total += len(f.SourceRanges); total > MaxSourceRangeTotal {
			return invalid(f, "more than %d source ranges in all frontends", MaxSourceRangeTotal)
		}
	}
	return nil
}

// useOf judges that a frontend uses its group.
func useOf(f Frontend, members family, known bool) error {
	if !known {
		return invalid(f, "group %q is not in the document", f.Group)
	}
	if members != noFamily && members != familyOf(f.Address) && !f.Routed {
		return invalid(f, "the members of group %q are %s", f.Group, members)
	}
	return nil
}

// together judges that two frontends, one after the other, can be in one document.
func together(o, f Frontend) error {
	if o.Address == f.Address && o.Routed != f.Routed {
		return invalid(f, "one frontend of %s is routed and another is translated, of Service %s", f.Address, o.Service)
	}
	return nil
}

// Validate judges one normalized frontend by itself, so that the caller can leave
// out a Service that would have the whole document refused.
func (f Frontend) Validate() error {
	if err := usable(f.Address); err != nil {
		return err
	}
	switch f.Protocol {
	case TCP, UDP, SCTP:
	default:
		return fmt.Errorf("protocol %q is not TCP, UDP or SCTP", string(f.Protocol))
	}
	if f.Port == 0 || f.BackendPort == 0 {
		return fmt.Errorf("port %d or backend port %d is 0", f.Port, f.BackendPort)
	}
	switch f.SNAT {
	case SNATAuto, SNATAlways, SNATNever:
	default:
		return fmt.Errorf("snat %q is not auto, always or never", string(f.SNAT))
	}
	if !plain(f.Service, maxService) {
		return fmt.Errorf("the Service's name is longer than %d bytes or not printable ASCII", maxService)
	}
	if f.Affinity < 0 || f.Affinity > MaxAffinity || f.Affinity%time.Second != 0 {
		return fmt.Errorf("affinity %s is not whole seconds up to %s", f.Affinity, MaxAffinity)
	}
	if f.MaxConnections > MaxConnectionLimit {
		return fmt.Errorf("limit of %d connections, at most %d", f.MaxConnections, MaxConnectionLimit)
	}
	if f.Routed && (f.BackendPort != f.Port || f.Affinity != 0 || f.SNAT != SNATNever) {
		return fmt.Errorf("it is routed, and still has port %d on the backend, affinity %s or snat %s", f.BackendPort, f.Affinity, f.SNAT)
	}
	return f.validateRanges()
}

func (f Frontend) validateRanges() error {
	if len(f.SourceRanges) > MaxSourceRanges {
		return fmt.Errorf("%d source ranges, at most %d", len(f.SourceRanges), MaxSourceRanges)
	}
	for i, r := range f.SourceRanges {
		if !r.IsValid() || r.Masked() != r || r.Addr().Is4In6() {
			return fmt.Errorf("source range %s is not a masked prefix", r)
		}
		if i > 0 && comparePrefix(f.SourceRanges[i-1], r) >= 0 {
			return fmt.Errorf("source range %s is not sorted or not unique", r)
		}
	}
	return nil
}
