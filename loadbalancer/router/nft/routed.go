package nft

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/onelb/onelb/loadbalancer/router"
)

// routed adds a frontend of which nothing is translated: what may pass is all that is
// to be known of it.
func routed(f *router.Frontend, add func(int, set, element)) {
	family, key := familyIndex(f.Address), keyBytes(f.Key())
	add(family, passing, element{key: key})
	if f.MaxConnections > 0 {
		limit(f, family, key, add)
	}
	if len(f.SourceRanges) > 0 {
		ranges(f, family, key, add)
	}
}

// routedChains are for addresses that are routed to their holders. Unlike NAT, a
// filter sees every packet, also those that belong to no connection; but what stands
// is let pass, as it is elsewhere.
func (f family) routedChains() []chain {
	return []chain{
		{
			name: "forward", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookForward,
			priority: nftables.ChainPriorityFilter, rules: f.forward(),
		},
		{
			// Before others hide what leaves the router behind its own address. A connection
			// that another instance let in begins here with whatever packet comes first, which
			// may be a reply.
			name: "replies", kind: nftables.ChainTypeNAT, hook: nftables.ChainHookPostrouting,
			priority: nftables.ChainPriorityRef(*nftables.ChainPriorityNATSource - 1), rules: []rule{
				{"from an address that is routed: leave it", []expr.Any{
					f.header(f.source, reg), lookup(routedTo, reg, false, f), f.keepSource(),
				}},
			},
		},
	}
}

// forward lets pass what is for a frontend, refuses the rest, and leaves alone what is
// not for a routed address. ICMP passes: without it packets would be too large for ever.
func (f family) forward() []rule {
	rules := []rule{
		{"not routed to a holder", []expr.Any{f.header(f.destination, reg), lookup(routedTo, reg, true, f), verdict(expr.VerdictReturn)}},
		{"of a connection that stands", append(hasState(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), verdict(expr.VerdictReturn))},
	}
	for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP} {
		exprs := append(f.packetKey(), lookup(passing, reg, true, f))
		rules = append(rules, rule{"no frontend", append(append(exprs, ofProtocol(protocol)...), f.refuse(protocol))})
	}
	return append(rules,
		f.outsideOfRanges(),
		rule{"limit of connections", append(append(hasState(expr.CtStateBitNEW), f.packetKey()...), lookupMap(limited, reg, verdictRegister, f))},
		rule{"clear the limit", append(hasState(expr.CtStateBitNEW), &expr.Immediate{Register: first, Data: native(0)}, setPriority())},
	)
}

// keepSource translates the source to what it is, so that nobody else translates it.
func (f family) keepSource() expr.Any {
	return &expr.NAT{Type: expr.NATTypeSourceNAT, Family: f.nfproto, RegAddrMin: first, RegAddrMax: first}
}
