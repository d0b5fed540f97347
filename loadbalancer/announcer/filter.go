package announcer

import (
	"slices"

	"github.com/onelb/onelb/loadbalancer/announcer/addr"
	"github.com/onelb/onelb/loadbalancer/announcer/arpfilter"
)

// ipvsInterface is where kube-proxy in IPVS mode puts the addresses of all
// Services, on all nodes.
const ipvsInterface = "kube-ipvs0"

// filter lets the kernel answer ARP for a held address on its interface alone. For
// an address that this node does not hold there is nothing to keep silent about,
// unless kube-proxy has put it there.
func (e *Engine) filter() {
	ipvs := slices.ContainsFunc(e.interfaces, func(i addr.Interface) bool { return i.Name == ipvsInterface })
	s := arpfilter.State{Elsewhere: ipvs}
	for _, n := range e.entries {
		if n.hold != nil {
			s.Held = append(s.Held, arpfilter.Place{Address: n.address, Index: n.hold.on.Index})
		}
		if n.hold != nil || ipvs && n.known {
			s.Known = append(s.Known, n.address)
		}
	}
	e.o.Filter.Set(s)
}
