package agent

import (
	"net/netip"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/nft"
)

// traffic is one example of each kind of connection that goes through this router:
// what firewalls are judged by.
func (a *Agent) traffic() []nft.Traffic {
	type kind struct {
		in, out  string
		protocol router.Protocol
		four     bool
		routed   bool
	}
	links := map[string]nft.Link{}
	interfaces := a.opts.Addresses.Interfaces()
	for _, i := range interfaces {
		links[i.Name] = nft.Link{Name: i.Name, Index: i.Index}
	}
	seen := map[kind]bool{}
	var out []nft.Traffic
	for _, d := range a.state.documents() {
		for _, f := range d.Frontends {
			g, found := d.Group(f.Group)
			if !found || len(g.Members) == 0 {
				continue
			}
			in, err := a.opts.Addresses.Where(f.Address)
			to, connected := towards(interfaces, g.Members[0].Address)
			backend := g.Members[0].Address
			if f.Routed {
				backend = f.Address
			}
			k := kind{in, to, f.Protocol, f.Address.Is4(), f.Routed}
			if err != nil || !connected || seen[k] {
				continue
			}
			seen[k] = true
			out = append(out, nft.Traffic{
				In: links[in], Out: links[to], Protocol: f.Protocol, Backend: netip.AddrPortFrom(backend, f.BackendPort), Routed: f.Routed,
			})
		}
	}
	return out
}

// towards is the interface whose network contains an address.
func towards(interfaces []Interface, a netip.Addr) (name string, found bool) {
	for _, i := range interfaces {
		for _, n := range i.Networks {
			if n.Contains(a) {
				return i.Name, true
			}
		}
	}
	return "", false
}
