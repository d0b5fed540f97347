package announcer

import (
	"slices"

	"github.com/onelb/onelb/loadbalancer/announcer/addr"
	"github.com/onelb/onelb/loadbalancer/announcer/arpfilter"
)

// ipvsInterface is where kube-proxy in IPVS mode puts the addresses of all
// Services, on all nodes.
const ipvsInterface = "kube-ipvs0"

// ipvs is where that is among the interfaces; -1: there is none.
func (e *Engine) ipvs() int {
	return slices.IndexFunc(e.interfaces, func(i addr.Interface) bool { return i.Name == ipvsInterface })
}

// filter lets the kernel answer ARP for a held address on its interface alone. For
// an address that this node does not hold there is nothing to keep silent about,
// unless kube-proxy has put it there, or will. One that is in no list any more is
// ours until kube-proxy has taken it off.
func (e *Engine) filter() {
	at := e.ipvs()
	elsewhere := func(n *entry) bool {
		return at >= 0 && n.known && (n.keep.IsZero() || e.interfaces[at].Has(n.address))
	}
	e.filtered, e.elsewhere = true, at >= 0
	s := arpfilter.State{Elsewhere: at >= 0}
	for _, n := range e.entries {
		if n.hold != nil {
			s.Held = append(s.Held, arpfilter.Place{Address: n.address, Index: n.hold.on.Index})
		}
		if n.hold != nil || elsewhere(n) {
			s.Known = append(s.Known, n.address)
		}
	}
	e.o.Filter.Set(s)
}
