package nft

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// reg is the first of the 32-bit registers; a rule lays its keys out in them.
const reg = unix.NFT_REG32_00

// first is reg as the kernel lists it.
const first = unix.NFT_REG_1

// register is the number by which the kernel lists a register: the first of each
// four 32-bit ones has the number of the 128-bit register that begins there.
func register(n uint32) uint32 {
	if n == verdictRegister {
		return n
	}
	if (n-reg)%4 == 0 {
		return unix.NFT_REG_1 + (n-reg)/4
	}
	return n
}

// chain is one chain with its rules; kind is empty for one that is jumped to.
type chain struct {
	name     string
	kind     nftables.ChainType
	hook     *nftables.ChainHook
	priority *nftables.ChainPriority
	rules    []rule
}

type rule struct {
	comment string
	exprs   []expr.Any
}

func (r rule) userData() []byte {
	return userdata.AppendString(nil, userdata.TypeComment, r.comment)
}

// chains returns the table's own chains: services first, since others jump to it.
// Their rules are the same whatever the documents say; see values for the rest.
func (f family) chains() []chain { return append(f.translatingChains(), f.routedChains()...) }

func (f family) translatingChains() []chain {
	jump := rule{"to the frontends", []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: "services"}}}
	return []chain{
		{name: "services", rules: f.services()},
		{name: "affine", rules: f.affine()},
		{name: "stick", rules: f.stick()},
		{
			name: "prerouting", kind: nftables.ChainTypeNAT, hook: nftables.ChainHookPrerouting,
			priority: nftables.ChainPriorityNATDest, rules: []rule{jump},
		},
		{
			name: "output", kind: nftables.ChainTypeNAT, hook: nftables.ChainHookOutput,
			priority: nftables.ChainPriorityNATDest, rules: []rule{jump},
		},
		{
			name: "postrouting", kind: nftables.ChainTypeNAT, hook: nftables.ChainHookPostrouting,
			priority: nftables.ChainPriorityNATSource, rules: f.postrouting(),
		},
		{
			name: "input", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookInput,
			priority: nftables.ChainPriorityFilter, rules: f.input(),
		},
	}
}

// services translates the first packet of a connection to a frontend.
//
// The number of the group, then of its table, travels in skb->priority: nft
// cannot list a rule that uses the result of one map as the key of the next (1.0.6
// aborts), and packet and connection marks belong to the router's operator.
// The priority of a received packet means nothing yet; ip_forward sets it from
// the TOS field, and the postrouting chain clears it for IPv6.
func (f family) services() []rule {
	rules := []rule{
		{"no frontend", append(f.packetKey(), lookup(ports, reg, true, f), verdict(expr.VerdictReturn))},
		f.outsideOfRanges(),
		{"limit of connections", append(f.packetKey(), lookupMap(limited, reg, verdictRegister, f))},
		{"ours", setLabel(labelOurs)},
		{"snat always", append(append(f.packetKey(), lookup(snatAlways, reg, false, f)), setLabel(labelAlways)...)},
		{"snat never", append(append(f.packetKey(), lookup(snatNever, reg, false, f)), setLabel(labelNever)...)},
		{"session affinity", append(f.packetKey(), lookup(affine, reg, false, f), &expr.Verdict{Kind: expr.VerdictGoto, Chain: "affine"})},
		{"frontend to group", append(f.packetKey(), lookupMap(frontends, reg, reg, f), setPriority())},
		{"group to table", []expr.Any{priority(), lookupMap(groups, reg, reg, f), setPriority()}},
	}
	for c, size := range classes {
		rules = append(rules, f.spread(c, size))
	}
	return rules
}

func (f family) outsideOfRanges() rule {
	return rule{"client outside of the source ranges", append(f.packetKey(),
		lookup(ranged, reg, false, f),
		f.header(f.source, reg+f.words+2),
		lookup(allowed, reg, true, f),
		verdict(expr.VerdictDrop),
	)}
}

// spread is the rule for the tables of one class.
func (f family) spread(class int, size uint32) rule {
	backend := reg + f.words + 2 // behind the key that the port needs
	return rule{fmt.Sprintf("spread over %d slots", size), append(append(append(ofClass(class),
		priority(),
		&expr.Numgen{Register: register(reg + 1), Modulus: size, Type: unix.NFT_NG_RANDOM},
		lookupMap(slots, reg, backend, f),
	), f.packetKey()...),
		lookupMap(ports, reg, reg, f), f.translate(backend),
	)}
}

// ofClass goes on if the number in the priority is of a table of that class.
func ofClass(class int) []expr.Any {
	return []expr.Any{
		priority(),
		&expr.Bitwise{SourceRegister: first, DestRegister: first, Len: 4, Mask: native(classMask), Xor: native(0)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: first, Data: native(uint32(class))}, //nolint:gosec // small
	}
}

// translate sends the connection to the address in a register, and the port in
// the first one.
func (f family) translate(backend uint32) expr.Any {
	return &expr.NAT{
		Type: expr.NATTypeDestNAT, Family: f.nfproto, Specified: true,
		RegAddrMin: register(backend), RegAddrMax: register(backend), RegProtoMin: first, RegProtoMax: first,
	}
}

