package appliance

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/onelb/onelb/loadbalancer/router"
)

// maxAddresses bounds the floating addresses of an appliance, all clusters' and the
// operator's: VRRP, with which keepalived advertises them in one packet, counts
// them in one byte.
const maxAddresses = 240

// refusals says what of the entries cannot be on the appliance: what one instance
// cannot have, none gets, since all are to be equal. With too many addresses those
// that are there stay.
func (o owner) refusals(entries []entry, contexts []map[string]string) map[culprit]error {
	refused := map[culprit]error{}
	present := map[netip.Addr]bool{}
	room := maxAddresses
	for _, context := range contexts {
		f := o.foreign(context)
		room = min(room, maxAddresses-len(f.addresses))
		for _, e := range entries {
			if err := o.refusal(e, context, f); err != nil {
				refused[culprit{e.address, e.service}] = err
			}
		}
		for name, value := range context {
			if a, err := netip.ParsePrefix(value); err == nil && o.owns(name) {
				present[a.Addr()] = true
			}
		}
	}
	ranked := addressesOf(entries, refused)
	slices.SortStableFunc(ranked, func(a, b netip.Addr) int { return compareBool(present[a], present[b]) })
	for _, a := range ranked[min(max(room, 0), len(ranked)):] {
		for _, e := range entries {
			if e.address == a {
				refused[culprit{a, e.service}] = fmt.Errorf("the appliance has %d floating addresses, the most that keepalived can advertise", maxAddresses)
			}
		}
	}
	return refused
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// addressesOf lists the addresses of entries, each once, in their order.
func addressesOf(entries []entry, refused map[culprit]error) []netip.Addr {
	var out []netip.Addr
	for _, e := range entries {
		if refused[culprit{e.address, e.service}] == nil && !slices.Contains(out[max(len(out)-1, 0):], e.address) {
			out = append(out, e.address)
		}
	}
	return out
}

// refusal says why one instance cannot have an entry; nil if it can.
func (o owner) refusal(e entry, context map[string]string, f foreign) error {
	if _, ok := networkOf(context, e.address); !ok {
		return fmt.Errorf("no interface of the appliance is in the network of %s: attach the virtual router to it, with NETWORK=YES in its context", e.address)
	}
	if name := f.addresses[e.address]; name != "" {
		return fmt.Errorf("%s of the appliance's context has %s already: remove it there, or take the address out of the pool", name, e.address)
	}
	for _, at := range []netip.Addr{e.address, netip.IPv4Unspecified()} {
		if name := f.ports[netip.AddrPortFrom(at, e.port)]; name != "" {
			return fmt.Errorf("%s of the appliance's context has port %d of %s already: remove it there, or use another port", name, e.port, e.address)
		}
	}
	return nil
}

// without leaves out what is refused.
func without(entries []entry, refused map[culprit]error) []entry {
	return slices.DeleteFunc(slices.Clone(entries), func(e entry) bool { return refused[culprit{e.address, e.service}] != nil })
}

// changes are the variables of an instance's context that have to be set, an empty
// value for one that is to go. None: the context is as it has to be. entries are
// sorted, and none of them is refused.
func (o owner) changes(entries []entry, context map[string]string) (map[string]string, error) {
	if err := o.check(context); err != nil {
		return nil, err
	}
	if v := context[natVariable]; len(entries) > 0 && v != "" && !isYes(v) {
		return nil, &router.RejectedError{Reason: router.ReasonInvalid, Message: fmt.Sprintf("its context says %s=%q, and without it forwards nothing: set it to YES", natVariable, v)}
	}
	want := o.variables(entries, context)
	out := map[string]string{}
	for name, value := range want {
		if context[name] != value {
			out[name] = value
		}
	}
	for name, value := range context {
		if _, wanted := want[name]; !wanted && value != "" && o.owns(name) {
			out[name] = ""
		}
	}
	o.natSwitch(len(entries) > 0, context, out)
	switch {
	case len(entries) == 0 && context[o.ledger()] != "":
		out[o.ledger()] = ""
	case len(entries) > 0 && (len(out) > 0 || !o.signedBy(context)):
		out[o.ledger()] = o.signature() // a new leader's number alone is no change
	}
	return out, nil
}

// variables are what the cluster's entries are in a context.
func (o owner) variables(entries []entry, context map[string]string) map[string]string {
	want := map[string]string{}
	for n, e := range entries {
		want[o.forward(n)] = e.value()
	}
	for n, a := range addressesOf(entries, nil) {
		eth, _ := networkOf(context, a)
		// As /32: the network is the instance's own address' business, and the last
		// address of a network would take its route away.
		want[o.vip(eth, n)] = netip.PrefixFrom(a, 32).String()
	}
	return want
}

// natSwitch turns the appliance's NAT on where the operator has not said anything,
// and off when the last cluster goes.
func (o owner) natSwitch(needed bool, context, out map[string]string) {
	switch ours := context[natMarker] != ""; {
	case needed && context[natVariable] == "":
		out[natVariable], out[natMarker] = yes, yes
	case !needed && ours && !o.shared(context):
		out[natMarker] = ""
		if context[natVariable] == yes {
			out[natVariable] = ""
		}
	}
}
