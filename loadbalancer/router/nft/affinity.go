package nft

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// verdictRegister is where the kernel looks for what to do next: a map of
// verdicts is looked up into it.
const verdictRegister = unix.NFT_REG_VERDICT

// dynsetDelete is NFT_DYNSET_OP_DELETE, which x/sys/unix does not have.
const dynsetDelete = 2

// affinitySeed is the same on all instances of a router, so that a client that no
// instance remembers gets the same member from each.
const affinitySeed = 0x6f6e656c

// affine finds the member of a client of a frontend with session affinity. A
// client that comes back within the timeout has one, which counts as long as it is
// in use in the frontend's group: members has no other. Everybody else gets the
// one that the client's address hashes to.
//
// The number of the member travels in the packet's priority, as that of the group
// does. It is no table's: its low bits are of no class.
func (f family) affine() []rule {
	client := reg + f.words + 2
	forget := append(f.packetKey(), f.header(f.source, client),
		&expr.Meta{Key: expr.MetaKeyPRIORITY, Register: register(reg + 12)},
		&expr.Dynset{SrcRegKey: first, SrcRegData: register(reg + 12), SetName: f.definitions()[affinity].name, Operation: dynsetDelete})
	rules := []rule{
		{"no member yet", []expr.Any{&expr.Immediate{Register: first, Data: native(0)}, setPriority()}},
		{"member of this client", append(f.packetKey(), f.header(f.source, client), lookupMap(affinity, reg, reg, f), setPriority())},
		{"it takes connections", []expr.Any{priority(), lookup(members, reg, false, f), &expr.Verdict{Kind: expr.VerdictGoto, Chain: "stick"}}},
		{"it does not", forget},
		{"frontend to group", append(f.packetKey(), lookupMap(frontends, reg, reg, f), setPriority())},
		{"group to table", []expr.Any{priority(), lookupMap(groups, reg, reg, f), setPriority()}},
	}
	for c, size := range classes {
		rules = append(rules, rule{fmt.Sprintf("choose of %d slots", size), append(ofClass(c),
			priority(),
			f.header(f.source, reg+4),
			&expr.Hash{
				SourceRegister: register(reg + 4), DestRegister: register(reg + 1), Length: 4 * f.words,
				Modulus: size, Seed: affinitySeed, Type: expr.HashTypeJenkins,
			},
			lookupMap(choices, reg, reg, f), setPriority(),
			&expr.Verdict{Kind: expr.VerdictGoto, Chain: "stick"},
		)})
	}
	return rules
}

// stick translates to the member whose number is in the packet's priority.
func (f family) stick() []rule {
	backend := reg + f.words + 2
	return []rule{
		{"remember for the frontend's time", append(f.packetKey(), lookupMap(affine, reg, verdictRegister, f))},
		{"member and port", append(append([]expr.Any{
			priority(), lookupMap(members, reg, backend, f),
		}, f.packetKey()...), lookupMap(ports, reg, reg, f), f.translate(backend))},
	}
}

// Chains of which there is one for each value that documents have. Elements of
// maps of verdicts jump to them.
const (
	keepPrefix  = "keep-"  // seconds of session affinity
	limitPrefix = "limit-" // connections of a frontend
)

// valueChain returns the chain of that name, if it is one for a value.
func (f family) valueChain(name string) (chain, bool) {
	for prefix, rules := range map[string]func(uint32) []rule{keepPrefix: f.keep, limitPrefix: f.limit} {
		if text, ok := strings.CutPrefix(name, prefix); ok {
			n, err := strconv.ParseUint(text, 10, 32)
			return chain{name: name, rules: rules(uint32(n))}, err == nil && n > 0
		}
	}
	return chain{}, false
}

// keep remembers the member for so many seconds from now on.
func (f family) keep(seconds uint32) []rule {
	return []rule{{"client to member", append(f.packetKey(),
		f.header(f.source, reg+f.words+2),
		&expr.Meta{Key: expr.MetaKeyPRIORITY, Register: register(reg + 12)},
		&expr.Dynset{
			SrcRegKey: first, SrcRegData: register(reg + 12), SetName: f.definitions()[affinity].name,
			Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: time.Duration(seconds) * time.Second,
		},
	)}}
}

// limit drops the first packet of a connection that is one too many: the client
// sends it again, as it does to a server whose queue is full. The limit is part of
// the key, since what counts in the kernel keeps the limit that it began with.
func (f family) limit(most uint32) []rule {
	return []rule{
		{"the limit", []expr.Any{&expr.Immediate{Register: first, Data: native(most)}, setPriority()}},
		{"open connections", append(f.packetKey(),
			&expr.Meta{Key: expr.MetaKeyPRIORITY, Register: register(reg + f.words + 2)},
			&expr.Dynset{
				SrcRegKey: first, SetName: f.definitions()[connections].name, Operation: unix.NFT_DYNSET_OP_ADD,
				Exprs: []expr.Any{&expr.Connlimit{Count: most, Flags: expr.NFT_CONNLIMIT_F_INV}},
			},
			verdict(expr.VerdictDrop),
		)},
	}
}