// postrouting hides the client where the reply would not come back this way.
// The labels tell what the frontend wants: ct original daddr has no length in
// the eyes of nft, which aborts when it lists a lookup of it.
func (f family) postrouting() []rule {
	return []rule{
		{"not ours", append(hasLabel(labelOurs, expr.CmpOpEq), verdict(expr.VerdictReturn))},
		{"clear the number of the table", []expr.Any{
			&expr.Immediate{Register: first, Data: native(0)}, setPriority(),
		}},
		{"snat never", append(hasLabel(labelNever, expr.CmpOpNeq), verdict(expr.VerdictReturn))},
		{"snat always", append(hasLabel(labelAlways, expr.CmpOpNeq), &expr.Masq{})},
		{"backend that replies elsewhere", []expr.Any{f.header(f.destination, reg), lookup(elsewhere, reg, false, f), &expr.Masq{}}},
		{"hairpin on one inner interface", []expr.Any{
			&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: first}, &expr.Meta{Key: expr.MetaKeyOIFNAME, Register: register(reg + 4)},
			lookup(inner, reg, false, f), &expr.Masq{},
		}},
		{"client and backend on one network", []expr.Any{
			f.header(f.source, reg), f.header(f.destination, reg+f.words), lookup(same, reg, false, f), &expr.Masq{},
		}},
	}
}

// Connection labels of ours: the last bits, which nobody is known to use.
const (
	labelOurs   = 127
	labelAlways = 126
	labelNever  = 125
)

// setLabel adds a bit to the connection's labels; the others stay.
func setLabel(bit uint) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: first, Data: label(bit)},
		&expr.Ct{Key: expr.CtKeyLABELS, Register: first, SourceRegister: true},
	}
}

// hasLabel compares one bit with zero.
func hasLabel(bit uint, op expr.CmpOp) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyLABELS, Register: first},
		&expr.Bitwise{SourceRegister: first, DestRegister: first, Len: 16, Mask: label(bit), Xor: make([]byte, 16)},
		&expr.Cmp{Op: op, Register: first, Data: make([]byte, 16)},
	}
}

// label is a bitmap of native words.
func label(bit uint) []byte {
	b := make([]byte, 16)
	binary.NativeEndian.PutUint32(b[bit/32*4:], 1<<(bit%32))
	return b
}

func priority() expr.Any { return &expr.Meta{Key: expr.MetaKeyPRIORITY, Register: first} }

func setPriority() expr.Any {
	return &expr.Meta{Key: expr.MetaKeyPRIORITY, Register: first, SourceRegister: true}
}

// input refuses what is sent to a frontend's address and was not translated:
// the address stands on the router, but its own services must not answer there.
func (f family) input() []rule {
	refused := func(protocol uint8) rule {
		exprs := append([]expr.Any{f.header(f.destination, reg), lookup(addresses, reg, false, f)}, hasState(expr.CtStateBitNEW)...)
		return rule{"no frontend, or no backend", append(append(exprs, ofProtocol(protocol)...), f.refuse(protocol))}
	}
	return []rule{refused(unix.IPPROTO_TCP), refused(unix.IPPROTO_UDP), refused(unix.IPPROTO_SCTP)}
}

// refuse tells the client that nothing is there.
func (f family) refuse(protocol uint8) expr.Any {
	switch {
	case protocol == unix.IPPROTO_TCP:
		return &expr.Reject{Type: unix.NFT_REJECT_TCP_RST}
	case f.words == 4:
		return &expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: 4} // port unreachable
	}
	return &expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: 3} // likewise
}

// hasState goes on if the connection is in one of the states.
func hasState(bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: first},
		&expr.Bitwise{SourceRegister: first, DestRegister: first, Len: 4, Mask: native(bits), Xor: native(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: first, Data: native(0)},
	}
}

func ofProtocol(n uint8) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: first}, &expr.Cmp{Op: expr.CmpOpEq, Register: first, Data: []byte{n}}}
}

// packetKey loads destination address, protocol and port of the packet.
func (f family) packetKey() []expr.Any {
	return []expr.Any{
		f.header(f.destination, reg),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register(reg + f.words)},
		&expr.Payload{DestRegister: register(reg + f.words + 1), Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	}
}

func (f family) header(offset, to uint32) expr.Any {
	return &expr.Payload{DestRegister: register(to), Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4 * f.words}
}

func lookup(s set, from uint32, invert bool, f family) expr.Any {
	return &expr.Lookup{SourceRegister: register(from), SetName: f.definitions()[s].name, Invert: invert}
}

func lookupMap(s set, from, to uint32, f family) expr.Any {
	return &expr.Lookup{SourceRegister: register(from), DestRegister: register(to), IsDestRegSet: true, SetName: f.definitions()[s].name}
}

func verdict(kind expr.VerdictKind) expr.Any { return &expr.Verdict{Kind: kind} }

func native(n uint32) []byte {
	return binary.NativeEndian.AppendUint32(nil, n)
}
