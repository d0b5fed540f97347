package appliance

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/onelb/onelb/loadbalancer/router"
)

// ErrFamily: a Service or a pool asks for IPv6.
var ErrFamily = errors.New("the stock appliance forwards IPv4 only: use spec.ipFamilies IPv4")

// Why an appliance cannot do what else a Service or a pool asks for.
var (
	errSCTP     = errors.New("the stock appliance forwards TCP and UDP, not SCTP")
	errUDPOnly  = errors.New("the stock appliance opens TCP and UDP of a port together, never UDP alone: add a TCP port of the same number")
	errRanges   = errors.New("the stock appliance cannot limit clients: remove spec.loadBalancerSourceRanges")
	errAffinity = errors.New("the stock appliance keeps no session affinity: set spec.sessionAffinity to None")
	errLimit    = errors.New("the stock appliance counts no connections: remove annotation onelb.io/connection-limit")
	errSpread   = errors.New("the stock appliance forwards a port to one address, and spreads over no nodes or pods: use a pool with forward VIP")
	errTargets  = errors.New("the stock appliance forwards TCP and UDP of a port to one place, and theirs differ")
	errSlots    = fmt.Errorf("a cluster has %d ports on a stock appliance at most", slots)
	errSNAT     = errors.New("the stock appliance chooses by itself whose address backends see: leave router.snat at auto")
)

// entry forwards one port, TCP and UDP, of one address.
type entry struct {
	address netip.Addr
	port    uint16
	target  netip.AddrPort
	service string
}

// value is that of a variable ONEAPP_VNF_NAT4_PORT_FWD<n>.
func (e entry) value() string {
	return fmt.Sprintf("%s:%d:%s:%d", e.address, e.port, e.target.Addr(), e.target.Port())
}

// culprit is what a refusal is about: a Service's ports of one address.
type culprit struct {
	address netip.Addr
	service string
}

// entriesOf translates a normalized document. One port that cannot be expressed
// closes all that its Service has of the address: half a Service is worse than a
// refusal that can be seen.
func entriesOf(d router.Document) ([]entry, map[culprit]error) {
	refused := map[culprit]error{}
	refuse := func(f router.Frontend, err error) {
		if c := (culprit{f.Address, f.Service}); refused[c] == nil {
			refused[c] = fmt.Errorf("port %s: %w", f.Key(), err)
		}
	}
	at := map[netip.AddrPort]entry{}
	for _, f := range d.Frontends { // TCP before UDP
		e, err := entryOf(d, f)
		key := netip.AddrPortFrom(f.Address, f.Port)
		have, taken := at[key]
		switch {
		case err != nil:
			refuse(f, err)
		case taken && have != e:
			refuse(f, errTargets)
		case !taken && f.Protocol != router.TCP:
			refuse(f, errUDPOnly)
		default:
			at[key] = e
		}
	}
	out := slices.SortedFunc(maps.Values(at), func(a, b entry) int {
		return cmp.Or(a.address.Compare(b.address), cmp.Compare(a.port, b.port))
	})
	out = without(out, refused)
	for _, e := range out[min(slots, len(out)):] {
		refused[culprit{e.address, e.service}] = errSlots
	}
	return without(out, refused), refused
}

func entryOf(d router.Document, f router.Frontend) (entry, error) {
	switch {
	case !f.Address.Is4():
		return entry{}, ErrFamily
	case f.Protocol != router.TCP && f.Protocol != router.UDP:
		return entry{}, errSCTP
	case len(f.SourceRanges) > 0:
		return entry{}, errRanges
	case f.Affinity > 0:
		return entry{}, errAffinity
	case f.MaxConnections > 0:
		return entry{}, errLimit
	case f.SNAT != router.SNATAuto:
		return entry{}, errSNAT
	}
	g, _ := d.Group(f.Group)
	if len(g.Members) != 1 || g.Check != nil || !g.Members[0].Address.Is4() {
		return entry{}, errSpread
	}
	return entry{f.Address, f.Port, netip.AddrPortFrom(g.Members[0].Address, f.BackendPort), f.Service}, nil
}
