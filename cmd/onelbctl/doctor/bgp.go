package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/inventory"
)

// youngBreak: a session that broke less long ago may be just coming back.
const youngBreak = 30 * time.Second

// defaultHoldTime is that of a BGPPeer that names none.
const defaultHoldTime = 90 * time.Second

// bgp looks at what nodes and peers do not agree on, and which side has to be corrected.
func bgp(_ context.Context, p *Patient) []Finding {
	inv := p.Inventory
	if inv.Unread("BGP") {
		return nil // said as a gap
	}
	out := bgpConfigured(inv)
	for i := range inv.BGPPeers {
		peer := &inv.BGPPeers[i]
		out = append(out, bgpDown(inv, peer)...)
		out = append(out, bgpLess(inv, peer)...)
	}
	for i := range inv.BGPNodes {
		for _, text := range inv.BGPNodes[i].Status.Problems {
			out = append(out, Finding{
				Check: "bgp-problem", Severity: Warning, About: "BGPNode " + inv.BGPNodes[i].Name, Meaning: "the node cannot follow " + text + ". It goes on with what it had",
				Remedy: "correct the object that the text names (docs/how-to/bgp.md)",
			})
		}
	}
	return out
}

func bgpConfigured(inv *inventory.Inventory) []Finding {
	i := slices.IndexFunc(inv.Pools, func(p v1alpha1.AddressPool) bool { return p.Spec.Exposure == v1alpha1.ExposureBGP })
	if i < 0 || inv.BGPConfig != nil && len(inv.BGPPeers) > 0 {
		return nil
	}
	missing := "BGPPeer"
	if inv.BGPConfig == nil {
		missing = "BGPConfiguration"
	}
	return []Finding{{
		Check: "bgp-not-configured", Severity: Error, About: "AddressPool " + inv.Pools[i].Name, Meaning: "its addresses are announced to nobody: there is no " + missing, Remedy: "make one (docs/how-to/bgp.md)",
	}}
}

// sessionsOf are those of the nodes that are Ready with a peer, sorted by node.
func sessionsOf(inv *inventory.Inventory, peer string) (nodes []string, all []v1alpha1.BGPSession) {
	for i := range inv.BGPNodes {
		n := inv.Node(inv.BGPNodes[i].Name)
		if n == nil || !inventory.NodeReady(n) {
			continue // what is written there is old
		}
		for _, s := range inv.BGPNodes[i].Status.Sessions {
			if s.Peer == peer {
				nodes, all = append(nodes, n.Name), append(all, s)
			}
		}
	}
	return nodes, all
}

