package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/onelb/onelb/loadbalancer/router"
)

// routeProtocol marks our routes in the kernel ("proto 79" of ip route).
const routeProtocol netlink.RouteProtocol = 79

// maxListed bounds what is told of the machine's routes: a router with all of the
// Internet's is not to send them to every cluster.
const maxListed = 2_048

// KernelRoutes are the routes of the process's network namespace, in its main table.
type KernelRoutes struct{}

// Set implements Routes.
func (KernelRoutes) Set(ctx context.Context, routes []router.Route) error {
	present, err := listRoutes(&netlink.Route{Table: unix.RT_TABLE_MAIN, Protocol: routeProtocol}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return err
	}
	there := map[router.Route]bool{}
	var stale []netlink.Route
	for _, k := range present {
		if r := routeOf(k); slices.Contains(routes, r) && !there[r] {
			there[r] = true
		} else {
			stale = append(stale, k)
		}
	}
	var errs []error
	for _, r := range routes {
		if there[r] {
			continue
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("set routes: %w", err)
		}
		if err := netlink.RouteReplace(kernelRoute(r)); err != nil {
			errs = append(errs, fmt.Errorf("add route %s: %w", r, err))
		}
	}
	for _, k := range stale {
		// A route that was replaced, or whose interface went, is gone already.
		if err := netlink.RouteDel(&k); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("remove route %s: %w", routeOf(k), err))
		}
	}
	return errors.Join(errs...)
}

// List implements Routes.
func (KernelRoutes) List() ([]netip.Prefix, error) {
	all, err := listRoutes(&netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, k := range all {
		to := prefixOf(k.Dst)
		if k.Protocol != holderProtocol && k.Type == unix.RTN_UNICAST && to.Bits() > 0 && to.Addr().IsGlobalUnicast() {
			out = append(out, to)
		}
	}
	slices.SortFunc(out, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	out = slices.Compact(out)
	return out[:min(len(out), maxListed)], nil
}

func listRoutes(filter *netlink.Route, mask uint64) ([]netlink.Route, error) {
	var out []netlink.Route
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteListFiltered(family, filter, mask)
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		out = append(out, routes...)
	}
	return out, nil
}

func kernelRoute(r router.Route) *netlink.Route {
	return &netlink.Route{
		Dst: &net.IPNet{
			IP: r.Destination.Addr().AsSlice(), Mask: net.CIDRMask(r.Destination.Bits(), r.Destination.Addr().BitLen()),
		},
		Gw: r.Gateway.AsSlice(), Table: unix.RT_TABLE_MAIN, Protocol: routeProtocol,
	}
}

func routeOf(k netlink.Route) router.Route {
	gateway, _ := netip.AddrFromSlice(k.Gw) // an invalid one is nobody's wish
	return router.Route{Destination: prefixOf(k.Dst), Gateway: gateway.Unmap()}
}

// prefixOf is invalid, with -1 bits, for no network.
func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	address, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if !ok || bits == 0 {
		return netip.Prefix{}
	}
	if bits == 32 {
		address = address.Unmap()
	}
	return netip.PrefixFrom(address, ones)
}
