package agent

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/health"
	"github.com/onelb/onelb/loadbalancer/router/returnpath"
)

// closedPort is where a backend without check is asked: a refusal will do. It is
// the discard service's.
const closedPort = 9

// repliesOf lists the backends of which it matters where they reply to: those of
// frontends with snat auto. Only who holds public addresses can try.
func (a *Agent) repliesOf(documents []router.Document, held []netip.Addr) []returnpath.Backend {
	from := map[bool]netip.Addr{} // by family: the first one that is held
	for _, address := range held {
		if !from[address.Is4()].IsValid() {
			from[address.Is4()] = address
		}
	}
	interfaces := a.opts.Addresses.Interfaces()
	seen := map[netip.Addr]bool{}
	var out []returnpath.Backend
	for _, d := range documents {
		for g := range groupsWithAuto(d) {
			group, _ := d.Group(g)
			b := returnpath.Backend{Port: closedPort}
			if group.Check != nil {
				b.Port = group.Check.Port
			}
			for _, m := range group.Members {
				b.Address, b.From, b.Interface = m.Address, from[m.Address.Is4()], ""
				for _, i := range interfaces {
					if within(i.Networks, netip.PrefixFrom(m.Address, m.Address.BitLen())) {
						b.Interface = i.Name
					}
				}
				if b.From.IsValid() && !seen[b.Address] {
					seen[b.Address] = true
					out = append(out, b)
				}
			}
		}
	}
	slices.SortFunc(out, func(x, y returnpath.Backend) int { return x.Address.Compare(y.Address) })
	return out
}

func groupsWithAuto(d router.Document) map[string]bool {
	out := map[string]bool{}
	for i := range d.Frontends {
		if f := &d.Frontends[i]; f.SNAT == router.SNATAuto {
			out[f.Group] = true
		}
	}
	return out
}

// mostTold bounds how many groups or backends a problem names.
const mostTold = 8

// troubles are what a cluster has to know of its own document: backends that reply
// elsewhere, and groups of which every member fails its check.
func (a *Agent) troubles(d router.Document, results map[health.Target]health.Result) []string {
	elsewhere := a.replies.Elsewhere()
	unhealthy := false
	for _, r := range results {
		unhealthy = unhealthy || r.State == health.Unhealthy
	}
	if len(elsewhere) == 0 && !unhealthy {
		return nil // as it is nearly always, and the document may be large
	}
	auto := groupsWithAuto(d)
	past, down := map[string]bool{}, []string(nil)
	for i := range d.Groups {
		g := &d.Groups[i]
		for _, m := range g.Members {
			if auto[g.Name] && elsewhere[m.Address] {
				past[fmt.Sprintf("%s (%s)", m.Address, cmp.Or(m.Node, "?"))] = true
			}
		}
		if allDown(g, results) {
			down = append(down, g.Name)
		}
	}
	var out []string
	if len(down) > 0 {
		out = append(out, fmt.Sprintf("every backend fails its check in %s: connections are spread over all of them all the same", told(down)))
	}
	if len(past) > 0 {
		names := make([]string, 0, len(past))
		for name := range past {
			names = append(names, name)
		}
		slices.Sort(names)
		out = append(out, fmt.Sprintf("replies to clients go past this router from %s: there, clients are hidden behind the router's address (snat: auto); "+
			"make the router the default gateway, or say snat: always in the AddressPool", told(names)))
	}
	return out
}

func allDown(g *router.Group, results map[health.Target]health.Result) bool {
	if g.Check == nil || len(g.Members) == 0 {
		return false
	}
	for _, m := range g.Members {
		if results[health.Target{Address: m.ProbeAddress(), Port: g.Check.Port, Path: g.Check.Path}].State != health.Unhealthy {
			return false
		}
	}
	return true
}

func told(names []string) string {
	if more := len(names) - mostTold; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:mostTold], ", "), more)
	}
	return strings.Join(names, ", ")
}
