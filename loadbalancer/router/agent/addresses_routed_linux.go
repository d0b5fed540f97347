package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/onelb/onelb/loadbalancer/announcer/addr"
)

// holderProtocol marks our routes to holders in the kernel ("proto 80" of ip route).
const holderProtocol netlink.RouteProtocol = 80

// routedAddresses is what is known of the addresses that are routed. For each, the
// kernel answers outside in the holder's place (proxy ARP and NDP), and has a route
// straight to the inner network. It so asks that network who has the address, and hears
// from the holder whenever that is another one: no message of ours is needed.
type routedAddresses struct {
	wanted []Routed
	dirty  bool // interfaces or kernel may have changed since the last Route
}

// place is where the kernel has to do something about a routed address.
type place struct {
	address      netip.Addr
	outer, inner addr.Interface
}

// Route implements Addresses. What an earlier run left is kept or removed like our own.
func (k *KernelAddresses) Route(ctx context.Context, routed []Routed) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.routed.dirty && slices.Equal(routed, k.routed.wanted) {
		return nil
	}
	known := !k.routed.dirty
	k.routed.dirty = true // until all is done
	var err error
	if known {
		err = k.reroute(ctx, routed)
	} else {
		var places []place
		places, err = k.places(routed)
		err = errors.Join(err, letProxy(places), routeTo(ctx, places), k.proxy(ctx, places))
	}
	if err != nil {
		return err
	}
	k.routed = routedAddresses{wanted: slices.Clone(routed)}
	return nil
}

// reroute adds what is new and removes what is not wanted any more, while nothing else
// has changed: it costs as much as that is.
func (k *KernelAddresses) reroute(ctx context.Context, routed []Routed) error {
	was := make(map[Routed]bool, len(k.routed.wanted))
	for _, r := range k.routed.wanted {
		was[r] = true
	}
	var come, leave []Routed
	for _, r := range routed {
		if !was[r] {
			come = append(come, r)
		}
		delete(was, r)
	}
	for r := range was {
		leave = append(leave, r)
	}
	gone, err := k.places(leave)
	errs := []error{err}
	for _, p := range gone {
		errs = append(errs, unroute(holderRoute(p)), k.unproxy(addr.Entry{Address: p.address, Index: p.outer.Index}))
	}
	places, err := k.places(come)
	errs = append(errs, err, letProxy(places))
	for _, p := range places {
		errs = append(errs, k.begin(ctx, p))
	}
	return errors.Join(errs...)
}

// begin adds the route and the proxy entry of an address that has neither.
func (k *KernelAddresses) begin(ctx context.Context, p place) error {
	if err := addRoute(p); err != nil {
		return err
	}
	if err := k.table.AddProxy(addr.Entry{Address: p.address, Index: p.outer.Index}); err != nil {
		return err
	}
	k.taken(ctx, p.address, p.outer, true)
	return nil
}

func addRoute(p place) error {
	if err := netlink.RouteAdd(holderRoute(p)); err != nil {
		return fmt.Errorf("add route to %s through %s: %w", p.address, p.inner.Name, err)
	}
	return nil
}

// unroute removes a route. One whose interface went is gone already.
func unroute(r *netlink.Route) error {
	if err := netlink.RouteDel(r); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("remove route to %s: %w", r.Dst, err)
	}
	return nil
}

// unproxy ends the answers for an address, which may have become our own.
func (k *KernelAddresses) unproxy(at addr.Entry) error {
	if _, own := slices.BinarySearchFunc(k.wanted, at.Address, netip.Addr.Compare); !own {
		k.forget(at.Address)
	}
	return k.table.RemoveProxy(at)
}

func (k *KernelAddresses) places(routed []Routed) ([]place, error) {
	var errs []error
	out := make([]place, 0, len(routed))
	for _, r := range routed {
		outer, err := k.where(r.Address)
		n := slices.IndexFunc(k.interfaces, func(i addr.Interface) bool { return i.Name == r.Through })
		switch {
		case err != nil:
			errs = append(errs, err)
		case n < 0:
			errs = append(errs, fmt.Errorf("address %s: there is no interface %s any more", r.Address, r.Through))
		default:
			out = append(out, place{address: r.Address, outer: outer, inner: k.interfaces[n]})
		}
	}
	return out, errors.Join(errs...)
}

