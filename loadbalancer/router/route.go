package router

import (
	"fmt"
	"net/netip"
	"slices"
)

// Bounds of a document's routes.
const (
	MaxRoutes = 8_192
	// minRouteBits keeps a slip of the pen from taking a quarter of the Internet.
	minRouteBits4, minRouteBits6 = 8, 16
)

// Route leads to the pods of a node.
type Route struct {
	Destination netip.Prefix
	// Gateway is the node, on a network of the router.
	Gateway netip.Addr
}

// String is "10.244.1.0/24 via 10.20.0.11".
func (r Route) String() string { return fmt.Sprintf("%s via %s", r.Destination, r.Gateway) }

func compareRoute(a, b Route) int { return comparePrefix(a.Destination, b.Destination) }

func equalRoute(a, b Route) bool { return a == b }

func normalizeRoutes(routes []Route) []Route {
	if len(routes) == 0 {
		return nil
	}
	out := slices.Clone(routes)
	for i, r := range out {
		out[i] = Route{Destination: r.Destination.Masked(), Gateway: r.Gateway.Unmap()}
	}
	slices.SortStableFunc(out, compareRoute)
	return out
}

func (d Document) validateRoutes() error {
	if len(d.Routes) > MaxRoutes {
		return invalid(Frontend{}, "%d routes, at most %d", len(d.Routes), MaxRoutes)
	}
	for i, r := range d.Routes {
		if err := r.Validate(); err != nil {
			return invalid(Frontend{}, "route %s: %v", r, err)
		}
		if i > 0 && compareRoute(d.Routes[i-1], r) >= 0 {
			return invalid(Frontend{}, "route %s is not sorted or not unique", r)
		}
	}
	return nil
}

// Validate judges one normalized route by itself.
func (r Route) Validate() error {
	to := r.Destination
	if !to.IsValid() || to.Masked() != to || to.Addr().Is4In6() {
		return fmt.Errorf("the destination is not a masked prefix")
	}
	if err := usable(r.Gateway); err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	if to.Addr().Is4() != r.Gateway.Is4() {
		return fmt.Errorf("the gateway is of another family")
	}
	if least := map[bool]int{true: minRouteBits4, false: minRouteBits6}[to.Addr().Is4()]; to.Bits() < least {
		return fmt.Errorf("the destination is shorter than /%d", least)
	}
	if usable(to.Addr()) != nil || to.Contains(r.Gateway) {
		return fmt.Errorf("the destination is special, or has the gateway in it")
	}
	return nil
}