// bgpDown: sessions that do not stand, by the reason that the nodes name.
func bgpDown(inv *inventory.Inventory, peer *v1alpha1.BGPPeer) []Finding {
	nodes, all := sessionsOf(inv, peer.Name)
	down, texts := map[string][]string{}, map[string]string{}
	for i, s := range all {
		if s.State == v1alpha1.BGPEstablished || s.Since != nil && inv.Time.Sub(s.Since.Time) < youngBreak {
			continue
		}
		down[s.Reason] = append(down[s.Reason], nodes[i])
		texts[s.Reason] = s.LastError
	}
	var out []Finding
	for reason, without := range down {
		f := bgpWhy(peer, reason, len(without) == len(all))
		f.About, f.Severity = "BGPPeer "+peer.Name, Error
		f.Meaning = strings.Join(without, ", ") + plural(len(without), " has", " have") + " no session with it: " + texts[reason]
		if texts[reason] == "" {
			f.Meaning += "no reason is known yet"
		}
		out = append(out, f)
	}
	return out
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// bgpWhy names the side to correct: what all nodes have in common stands in our
// objects or in all of the router; what only some have, in the router's neighbours.
func bgpWhy(peer *v1alpha1.BGPPeer, reason string, all bool) Finding {
	router := "the other nodes have a session, so the BGPPeer is right: correct "
	switch reason {
	case v1alpha1.BGPReasonPeerASN:
		return side("bgp-asn", all, fmt.Sprintf("the router says another AS than spec.asn %d: correct the BGPPeer, unless the router is wrong", peer.Spec.ASN), router+"the AS that the router uses towards these nodes (local-as)")
	case v1alpha1.BGPReasonLocalASN:
		return side("bgp-asn", all, "the router expects the nodes in another AS: correct remote-as of its neighbours, or the ASN of the BGPConfiguration (spec.localASN of the BGPPeer)", router+"remote-as of these neighbours on the router")
	case v1alpha1.BGPReasonTooFar:
		return side("bgp-ttl", all, "set spec.multihop of the BGPPeer to the number of hops, and allow as many on the router (ebgp-multihop)", "set spec.multihop of the BGPPeer: these nodes are further away from the router than the others; and allow as many hops on the router (ebgp-multihop)")
	case v1alpha1.BGPReasonSilent:
		return bgpSilent(peer, all, router)
	case v1alpha1.BGPReasonRefused:
		return side("bgp-refused", all, "see that BGP runs on the router, on port "+fmt.Sprint(peer.Spec.Port)+", and that it has the nodes as neighbours", router+"the router's list of neighbours: these nodes are missing, or shut down")
	}
	return side("bgp-session", all, "the router's log says more", "the router's log says more of these neighbours")
}

func bgpSilent(peer *v1alpha1.BGPPeer, all bool, router string) Finding {
	switch {
	case peer.Spec.PasswordKey != "":
		return side("bgp-password", all, "compare the password of key "+peer.Spec.PasswordKey+" in the Secret onelb-system/onelb-bgp with the router's, and see that the router can be reached (ping, port "+fmt.Sprint(peer.Spec.Port)+")",
			router+"the password of these neighbours on the router, or their way to it")
	case peer.Spec.Multihop != nil:
		return side("bgp-ttl", all, fmt.Sprintf("see that the router is no more than %d hops away, that it allows as many (ebgp-multihop), wants no password, and can be reached", *peer.Spec.Multihop), router+"the router's hops for these neighbours (ebgp-multihop), or their way to it")
	}
	return side("bgp-unreachable", all, "see that the router can be reached (ping, port "+fmt.Sprint(peer.Spec.Port)+") and wants no password; with one, set spec.passwordKey of the BGPPeer", router+"these nodes' way to the router, or a password that the router wants of them")
}

func side(check string, all bool, ours, theirs string) Finding {
	if all {
		return Finding{Check: check, Remedy: ours}
	}
	return Finding{Check: check, Remedy: theirs}
}

// bgpLess: sessions that stand and do less than the BGPPeer asks for.
func bgpLess(inv *inventory.Inventory, peer *v1alpha1.BGPPeer) []Finding {
	nodes, all := sessionsOf(inv, peer.Name)
	found := map[string][]string{}
	templates := map[string]Finding{}
	note := func(node string, f Finding) {
		key := f.Check + f.Meaning
		found[key], templates[key] = append(found[key], node), f
	}
	for i, s := range all {
		if s.State != v1alpha1.BGPEstablished {
			continue
		}
		for _, f := range lessOf(peer, s) {
			note(nodes[i], f)
		}
	}
	var out []Finding
	for key, f := range templates {
		f.About, f.Meaning = "BGPPeer "+peer.Name, strings.Join(found[key], ", ")+": "+f.Meaning
		out = append(out, f)
	}
	return out
}

func lessOf(peer *v1alpha1.BGPPeer, s v1alpha1.BGPSession) (out []Finding) {
	for _, family := range familiesOf(peer) {
		if !slices.Contains(s.Families, family) {
			out = append(out, Finding{
				Check: "bgp-families", Severity: Error, Meaning: fmt.Sprintf("the router takes no %s routes in the session", family),
				Remedy: fmt.Sprintf("activate the neighbours in the router's address family %s unicast, or take %s out of spec.families of the BGPPeer", strings.ToLower(string(family)), family),
			})
		}
	}
	if e := peer.Spec.GracefulRestart.Enabled; (e == nil || *e) && !s.GracefulRestart {
		out = append(out, Finding{
			Check: "bgp-graceful-restart", Severity: Warning, Meaning: "the router does not keep the routes while the node's agent restarts",
			Remedy: "let the router help with graceful restart (FRR: bgp graceful-restart-helper or bgp graceful-restart; BIRD: graceful restart aware), or set spec.gracefulRestart.enabled of the BGPPeer to false, if that is meant",
		})
	}
	if peer.Spec.BFD != nil && s.BFD != "Up" {
		out = append(out, Finding{
			Check: "bgp-bfd", Severity: Warning, Meaning: fmt.Sprintf("BFD is %s: a dead node is found by the hold time only", s.BFD),
			Remedy: "turn BFD on for these neighbours on the router (FRR: neighbor … bfd; BIRD: bfd on), and let UDP port 3784 through",
		})
	}
	wanted := defaultHoldTime
	if h := peer.Spec.HoldTime; h != nil {
		wanted = h.Duration
	}
	if s.HoldTime != nil && s.HoldTime.Duration < wanted {
		out = append(out, Finding{
			Check: "bgp-timers", Severity: Info, Meaning: fmt.Sprintf("the hold time is %v: the router's, which is shorter than spec.holdTime %v", s.HoldTime.Duration, wanted),
			Remedy: "nothing, if that is meant: the shorter one counts; else make the router's longer",
		})
	}
	return out
}

// familiesOf are those of which the peer should get routes.
func familiesOf(peer *v1alpha1.BGPPeer) []v1alpha1.BGPFamily {
	switch {
	case len(peer.Spec.Families) > 0:
		return peer.Spec.Families
	case peer.Spec.Interface != "":
		return []v1alpha1.BGPFamily{v1alpha1.BGPFamilyIPv4, v1alpha1.BGPFamilyIPv6}
	case strings.Contains(peer.Spec.Address, ":"):
		return []v1alpha1.BGPFamily{v1alpha1.BGPFamilyIPv6}
	}
	return []v1alpha1.BGPFamily{v1alpha1.BGPFamilyIPv4}
}