// letProxy makes the kernel answer for others, and at once: it would wait up to 0.8 s,
// for hosts that should come first. Nothing is answered for but what proxy lists.
func letProxy(places []place) error {
	settings := map[string]string{}
	for _, p := range places {
		family := "ipv4"
		if p.address.Is6() {
			family = "ipv6"
			// Of all interfaces: that of one alone does not make it answer unicast questions,
			// by which neighbours see whether it is still there.
			settings["net/ipv6/conf/all/proxy_ndp"] = "1"
		}
		settings[filepath.Join("net", family, "neigh", p.outer.Name, "proxy_delay")] = "0"
	}
	var errs []error
	for name, value := range settings {
		path := filepath.Join("/proc/sys", name)
		now, err := os.ReadFile(path) //nolint:gosec // names of interfaces are the kernel's
		if err == nil && strings.TrimSpace(string(now)) == value {
			continue
		}
		if err == nil {
			err = os.WriteFile(path, []byte(value), 0o600)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%w; set it with sysctl -w %s=%s", err, name, value))
		}
	}
	return errors.Join(errs...)
}

// routeTo makes exactly these be our routes to holders.
func routeTo(ctx context.Context, places []place) error {
	present, err := holderRoutes()
	if err != nil {
		return err
	}
	want := make(map[addr.Entry]bool, len(places))
	for _, p := range places {
		want[addr.Entry{Address: p.address, Index: p.inner.Index}] = true
	}
	var errs []error
	for _, r := range present {
		to := prefixOf(r.Dst)
		if at := (addr.Entry{Address: to.Addr(), Index: r.LinkIndex}); want[at] && to.IsSingleIP() && r.Gw == nil {
			delete(want, at) // it is there
			continue
		}
		errs = append(errs, unroute(&r))
	}
	for _, p := range places {
		if !want[addr.Entry{Address: p.address, Index: p.inner.Index}] {
			continue
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("set routes to holders: %w", err)
		}
		errs = append(errs, addRoute(p))
	}
	return errors.Join(errs...)
}

// holderRoutes are ours in the kernel.
func holderRoutes() ([]netlink.Route, error) {
	return listRoutes(&netlink.Route{Table: unix.RT_TABLE_MAIN, Protocol: holderProtocol}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
}

func holderRoute(p place) *netlink.Route {
	r := &netlink.Route{
		Dst:       &net.IPNet{IP: p.address.AsSlice(), Mask: net.CIDRMask(p.address.BitLen(), p.address.BitLen())},
		LinkIndex: p.inner.Index, Table: unix.RT_TABLE_MAIN, Protocol: holderProtocol,
	}
	if p.address.Is4() {
		r.Scope = netlink.SCOPE_LINK
	}
	return r
}

// proxy makes the kernel answer for exactly these addresses.
func (k *KernelAddresses) proxy(ctx context.Context, places []place) error {
	entries, err := k.table.Proxies()
	if err != nil {
		return err
	}
	want := make(map[addr.Entry]bool, len(places))
	answered := make(map[netip.Addr]bool, len(places))
	for _, p := range places {
		want[addr.Entry{Address: p.address, Index: p.outer.Index}], answered[p.address] = true, true
	}
	for _, r := range k.routed.wanted { // also those whose entry somebody else has removed
		if _, own := slices.BinarySearchFunc(k.wanted, r.Address, netip.Addr.Compare); !own && !answered[r.Address] {
			k.forget(r.Address)
		}
	}
	var errs []error
	present := make(map[addr.Entry]bool, len(entries))
	for _, e := range entries {
		if present[e] = want[e]; !want[e] {
			errs = append(errs, k.unproxy(e))
		}
	}
	for _, p := range places {
		at := addr.Entry{Address: p.address, Index: p.outer.Index}
		if !present[at] {
			if err := k.table.AddProxy(at); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		k.taken(ctx, p.address, p.outer, !present[at])
	}
	return errors.Join(errs...)
}
