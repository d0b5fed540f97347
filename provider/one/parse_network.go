package one

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/onelb/onelb/ipam"
)

// The documents are parsed here and not by goca's schemas: there the holders of
// a lease are ints, so that a lease of virtual router 0 looks like one of VM 0,
// state 6 is unknown, and a damaged number is an error that names no field.
type xmlNetwork struct {
	XMLName  xml.Name
	ID       *int     `xml:"ID"`
	Name     string   `xml:"NAME"`
	Owner    string   `xml:"UNAME"`
	State    string   `xml:"STATE"`
	Parent   string   `xml:"PARENT_NETWORK_ID"`
	Template xmlAttrs `xml:"TEMPLATE"`
	Ranges   []xmlAR  `xml:"AR_POOL>AR"`
}

type xmlAR struct {
	ID     *int       `xml:"AR_ID"`
	Kind   string     `xml:"TYPE"`
	IP     string     `xml:"IP"`
	IP6    string     `xml:"IP6"`
	MAC    string     `xml:"MAC"`
	Size   int        `xml:"SIZE"`
	Used   int        `xml:"USED_LEASES"`
	Parent string     `xml:"PARENT_NETWORK_AR_ID"`
	Shared string     `xml:"SHARED"`
	Leases []xmlLease `xml:"LEASES>LEASE"`
	Others []xmlOther `xml:",any"`
}

// xmlOther is any further element of a range.
type xmlOther struct {
	XMLName xml.Name
	Value   string `xml:",chardata"`
}

// rangeOwn are elements of a range that OpenNebula manages itself and keeps
// whatever one.vn.update_ar says. GLOBAL_PREFIX, ULA_PREFIX and PREFIX_LENGTH are
// not among them: to be kept they have to be sent again.
var rangeOwn = []string{
	"NEXT_INDEX", "SHARED", "ALLOCATED", "MAC_END", "IP_END", "IP6_END", "IP6_ULA", "IP6_ULA_END", "IP6_GLOBAL", "IP6_GLOBAL_END",
	"PARENT_NETWORK", "LEASES",
}

