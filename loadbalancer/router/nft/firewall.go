package nft

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"

	"github.com/onelb/onelb/loadbalancer/router"
)

// Traffic is the first packet of a connection to a frontend, after its translation if
// there is one.
type Traffic struct {
	In, Out  Link
	Protocol router.Protocol
	Backend  netip.AddrPort
	// Routed: it was not translated.
	Routed bool
}

// Link is an interface.
type Link struct {
	Name  string
	Index int
}

// outcome is what a chain does with a packet.
type outcome int

const (
	through outcome = iota // to the end of the chain
	passes
	drops
	// perhaps: it depends on what is not known here, for example on the client.
	perhaps
)

// foreign is a part of the ruleset that is not ours.
type foreign struct {
	rules map[string][]*nftables.Rule // by chain
	// elements are a set's, and whether they are single values.
	elements func(set string) ([]nftables.SetElement, bool)
}

// judge follows a packet through a base chain.
func (f foreign) judge(chain string, policy *nftables.ChainPolicy, t Traffic) outcome {
	result, maybe := f.walk(chain, t, 0)
	if result == through {
		result = passes
		if policy != nil && *policy == nftables.ChainPolicyDrop {
			result = drops
		}
	}
	if maybe && result == drops {
		return perhaps
	}
	return result
}

// maxJumps is what the kernel allows.
const maxJumps = 16

// walk returns what a chain does for certain, and whether something before that
// may have let the packet pass.
func (f foreign) walk(chain string, t Traffic, depth int) (result outcome, maybe bool) {
	if depth > maxJumps {
		return perhaps, true
	}
	for _, r := range f.rules[chain] {
		matched, verdict := f.rule(r, t)
		if matched == no || verdict == nil {
			continue
		}
		did, may := through, false
		switch verdict.Kind {
		case expr.VerdictAccept:
			did = passes
		case expr.VerdictDrop:
			did = drops
		case expr.VerdictJump, expr.VerdictGoto:
			did, may = f.walk(verdict.Chain, t, depth+1)
		case expr.VerdictReturn:
			if matched == yes {
				return through, maybe
			}
			maybe = true // the rest of the chain may not count
			continue
		case expr.VerdictContinue, expr.VerdictBreak:
			continue
		default: // another program decides
			did = perhaps
		}
		switch {
		case matched == unsure:
			maybe = maybe || may || did == passes || did == perhaps || verdict.Kind == expr.VerdictGoto
		case did != through:
			return did, maybe || may
		case verdict.Kind == expr.VerdictGoto:
			return through, maybe || may
		default:
			maybe = maybe || may
		}
	}
	return through, maybe
}

// match is whether a rule concerns a packet.
type match int

const (
	no match = iota
	yes
	unsure
)

func (m match) and(o match) match {
	switch {
	case m == no || o == no:
		return no
	case m == unsure || o == unsure:
		return unsure
	}
	return yes
}

func certainly(b bool) match {
	if b {
		return yes
	}
	return no
}

// rule follows a rule's expressions; a value that is not known makes it unsure.
func (f foreign) rule(r *nftables.Rule, t Traffic) (match, *expr.Verdict) {
	matched, registers := yes, map[uint32][]byte{} // no value: not known
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Meta:
			registers[e.Register] = t.meta(e)
		case *expr.Ct:
			registers[e.Register] = t.ct(e)
		case *expr.Payload:
			registers[e.DestRegister] = t.payload(e)
		case *expr.Immediate:
			registers[e.Register] = e.Data
		case *expr.Bitwise:
			registers[e.DestRegister] = bitwise(e, registers[e.SourceRegister])
		case *expr.Cmp:
			matched = matched.and(compare(e, registers[e.Register]))
		case *expr.Lookup:
			m, verdict := f.lookup(e, registers[e.SourceRegister])
			matched = matched.and(m)
			if verdict != nil {
				return matched, verdict
			}
			if e.IsDestRegSet {
				delete(registers, e.DestRegister)
			}
		case *expr.Match:
			matched = matched.and(t.xtMatch(e))
		case *expr.Counter, *expr.Log, *expr.Objref:
		case *expr.Verdict:
			return matched, e
		case *expr.Reject:
			return matched, &expr.Verdict{Kind: expr.VerdictDrop}
		case *expr.Target:
			switch e.Name {
			case "REJECT", "DROP":
				return matched, &expr.Verdict{Kind: expr.VerdictDrop}
			case "LOG", "NFLOG", "MARK", "CONNMARK", "TCPMSS":
			default:
				return unsure.and(matched), &expr.Verdict{Kind: expr.VerdictAccept}
			}
		default: // a limit, a fib lookup, …
			matched = matched.and(unsure)
		}
		if matched == no {
			return no, nil
		}
	}
	return matched, nil
}

func (t Traffic) meta(e *expr.Meta) []byte {
	if e.SourceRegister {
		return nil
	}
	switch e.Key {
	case expr.MetaKeyIIFNAME:
		return []byte(nameBytes(t.In.Name))
	case expr.MetaKeyOIFNAME:
		return []byte(nameBytes(t.Out.Name))
	case expr.MetaKeyIIF:
		return native(uint32(t.In.Index)) //nolint:gosec // small
	case expr.MetaKeyOIF:
		return native(uint32(t.Out.Index)) //nolint:gosec // small
	case expr.MetaKeyL4PROTO:
		return []byte{t.Protocol.Number()}
	case expr.MetaKeyNFPROTO:
		return []byte{byte(families[familyIndex(t.Backend.Addr())].family)}
	}
	return nil
}

