package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/onelb/onelb/test/lab/ns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Host is a machine of the lab: a network namespace with links to the L2
// networks. It is also a client: see HTTPGet, UDP, Ping, Probe and WhoHas.
type Host struct {
	*ns.Namespace
	short string
	links map[string]*Link // by L2 name; complete before Start returns
}

// ShortName is the host's name inside the lab, such as node-1.
func (h *Host) ShortName() string { return h.short }

// Link is the host's link to an L2 network, nil if it has none there.
func (h *Host) Link(l2 string) *Link { return h.links[l2] }

// Addrs are the host's own addresses on an L2 network, IPv4 first.
func (h *Host) Addrs(l2 string) []netip.Addr {
	if link := h.links[l2]; link != nil {
		return link.addrs
	}
	return nil
}

// CutLinks cuts all of the host's links; HealLinks puts them back.
func (h *Host) CutLinks() error { return h.eachLink((*Link).Cut) }

// HealLinks undoes CutLinks.
func (h *Host) HealLinks() error { return h.eachLink((*Link).Heal) }

func (h *Host) eachLink(f func(*Link) error) error {
	var errs []error
	for _, link := range h.links {
		errs = append(errs, f(link))
	}
	return errors.Join(errs...)
}

// newHost makes a namespace named for the lab.
func (l *Lab) newHost(short string, forwarding bool) (*Host, error) {
	space, err := ns.New(l.prefix() + short)
	if err != nil {
		return nil, err
	}
	h := &Host{Namespace: space, short: short, links: map[string]*Link{}}
	settings := [][2]string{
		{"net/ipv6/conf/all/accept_ra", "0"},
		{"net/ipv6/conf/default/accept_ra", "0"},
		// Strict reverse path filtering, as on hardened machines; a new namespace
		// has none and would let asymmetric paths pass that fail in production.
		{"net/ipv4/conf/all/rp_filter", "1"},
		{"net/ipv4/conf/default/rp_filter", "1"},
	}
	if forwarding {
		settings = append(settings,
			[2]string{"net/ipv4/ip_forward", "1"},
			[2]string{"net/ipv6/conf/all/forwarding", "1"},
			[2]string{"net/ipv6/conf/default/forwarding", "1"})
	}
	for _, s := range settings {
		if err := h.Sysctl(s[0], s[1]); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// configure adds addresses to an interface and sets it up.
func (h *Host) configure(dev string, prefixes ...netip.Prefix) error {
	nl, err := h.Netlink()
	if err != nil {
		return err
	}
	defer nl.Close()
	link, err := nl.LinkByName(dev)
	if err != nil {
		return fmt.Errorf("interface %s of %s: %w", dev, h.short, err)
	}
	for _, p := range prefixes {
		a := &netlink.Addr{IPNet: ipNet(p)}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD // nobody else has it: do not wait a second
		}
		if err := nl.AddrAdd(link, a); err != nil {
			return fmt.Errorf("address %s on %s of %s: %w", p, dev, h.short, err)
		}
	}
	if err := nl.LinkSetUp(link); err != nil {
		return fmt.Errorf("set up %s of %s: %w", dev, h.short, err)
	}
	return nil
}

// route adds a route to dst. An invalid via means that dst is on the link.
func (h *Host) route(dst netip.Prefix, dev string, via netip.Addr) error {
	nl, err := h.Netlink()
	if err != nil {
		return err
	}
	defer nl.Close()
	link, err := nl.LinkByName(dev)
	if err != nil {
		return fmt.Errorf("interface %s of %s: %w", dev, h.short, err)
	}
	r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(dst)}
	if via.IsValid() {
		r.Gw = net.IP(via.AsSlice())
	} else {
		r.Scope = netlink.SCOPE_LINK
	}
	if err := nl.RouteReplace(r); err != nil {
		return fmt.Errorf("route %s via %s on %s: %w", dst, via, h.short, err)
	}
	return nil
}

var (
	anyV4 = netip.MustParsePrefix("0.0.0.0/0")
	anyV6 = netip.MustParsePrefix("::/0")
)

// defaultRoute sends everything else to the gateways, one for each family.
func (h *Host) defaultRoute(dev string, gateways []netip.Addr) error {
	for _, gw := range gateways {
		dst := anyV4
		if gw.Is6() {
			dst = anyV6
		}
		if err := h.route(dst, dev, gw); err != nil {
			return err
		}
	}
	return nil
}