// attributes are what one.vn.update_ar would drop; nil: nothing.
func (x *xmlAR) attributes() map[string]string {
	var out map[string]string
	for _, o := range x.Others {
		if slices.Contains(rangeOwn, o.XMLName.Local) {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[o.XMLName.Local] = o.Value
	}
	return out
}

type xmlLease struct {
	IP      string `xml:"IP"`
	IP6     string `xml:"IP6"`
	MAC     string `xml:"MAC"`
	VM      *int   `xml:"VM"`
	VNet    *int   `xml:"VNET"`
	VRouter *int   `xml:"VROUTER"`
}

// networkStates are OpenNebula's names by number.
var networkStates = []string{"INIT", "READY", "LOCK_CREATE", "LOCK_DELETE", "DONE", "ERROR", "UPDATE_FAILURE"}

// parseNetwork reads the document of one.vn.info.
func parseNetwork(body []byte) (ipam.Network, error) {
	var x xmlNetwork
	if err := xml.Unmarshal(body, &x); err != nil {
		return ipam.Network{}, err
	}
	if x.XMLName.Local != "VNET" || x.ID == nil || *x.ID < 0 {
		return ipam.Network{}, fmt.Errorf("no virtual network but a document <%s>", x.XMLName.Local)
	}
	n := ipam.Network{ID: ipam.NetworkID(*x.ID), Name: x.Name, Owner: x.Owner, Attributes: x.Template.singles}
	if n.Attributes == nil {
		n.Attributes = map[string]string{}
	}
	state, err := strconv.Atoi(strings.TrimSpace(x.State))
	if err != nil {
		return ipam.Network{}, fmt.Errorf("STATE: %w", err)
	}
	// oned holds and reserves in UPDATE_FAILURE too.
	n.Ready = state == 1 || state == 6
	n.State = stateName(networkStates, state)
	parent, err := optionalID(x.Parent)
	if err != nil {
		return ipam.Network{}, fmt.Errorf("PARENT_NETWORK_ID: %w", err)
	}
	n.Parent = ipam.NetworkID(parent)
	for i := range x.Ranges {
		r, err := x.Ranges[i].parse()
		if err != nil {
			return ipam.Network{}, err
		}
		n.Ranges = append(n.Ranges, r)
	}
	slices.SortFunc(n.Ranges, func(a, b ipam.Range) int { return cmp.Compare(a.ID, b.ID) })
	return n, nil
}

func (x *xmlAR) parse() (ipam.Range, error) {
	if x.ID == nil || *x.ID < 0 || x.Size < 0 || x.Used < 0 {
		return ipam.Range{}, fmt.Errorf("an address range has no ID, or a negative number")
	}
	r := ipam.Range{ID: ipam.RangeID(*x.ID), Kind: ipam.RangeKind(x.Kind), Size: x.Size, Used: x.Used, Attributes: x.attributes(), Shared: isYes(x.Shared)}
	parent, err := optionalID(x.Parent)
	if err != nil {
		return r, fmt.Errorf("range %d: PARENT_NETWORK_AR_ID: %w", r.ID, err)
	}
	r.ParentRange = ipam.RangeID(parent)
	if r.First4, r.First6, err = staticAddresses(r.Kind, x.IP, x.IP6); err != nil {
		return r, fmt.Errorf("range %d: %w", r.ID, err)
	}
	if isSLAAC(r.Kind) {
		if r.First6, err = x.slaac(); err != nil {
			r.NoIPv6 = err.Error()
		}
	}
	users := map[string]string{} // thousands of leases have one user
	for _, l := range x.Leases {
		ip4, ip6, err := l.addresses(r)
		if err != nil {
			return r, fmt.Errorf("range %d: lease: %w", r.ID, err)
		}
		if !ip4.IsValid() && !ip6.IsValid() {
			continue // a MAC address, and nothing else
		}
		user, held := l.user()
		if known, ok := users[user]; ok {
			user = known
		}
		users[user] = user
		r.Leases = append(r.Leases, ipam.Lease{IP4: ip4, IP6: ip6, Held: held, User: user})
	}
	slices.SortFunc(r.Leases, compareLeases)
	return r, nil
}

// addresses parses those of a lease in r.
func (l xmlLease) addresses(r ipam.Range) (ip4, ip6 netip.Addr, err error) {
	if ip4, ip6, err = staticAddresses(r.Kind, l.IP, l.IP6); err != nil || !isSLAAC(r.Kind) || !r.First6.IsValid() || l.MAC == "" {
		return ip4, ip6, err
	}
	mac, err := parseMAC(l.MAC)
	if err != nil {
		return ip4, ip6, err
	}
	return ip4, slaacAddress(r.First6, mac), nil
}

// staticAddresses parses the addresses that OpenNebula keeps for a range of that
// kind. What it makes of MAC addresses is not among them.
func staticAddresses(kind ipam.RangeKind, ip, ip6 string) (ip4, addr6 netip.Addr, err error) {
	if kind == ipam.RangeIP4 || kind == ipam.RangeIP4SLAAC || kind == ipam.RangeIP4IP6 {
		if ip4, err = parseAddr(ip); err == nil && ip4.IsValid() && !ip4.Is4() {
			err = fmt.Errorf("IP %q is not IPv4", ip)
		}
	}
	if kind == ipam.RangeIP6 || kind == ipam.RangeIP4IP6 {
		if err == nil {
			addr6, err = parseAddr(ip6)
		}
		if err == nil && addr6.IsValid() && !addr6.Is6() {
			err = fmt.Errorf("IP6 %q is not IPv6", ip6)
		}
	}
	return ip4, addr6, err
}

// parseAddr takes an absent address for an invalid one.
func parseAddr(s string) (netip.Addr, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(s)
	if err == nil && a.Zone() != "" {
		err = fmt.Errorf("address %q has a zone", s)
	}
	return a.Unmap(), err
}

// user says who has the lease. Only VM -1 is a hold.
func (l xmlLease) user() (user string, held bool) {
	switch {
	case l.VM != nil && *l.VM == -1:
		return "", true
	case l.VM != nil:
		return fmt.Sprintf("VM %d", *l.VM), false
	case l.VNet != nil:
		return fmt.Sprintf("VNET %d", *l.VNet), false
	case l.VRouter != nil:
		return fmt.Sprintf("VROUTER %d", *l.VRouter), false
	}
	return "unknown", false
}

// compareLeases orders by address; the leases of one address in a SHARED range by user.
func compareLeases(a, b ipam.Lease) int {
	return cmp.Or(a.IP4.Compare(b.IP4), a.IP6.Compare(b.IP6), cmp.Compare(a.User, b.User))
}

// poolEntry is what a pool tells about a network.
type poolEntry struct {
	id         ipam.NetworkID
	name       string
	owner      string
	parent     ipam.NetworkID
	attributes map[string]string
}

// parseReservations reads the reservations in the document of one.vnpool.info,
// sorted by ID.
func parseReservations(body []byte) ([]ipam.Reservation, error) {
	var x struct {
		XMLName  xml.Name
		Networks []xmlNetwork `xml:"VNET"`
	}
	if err := xml.Unmarshal(body, &x); err != nil {
		return nil, err
	}
	if x.XMLName.Local != "VNET_POOL" {
		return nil, fmt.Errorf("no pool of virtual networks but a document <%s>", x.XMLName.Local)
	}
	var out []ipam.Reservation
	for _, n := range x.Networks {
		parent, err := optionalID(n.Parent)
		switch {
		case n.ID == nil || *n.ID < 0:
			return nil, fmt.Errorf("virtual network %q has no ID", n.Name)
		case err != nil:
			return nil, fmt.Errorf("virtual network %d: PARENT_NETWORK_ID: %w", *n.ID, err)
		case ipam.NetworkID(parent) == ipam.NoNetwork:
			continue
		}
		attributes := n.Template.singles
		if attributes == nil {
			attributes = map[string]string{}
		}
		out = append(out, ipam.Reservation{ID: ipam.NetworkID(*n.ID), Name: n.Name, Attributes: attributes})
	}
	slices.SortFunc(out, func(a, b ipam.Reservation) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

// parseNetworkPool reads the document of one.vnpool.info, sorted by ID.
func parseNetworkPool(body []byte) ([]poolEntry, error) {
	var x struct {
		XMLName  xml.Name
		Networks []struct {
			ID    *int   `xml:"ID"`
			Name  string `xml:"NAME"`
			Owner string `xml:"UNAME"`

			Parent   string   `xml:"PARENT_NETWORK_ID"`
			Template xmlAttrs `xml:"TEMPLATE"`
		} `xml:"VNET"`
	}
	if err := xml.Unmarshal(body, &x); err != nil {
		return nil, err
	}
	if x.XMLName.Local != "VNET_POOL" {
		return nil, fmt.Errorf("no pool of virtual networks but a document <%s>", x.XMLName.Local)
	}
	out := make([]poolEntry, 0, len(x.Networks))
	for _, n := range x.Networks {
		if n.ID == nil || *n.ID < 0 {
			return nil, fmt.Errorf("virtual network %q has no ID", n.Name)
		}
		parent, err := optionalID(n.Parent)
		if err != nil {
			return nil, fmt.Errorf("virtual network %d: PARENT_NETWORK_ID: %w", *n.ID, err)
		}
		out = append(out, poolEntry{
			id: ipam.NetworkID(*n.ID), name: n.Name, owner: n.Owner, parent: ipam.NetworkID(parent), attributes: n.Template.singles,
		})
	}
	slices.SortFunc(out, func(a, b poolEntry) int { return cmp.Compare(a.id, b.id) })
	return out, nil
}
