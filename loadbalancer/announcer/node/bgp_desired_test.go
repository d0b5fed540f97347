package node

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/bgp"
)

// What peers need of this machine is found, and what is missing is said.
func TestPeersOfThisMachine(t *testing.T) {
	far, found := "", errors.New("nobody")
	around := surroundings{
		addresses: func() ([]net.Addr, error) {
			_, private, err := net.ParseCIDR("10.20.0.11/24")
			return []net.Addr{private}, err
		},
		router: func(device string) (netip.Addr, error) { return netip.MustParseAddr("fe80::1%" + device), found },
		vrf:    func(string) error { return errors.New(far) },
	}
	g := bgp.Global{ASN: 65001}
	peer := func(spec v1alpha1.BGPPeerSpec) bgp.Peer {
		return around.peersOf(&network{Peers: []neighbor{{Name: "p", Spec: spec}}}, g)[0]
	}

	if p := peer(v1alpha1.BGPPeerSpec{Address: "10.20.0.1", ASN: 64512}); p.Far || p.Problem != "" {
		t.Errorf("%+v", p)
	}
	if p := peer(v1alpha1.BGPPeerSpec{Address: "10.30.0.1", ASN: 64512}); !p.Far || p.Problem != "" {
		t.Errorf("%+v", p)
	}
	// A router that is not heard any more leaves the session that runs as it is.
	p := peer(v1alpha1.BGPPeerSpec{Interface: "eth1", ASN: 64512})
	if p.Problem != "spec.interface: nobody" || p.Address.String() != "fe80::1%eth1" {
		t.Errorf("%+v", p)
	}
	found = nil
	if p := peer(v1alpha1.BGPPeerSpec{Interface: "eth1", ASN: 64512}); p.Problem != "" || p.Far || !p.IPv4 || !p.IPv6 {
		t.Errorf("%+v", p)
	}
	// The export policy could not tell these two apart.
	same := around.peersOf(&network{Peers: []neighbor{
		{Name: "a", Spec: v1alpha1.BGPPeerSpec{Interface: "eth1", ASN: 64512}}, {Name: "b", Spec: v1alpha1.BGPPeerSpec{Interface: "eth2", ASN: 64512}},
	}}, g)
	if same[0].Problem != "" || same[1].Problem != "BGPPeer a has the same link-local address on interface eth1: a node can have one of them" {
		t.Errorf("%+v", same)
	}
	// Both families without an InternalIP of either: next hops are link-local.
	if p := peer(v1alpha1.BGPPeerSpec{Interface: "eth1", ASN: 64512, Families: []v1alpha1.BGPFamily{"IPv4"}}); p.Problem != "" || !p.IPv4 || p.IPv6 {
		t.Errorf("%+v", p)
	}
	far = "this node has no device blue"
	if p := peer(v1alpha1.BGPPeerSpec{Address: "10.20.0.1", ASN: 64512, VRF: "blue"}); p.Problem != "spec.vrf: this node has no device blue" || p.VRF != "blue" {
		t.Errorf("%+v", p)
	}
	n := &network{Config: &v1alpha1.BGPConfigurationSpec{}, Peers: []neighbor{{Spec: v1alpha1.BGPPeerSpec{Interface: "b"}}, {Spec: v1alpha1.BGPPeerSpec{Address: "10.0.0.1"}}, {Spec: v1alpha1.BGPPeerSpec{Interface: "a"}}, {Spec: v1alpha1.BGPPeerSpec{Interface: "b"}}}}
	if d := devicesOf(n); len(d) != 2 || d[0] != "a" || d[1] != "b" {
		t.Errorf("%v", d)
	}
	n.Config = nil
	if d := devicesOf(n); len(d) != 0 {
		t.Errorf("without BGP: %v", d)
	}
}

// The machine's addresses are read once for all peers, and only those that name one
// cannot do without.
func TestAddressesOfThisMachineAreReadOnce(t *testing.T) {
	reads, failure := 0, error(nil)
	around := surroundings{addresses: func() ([]net.Addr, error) {
		reads++
		return []net.Addr{&net.IPNet{IP: net.IPv4(10, 0, 0, 1), Mask: net.CIDRMask(24, 32)}, &net.IPNet{IP: net.ParseIP("fd00::1"), Mask: net.CIDRMask(64, 128)}}, failure
	}}
	n := &network{}
	for i, p := range []v1alpha1.BGPPeerSpec{
		{Address: "10.0.0.2", SourceAddress: "10.0.0.1"}, {Address: "fd00::2", SourceAddress: "fd00::1"}, {Address: "10.0.1.2"},
	} {
		n.Peers = append(n.Peers, neighbor{Name: string(rune('a' + i)), Spec: p})
	}
	peers := around.peersOf(n, bgp.Global{})
	if reads != 1 || peers[0].Problem != "" || peers[1].Problem != "" || peers[0].Far || peers[1].Far || !peers[2].Far {
		t.Errorf("%d reads, %+v", reads, peers)
	}
	failure = errors.New("no netlink")
	peers = around.peersOf(n, bgp.Global{})
	if peers[0].Problem != "read the node's addresses: no netlink" || peers[2].Problem != "" {
		t.Errorf("%+v", peers)
	}
}

// A VRF is looked for on this machine: what is there may be none.
func TestVRFIsLookedFor(t *testing.T) {
	a := &Agent{}
	for device, want := range map[string]string{
		"no-such-vrf": "this node has no device no-such-vrf", "lo": "device lo is no VRF, but of type device",
	} {
		if err := a.checkVRF(device); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", device, err, want)
		}
	}
}

// The kinds of what is wrong have the names that the API has for them.
func TestFaultsHaveTheNamesOfTheAPI(t *testing.T) {
	for fault, want := range map[bgp.Fault]string{
		bgp.FaultPeerASN: v1alpha1.BGPReasonPeerASN, bgp.FaultLocalASN: v1alpha1.BGPReasonLocalASN, bgp.FaultSilent: v1alpha1.BGPReasonSilent,
		bgp.FaultTooFar: v1alpha1.BGPReasonTooFar, bgp.FaultRefused: v1alpha1.BGPReasonRefused, bgp.FaultHoldTime: v1alpha1.BGPReasonHoldTime,
		bgp.FaultBFD: v1alpha1.BGPReasonBFD, bgp.FaultPeerEnded: v1alpha1.BGPReasonPeerEnded, bgp.FaultNodeEnded: v1alpha1.BGPReasonNodeEnded,
		bgp.FaultBroken: v1alpha1.BGPReasonBroken,
	} {
		if string(fault) != want {
			t.Errorf("%s, and the API has %s", fault, want)
		}
	}
}
