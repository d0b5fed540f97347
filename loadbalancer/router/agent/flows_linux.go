package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/onelb/onelb/loadbalancer/router"
)

// KernelFlows are the tracked connections of the process's network namespace.
type KernelFlows struct{}

// Forget implements Flows. It reads the whole table once for each family.
func (KernelFlows) Forget(ctx context.Context, stale func(Flow) bool) (int, error) {
	var errs []error
	total := 0
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		if err := ctx.Err(); err != nil {
			return total, fmt.Errorf("forget connections: %w", err)
		}
		n, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, matcher(stale))
		total += int(n)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return total, fmt.Errorf("forget connections: %w", err)
	}
	return total, nil
}

// matcher adapts a function to the library's filter.
type matcher func(Flow) bool

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (m matcher) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	if f.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	to, ok := netip.AddrFromSlice(f.Forward.DstIP)
	from, is := netip.AddrFromSlice(f.Reverse.SrcIP)
	if !ok || !is {
		return false
	}
	return m(Flow{
		Frontend: router.Key{Address: to.Unmap(), Protocol: router.UDP, Port: f.Forward.DstPort},
		Backend:  netip.AddrPortFrom(from.Unmap(), f.Reverse.SrcPort),
	})
}
