package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/onelb/onelb/test/lab/wire"
	"github.com/vishvananda/netlink"
)

// Link is a host's cable to an L2 network, on which faults can be put.
//
// Faults act where the switch is, so the host does not notice them: it sees no
// loss of carrier, as a virtual machine does not when something beyond its
// hypervisor fails.
type Link struct {
	host  *Host
	net   *l2
	dev   string
	port  string // the switch's end of the veth pair
	addrs []netip.Addr

	// Guarded by net.mu.
	cut       bool
	group     int // partition group, 0 for none
	impair    wire.Impairment
	forwarder *wire.Forwarder // between port and its tap, while impaired
}

// MAC is the hardware address of the host's interface.
func (k *Link) MAC() net.HardwareAddr { return macFor(k.addrs) }

// Interface is the name of the host's interface.
func (k *Link) Interface() string { return k.dev }

// Cut drops everything in both directions until Heal.
func (k *Link) Cut() error { return k.change(func() { k.cut = true }) }

// Heal undoes Cut.
func (k *Link) Heal() error { return k.change(func() { k.cut = false }) }

// Delay holds every frame for d plus up to jitter, in each direction, and keeps
// their order. Zero values end it.
func (k *Link) Delay(d, jitter time.Duration) error {
	return k.change(func() { k.impair.Delay, k.impair.Jitter = d, jitter })
}

// Drop loses the given percentage of frames, in each direction. Zero ends it.
func (k *Link) Drop(percent int) error {
	if percent < 0 || percent > 100 {
		return fmt.Errorf("drop %d percent on %s: want 0 to 100", percent, k.port)
	}
	return k.change(func() { k.impair.DropPercent = percent })
}

// Clear ends delay, drop and cut, and leaves a partition as it is.
func (k *Link) Clear() error {
	return k.change(func() { k.cut, k.impair = false, wire.Impairment{} })
}

// change alters the wanted state and brings the switch to it.
func (k *Link) change(f func()) error {
	k.net.mu.Lock()
	defer k.net.mu.Unlock()
	f()
	return k.applyLocked()
}

func (k *Link) applyLocked() error {
	nl, err := k.net.space.Netlink()
	if err != nil {
		return err
	}
	defer nl.Close()
	switch {
	case k.impair == (wire.Impairment{}) && k.forwarder != nil:
		if err := k.forwarder.Close(); err != nil {
			return fmt.Errorf("end impairment of %s: %w", k.port, err)
		}
		k.forwarder = nil
	case k.impair != (wire.Impairment{}) && k.forwarder != nil:
		k.forwarder.Set(k.impair)
	case k.impair != (wire.Impairment{}):
		// The port leaves the bridge; its frames reach it through the forwarder.
		if err := k.detach(nl, k.port); err != nil {
			return err
		}
		f, err := wire.NewForwarder(k.net.space, k.port, k.tap(), k.impair)
		if err != nil {
			return fmt.Errorf("impair %s: %w", k.port, err)
		}
		k.forwarder = f
	}
	return k.connect(nl)
}

func (k *Link) tap() string { return "t." + k.port[:min(len(k.port), 13)] }

// connect puts the port, or the tap of the forwarder, where it belongs: on the
// bridge of its group, or nowhere when the link is cut.
func (k *Link) connect(nl *netlink.Handle) error {
	port := k.port
	if k.forwarder != nil {
		port = k.tap()
	}
	if k.cut {
		return k.detach(nl, port)
	}
	link, err := nl.LinkByName(port)
	if err != nil {
		return fmt.Errorf("port %s: %w", port, err)
	}
	bridge, err := nl.LinkByName(k.net.bridge(k.group))
	if err != nil {
		return fmt.Errorf("bridge %s: %w", k.net.bridge(k.group), err)
	}
	if err := nl.LinkSetMaster(link, bridge); err != nil {
		return fmt.Errorf("put %s on %s: %w", port, bridge.Attrs().Name, err)
	}
	return nil
}

func (k *Link) detach(nl *netlink.Handle, port string) error {
	link, err := nl.LinkByName(port)
	if err != nil {
		return fmt.Errorf("port %s: %w", port, err)
	}
	if err := nl.LinkSetNoMaster(link); err != nil {
		return fmt.Errorf("take %s off its bridge: %w", port, err)
	}
	return nil
}

// Link returns the link of a host, such as "node-1", to an L2 network.
func (l *Lab) Link(host, network string) (*Link, error) {
	h, err := l.Host(host)
	if err != nil {
		return nil, err
	}
	if link := h.Link(network); link != nil {
		return link, nil
	}
	return nil, fmt.Errorf("%s, %s: %w", host, network, ErrNoLink)
}

// Partition splits an L2 network: the hosts of each group reach only each other,
// and the hosts in no group likewise. It replaces an earlier partition; without
// groups the network is whole again.
func (l *Lab) Partition(network string, groups ...[]string) error {
	n, ok := l.l2s[network]
	if !ok {
		return fmt.Errorf("partition %s: %w", network, ErrNoNetwork)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	wanted := map[string]int{}
	for i, group := range groups {
		for _, name := range group {
			if n.links[name] == nil {
				return fmt.Errorf("partition %s: %s %w", network, name, ErrNoLink)
			}
			if wanted[name] != 0 {
				return fmt.Errorf("partition %s: %s is in two groups", network, name)
			}
			wanted[name] = i + 1
		}
	}
	for ; n.groups < len(groups); n.groups++ {
		if err := n.addBridge(n.groups + 1); err != nil {
			return err
		}
	}
	var errs []error
	for name, link := range n.links {
		link.group = wanted[name]
		errs = append(errs, link.applyLocked())
	}
	return errors.Join(errs...)
}
