package ipam

import (
	"cmp"
	"net/netip"
	"slices"
)

// Covers reports whether the network has every address of a run in its ranges;
// if not, it returns the first that it lacks.
func (n Network) Covers(r AddressRange) (missing netip.Addr, all bool) {
	parts := givable(n, limits{ranges: []AddressRange{r}})
	slices.SortFunc(parts, func(a, b AddressRange) int {
		return cmp.Or(a.Start.Compare(b.Start), a.End.Compare(b.End))
	})
	next := r.Start
	for _, p := range parts {
		if next.Less(p.Start) {
			return next, false
		}
		if p.End.Less(next) {
			continue
		}
		if next = p.End.Next(); !next.IsValid() || r.End.Less(next) {
			return netip.Addr{}, true
		}
	}
	return next, false
}

// User says who uses an address of the network, as far as our user may see it:
// "a hold", or the user of the lease, such as "VM 12". Empty: nobody is seen to.
func (n Network) User(a netip.Addr) string {
	for _, r := range n.Ranges {
		for _, l := range r.Leases {
			switch {
			case l.IP4 != a && l.IP6 != a:
			case l.Held:
				return "a hold"
			default:
				return l.User
			}
		}
	}
	return ""
}
