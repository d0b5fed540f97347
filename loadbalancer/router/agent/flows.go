package agent

import (
	"context"
	"net/netip"

	"k8s.io/klog/v2"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/nft"
)

// backends is where a UDP frontend's packets may go.
type backends struct {
	port    uint16
	members map[netip.Addr]bool
}

// forget deletes tracked UDP connections of frontends that have gone and to
// backends that are not in use any more: UDP has no end of its own, so a client
// that keeps sending would stay there for ever. TCP connections end by
// themselves and are left alone.
func (a *Agent) forget(ctx context.Context, documents []router.Document, healthy func(router.Check, netip.Addr) bool) {
	now := udpBackends(documents, healthy)
	before := a.udp
	a.udp = now
	if !shrunk(before, now) {
		return
	}
	n, err := a.opts.Flows.Forget(ctx, func(f Flow) bool {
		to, is := now[f.Frontend]
		if !is {
			_, was := before[f.Frontend]
			return was // others' connections are not ours to touch
		}
		return to.port != f.Backend.Port() || !to.members[f.Backend.Addr()]
	})
	a.note("flows", err)
	if n > 0 {
		klog.FromContext(ctx).V(2).Info("Forgot UDP connections to backends that are gone", "connections", n)
	}
}

// udpBackends maps each UDP frontend to its backends. Frontends of one group
// share the set of members.
func udpBackends(documents []router.Document, healthy func(router.Check, netip.Addr) bool) map[router.Key]backends {
	out := map[router.Key]backends{}
	for _, d := range documents {
		groups := map[string]map[netip.Addr]bool{}
		for i := range d.Groups {
			groups[d.Groups[i].Name] = nil
		}
		for _, f := range d.Frontends {
			if f.Protocol != router.UDP {
				continue
			}
			if f.Routed { // nothing is translated, so the connection is with the address itself
				out[f.Key()] = backends{port: f.Port, members: map[netip.Addr]bool{f.Address: true}}
				continue
			}
			members := groups[f.Group]
			if members == nil {
				members = usableOf(d, f.Group, healthy)
				groups[f.Group] = members
			}
			out[f.Key()] = backends{port: f.BackendPort, members: members}
		}
	}
	return out
}

func usableOf(d router.Document, name string, healthy func(router.Check, netip.Addr) bool) map[netip.Addr]bool {
	members := map[netip.Addr]bool{}
	if g, found := d.Group(name); found {
		for _, m := range nft.Usable(&g, healthy) {
			members[m.Address] = true
		}
	}
	return members
}

// shrunk reports whether anything that was there is gone.
func shrunk(before, now map[router.Key]backends) bool {
	for key, b := range before {
		n, is := now[key]
		if !is || n.port != b.port {
			return true
		}
		for m := range b.members {
			if !n.members[m] {
				return true
			}
		}
	}
	return false
}
