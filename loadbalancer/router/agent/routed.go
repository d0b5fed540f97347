package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/onelb/onelb/loadbalancer/router"
)

// split lists, sorted, the addresses that are translated and those that are routed, with
// the inner interfaces of their holders. One of which nobody could be the holder is in
// neither list, and that is told.
func (a *Agent) split(documents []router.Document) (translated []netip.Addr, routed []Routed) {
	var errs []error
	interfaces := a.opts.Addresses.Interfaces()
	for _, d := range documents {
		through := innerOf(interfaces, d)
		var last netip.Addr
		for _, f := range d.Frontends {
			if f.Address == last {
				continue
			}
			if last = f.Address; !f.Routed {
				translated = append(translated, f.Address)
				continue
			}
			if name := through(f.Group); name != "" {
				routed = append(routed, Routed{Address: f.Address, Through: name})
			} else if len(errs) < mostTold {
				errs = append(errs, fmt.Errorf("address %s is not passed on: no interface of the router is on the nodes' network, or there are no nodes", f.Address))
			}
		}
	}
	slices.SortFunc(translated, netip.Addr.Compare)
	slices.SortFunc(routed, func(x, y Routed) int { return x.Address.Compare(y.Address) })
	a.note("holders", errors.Join(errs...))
	return translated, routed
}

// admitRouted checks that the holders of routed addresses are on another network than
// the clients. That they are on one of the router's may change, and is told.
// Of a difference without groups, what is new is looked at: the rest was admitted.
func (a *Agent) admitRouted(next step) *refusal {
	d := next.doc.Document
	concerned := d.Frontends
	if delta := next.delta; delta != nil && len(delta.Groups)+len(delta.RemovedGroups) == 0 {
		concerned = delta.Frontends
	}
	through := innerOf(a.opts.Addresses.Interfaces(), d)
	for _, f := range concerned {
		if !f.Routed {
			continue
		}
		// Of new ones it is known; one that was there and has lost its interface is told elsewhere.
		outer, err := a.opts.Addresses.Where(f.Address)
		if name := through(f.Group); err == nil && name == outer {
			return refuse(router.ReasonRoute, "the nodes are on the network of the public addresses themselves (%s): there, a pool with exposure L2 needs no router", name).of(f)
		}
	}
	return nil
}

// innerOf returns the interface on whose networks most members of a group are, the first
// by name of several; "": there is none.
func innerOf(interfaces []Interface, d router.Document) func(group string) string {
	known := map[string]string{}
	return func(group string) string {
		best, is := known[group]
		if is {
			return best
		}
		g, _ := d.Group(group)
		most := 0
		for _, i := range interfaces { // sorted by name
			n := 0
			for _, m := range g.Members {
				if within(i.Networks, netip.PrefixFrom(m.Address, m.Address.BitLen())) {
					n++
				}
			}
			if n > most {
				best, most = i.Name, n
			}
		}
		known[group] = best
		return best
	}
}
