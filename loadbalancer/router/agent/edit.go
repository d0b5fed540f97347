package agent

import (
	"context"
	"net/netip"
	"slices"

	"github.com/onelb/onelb/loadbalancer/router"
)

// edit makes the kernel do what a difference says, at a cost that grows with the
// difference and not with what is there. It is not done where more has to be looked
// at: then program does all.
func (a *Agent) edit(ctx context.Context, before router.Document, next step) (done bool, err error) {
	delta := next.delta
	if a.plan == nil || delta == nil || !delta.Plain() {
		return false, nil
	}
	came, went := movedAddresses(before, next.doc.Document, delta)
	for _, address := range came {
		if name, err := a.opts.Addresses.Where(address); err != nil || !a.public[name] {
			return false, nil // another interface becomes a public one
		}
	}
	for _, address := range went {
		if name, err := a.opts.Addresses.Where(address); err != nil || !a.stillPublic(name) {
			return false, nil // the interface may be an inner one from now on
		}
	}
	a.probe()
	// By what the rest of the plan was made from: connections to a backend that fails since are
	// forgotten when the rules lead there no more.
	plan, ok := a.plan.Edit(before, next.doc.Document, *delta, a.judged)
	a.plan = nil // until the kernel has the new one
	if !ok {
		return false, nil
	}
	if err := a.opts.Table.Apply(ctx, plan); err != nil {
		return true, err
	}
	switch {
	case delta.ConcernsRouted(before), len(delta.Groups)+len(delta.RemovedGroups) > 0 && slices.ContainsFunc(next.doc.Frontends, func(f router.Frontend) bool { return f.Routed }):
		// Where the holders are is what the groups say.
		translated, routed := a.split(a.state.documents())
		err = a.hold(ctx, translated, routed)
	case len(came)+len(went) > 0:
		err = a.hold(ctx, moved(a.addresses, came, went), a.routed)
	}
	if err != nil {
		return true, err
	}
	a.plan = plan
	a.untried = true
	if len(a.udp) > 0 && len(delta.Groups)+len(delta.RemovedGroups) > 0 || concernsUDP(delta) {
		a.forget(ctx, a.state.documents(), a.judged)
	}
	a.metrics.running(plan.Counts(), a.holding)
	return true, nil
}

// stillPublic reports whether an address of a frontend is on an interface; mostly the first is.
func (a *Agent) stillPublic(name string) bool {
	for _, o := range a.state {
		var last netip.Addr
		for i := range o.doc.Frontends {
			address := o.doc.Frontends[i].Address
			if address == last {
				continue
			}
			last = address
			if on, err := a.opts.Addresses.Where(address); err == nil && on == name {
				return true
			}
		}
	}
	return false
}

// movedAddresses are those that a document has after a difference and had not before,
// and those that it had and has no more.
func movedAddresses(before, after router.Document, delta *router.Delta) (came, went []netip.Addr) {
	concerned := map[netip.Addr]bool{}
	for _, k := range delta.RemovedFrontends {
		concerned[k.Address] = true
	}
	for i := range delta.Frontends {
		concerned[delta.Frontends[i].Address] = true
	}
	for address := range concerned {
		switch was, is := before.HasAddress(address), after.HasAddress(address); {
		case is && !was:
			came = append(came, address)
		case was && !is:
			went = append(went, address)
		}
	}
	return came, went
}

// moved is a sorted list with some addresses more and some less.
func moved(addresses, came, went []netip.Addr) []netip.Addr {
	out := slices.Clone(addresses)
	for _, address := range went {
		if at, found := slices.BinarySearchFunc(out, address, netip.Addr.Compare); found {
			out = slices.Delete(out, at, at+1)
		}
	}
	for _, address := range came {
		if at, found := slices.BinarySearchFunc(out, address, netip.Addr.Compare); !found {
			out = slices.Insert(out, at, address)
		}
	}
	return out
}

// concernsUDP reports whether a UDP frontend comes, goes or changes.
func concernsUDP(delta *router.Delta) bool {
	return slices.ContainsFunc(delta.RemovedFrontends, func(k router.Key) bool { return k.Protocol == router.UDP }) ||
		slices.ContainsFunc(delta.Frontends, func(f router.Frontend) bool { return f.Protocol == router.UDP })
}