// statusDNAT is the bit of a translated connection in its status.
const statusDNAT = 1 << 5

func (t Traffic) ct(e *expr.Ct) []byte {
	if e.SourceRegister {
		return nil
	}
	switch e.Key {
	case expr.CtKeySTATE:
		return native(expr.CtStateBitNEW)
	case expr.CtKeySTATUS:
		if t.Routed {
			return native(0)
		}
		return native(statusDNAT)
	}
	return nil
}

func (t Traffic) payload(e *expr.Payload) []byte {
	f := families[familyIndex(t.Backend.Addr())]
	switch {
	case e.Base == expr.PayloadBaseNetworkHeader && e.Offset == f.destination && e.Len <= 4*f.words:
		return t.Backend.Addr().AsSlice()[:e.Len]
	case e.Base == expr.PayloadBaseNetworkHeader && f.words == 1 && e.Offset == 9 && e.Len == 1,
		e.Base == expr.PayloadBaseNetworkHeader && f.words == 4 && e.Offset == 6 && e.Len == 1:
		return []byte{t.Protocol.Number()}
	case e.Base == expr.PayloadBaseTransportHeader && e.Offset == 2 && e.Len == 2:
		return binary.BigEndian.AppendUint16(nil, t.Backend.Port())
	}
	return nil
}

func bitwise(e *expr.Bitwise, value []byte) []byte {
	if len(value) < len(e.Mask) || len(e.Xor) < len(e.Mask) || len(e.Mask) == 0 {
		return nil
	}
	out := make([]byte, len(e.Mask))
	for i := range out {
		out[i] = value[i]&e.Mask[i] ^ e.Xor[i]
	}
	return out
}

func compare(e *expr.Cmp, value []byte) match {
	if len(value) < len(e.Data) {
		return unsure
	}
	switch c := bytes.Compare(value[:len(e.Data)], e.Data); e.Op {
	case expr.CmpOpEq:
		return certainly(c == 0)
	case expr.CmpOpNeq:
		return certainly(c != 0)
	case expr.CmpOpLt:
		return certainly(c < 0)
	case expr.CmpOpLte:
		return certainly(c <= 0)
	case expr.CmpOpGt:
		return certainly(c > 0)
	case expr.CmpOpGte:
		return certainly(c >= 0)
	}
	return unsure
}

// lookup looks one value up; a verdict map answers with its verdict.
func (f foreign) lookup(e *expr.Lookup, value []byte) (match, *expr.Verdict) {
	elements, single := f.elements(e.SetName)
	if value == nil || !single {
		for _, el := range elements {
			if v := el.VerdictData; v != nil && v.Kind != expr.VerdictDrop {
				return unsure, v
			}
		}
		return unsure, nil
	}
	for _, el := range elements {
		if !bytes.Equal(el.Key, value) {
			continue
		}
		return certainly(!e.Invert), el.VerdictData
	}
	return certainly(e.Invert), nil
}

// Bits of the states in iptables' conntrack match.
const (
	xtStateNew  = 1 << 3
	xtStateDNAT = 1 << 7
)

// xtMatch judges the matches that iptables uses most.
func (t Traffic) xtMatch(e *expr.Match) match {
	switch info := e.Info.(type) {
	case *xt.ConntrackMtinfo3:
		return t.conntrackMatch(info.ConntrackMtinfoBase, info.StateMask)
	case *xt.ConntrackMtinfo2:
		return t.conntrackMatch(info.ConntrackMtinfoBase, info.StateMask)
	case *xt.Tcp:
		return certainly(t.Protocol == router.TCP && info.DstPorts[0] <= t.Backend.Port() && t.Backend.Port() <= info.DstPorts[1]).and(unsure)
	case *xt.Udp:
		return certainly(t.Protocol == router.UDP && info.DstPorts[0] <= t.Backend.Port() && t.Backend.Port() <= info.DstPorts[1]).and(unsure)
	}
	return certainly(e.Name == "comment").or(unsure)
}

// or is the other one unless the first is sure to be true.
func (m match) or(o match) match {
	if m == yes {
		return yes
	}
	return o
}

func (t Traffic) conntrackMatch(b xt.ConntrackMtinfoBase, states uint16) match {
	if b.MatchFlags&^uint16(xt.ConntrackState|xt.ConntrackStateAlias) != 0 || b.MatchFlags&uint16(xt.ConntrackState) == 0 {
		return unsure
	}
	is := states&xtStateNew != 0 || states&xtStateDNAT != 0 && !t.Routed
	return certainly(is != (b.InvertFlags&uint16(xt.ConntrackState) != 0))
}

// concerns reports whether a table sees packets of a family.
func concerns(f nftables.TableFamily, a netip.Addr) bool {
	return f == nftables.TableFamilyINet || f == families[familyIndex(a)].family
}

// familyName is how nft spells a table's family.
func familyName(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyINet:
		return "inet"
	case nftables.TableFamilyIPv4:
		return families[0].name
	case nftables.TableFamilyIPv6:
		return families[1].name
	}
	return "unknown"
}
