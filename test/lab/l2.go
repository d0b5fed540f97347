package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/onelb/onelb/test/lab/ns"
	"github.com/vishvananda/netlink"
)

// The names of the L2 networks.
const (
	Public     = "public"
	Private    = "private"
	Management = "mgmt"
)

var (
	// ErrNoLink is returned when a host is not on the named network.
	ErrNoLink = errors.New("has no link to the network")
	// ErrNoNetwork is returned for the name of a network that the lab has not.
	ErrNoNetwork = errors.New("no such network in the lab")
)

// l2 is one network: a bridge in the switch namespace, and further bridges while
// it is partitioned.
type l2 struct {
	name     string
	abbrev   string // names ports: interface names have 15 characters at most
	space    *ns.Namespace
	prefixes []netip.Prefix

	mu     sync.Mutex       // guards all below, and the state of the links
	links  map[string]*Link // by host
	groups int              // bridges in use besides the first
}

func newL2(space *ns.Namespace, name, abbrev string, prefixes ...netip.Prefix) (*l2, error) {
	n := &l2{name: name, abbrev: abbrev, space: space, prefixes: prefixes, links: map[string]*Link{}}
	return n, n.addBridge(0)
}

// bridge is the name of the bridge of a partition group; 0 is the network itself.
func (n *l2) bridge(group int) string {
	if group == 0 {
		return "br-" + n.abbrev
	}
	return fmt.Sprintf("br-%s-%d", n.abbrev, group)
}

func (n *l2) addBridge(group int) error {
	nl, err := n.space.Netlink()
	if err != nil {
		return err
	}
	defer nl.Close()
	// Without a querier, snooping would stop multicast, and with it IPv6.
	off := false
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: n.bridge(group)}, MulticastSnooping: &off}
	if err := nl.LinkAdd(br); err != nil {
		return fmt.Errorf("add bridge %s: %w", br.Name, err)
	}
	if err := nl.LinkSetUp(br); err != nil {
		return fmt.Errorf("set up bridge %s: %w", br.Name, err)
	}
	return nil
}

// attach links a host to the network with an interface dev that has addrs.
func (n *l2) attach(h *Host, dev string, addrs []netip.Addr) error {
	link := &Link{host: h, net: n, dev: dev, addrs: addrs, port: h.short + "." + n.abbrev}
	nl, err := n.space.Netlink()
	if err != nil {
		return err
	}
	defer nl.Close()
	veth := &netlink.Veth{
		LinkAttrs:        netlink.LinkAttrs{Name: link.port},
		PeerName:         dev,
		PeerHardwareAddr: net.HardwareAddr(macFor(addrs)),
		PeerNamespace:    netlink.NsFd(h.FD()),
	}
	if err := nl.LinkAdd(veth); err != nil {
		return fmt.Errorf("link %s to %s: %w", h.short, n.name, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := link.connect(nl); err != nil {
		return err
	}
	if err := nl.LinkSetUp(veth); err != nil {
		return fmt.Errorf("set up port %s: %w", link.port, err)
	}
	n.links[h.short], h.links[n.name] = link, link
	return h.configure(dev, n.withLength(addrs)...)
}

// withLength turns addresses of the network into prefixes.
func (n *l2) withLength(addrs []netip.Addr) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range addrs {
		for _, p := range n.prefixes {
			if p.Contains(a) {
				out = append(out, netip.PrefixFrom(a, p.Bits()))
			}
		}
	}
	return out
}

// close ends the forwarders and removes the ports, and with each the host's end.
func (n *l2) close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	nl, err := n.space.Netlink()
	if err != nil {
		return err
	}
	defer nl.Close()
	var errs []error
	for _, link := range n.links {
		if link.forwarder != nil {
			errs = append(errs, link.forwarder.Close())
			link.forwarder = nil
		}
		port, err := nl.LinkByName(link.port)
		if err == nil {
			err = nl.LinkDel(port)
		}
		errs = append(errs, err)
	}
	n.links = map[string]*Link{}
	return errors.Join(errs...)
}
