package one

import (
	"slices"
	"strconv"
	"strings"
)

// Rule is one rule of a security group, as it stands in a VM's document.
type Rule struct {
	Group   int
	Inbound bool
	// Protocol is ALL, TCP, UDP, ICMP, ICMPV6 or IPSEC.
	Protocol string
	// Ports are those that the rule lets pass, first and last; empty: all.
	Ports [][2]int
	// Narrow: only packets from, or to, some addresses pass.
	Narrow bool
}

type xmlRule struct {
	Group    string `xml:"SECURITY_GROUP_ID"`
	Protocol string `xml:"PROTOCOL"`
	Type     string `xml:"RULE_TYPE"`
	Range    string `xml:"RANGE"`
	IP       string `xml:"IP"`
	Network  string `xml:"NETWORK_ID"`
}

// parse never fails: a rule that makes no sense must not hide the machine. It
// lets nothing pass then.
func (x *xmlRule) parse() Rule {
	r := Rule{
		Group: -1, Inbound: strings.EqualFold(strings.TrimSpace(x.Type), "inbound"), Protocol: strings.ToUpper(strings.TrimSpace(x.Protocol)),
		Narrow: strings.TrimSpace(x.IP) != "" || strings.TrimSpace(x.Network) != "",
	}
	if group, err := strconv.Atoi(strings.TrimSpace(x.Group)); err == nil {
		r.Group = group
	}
	for part := range strings.SplitSeq(x.Range, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		from, to, span := strings.Cut(part, ":")
		if !span {
			to = from
		}
		first, err1 := strconv.Atoi(strings.TrimSpace(from))
		last, err2 := strconv.Atoi(strings.TrimSpace(to))
		if err1 != nil || err2 != nil {
			first, last = 1, 0
		}
		r.Ports = append(r.Ports, [2]int{first, last})
	}
	return r
}

// securityGroups reads a list of IDs, and leaves out what is none.
func securityGroups(text string) []int {
	var out []int
	for part := range strings.SplitSeq(text, ",") {
		if id, err := strconv.Atoi(strings.TrimSpace(part)); err == nil {
			out = append(out, id)
		}
	}
	return out
}

// Admits reports whether the security groups of a NIC let packets for a port in,
// whoever sends them. A NIC without groups is not filtered; the rules of several
// groups add up. protocol is TCP, UDP or SCTP.
func (v VM) Admits(n NIC, protocol string, port int) bool {
	return len(n.SecurityGroups) == 0 || slices.ContainsFunc(v.Rules, func(r Rule) bool {
		return r.Inbound && !r.Narrow && slices.Contains(n.SecurityGroups, r.Group) &&
			(r.Protocol == "ALL" || r.Protocol == protocol) &&
			(len(r.Ports) == 0 || slices.ContainsFunc(r.Ports, func(p [2]int) bool { return p[0] <= port && port <= p[1] }))
	})
}
