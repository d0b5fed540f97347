package doctor

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/test/sample"
)

// fail makes sessions fail for a reason.
func fail(reason, text string, nodes ...string) func(*sample.Cluster) {
	return func(c *sample.Cluster) {
		for _, n := range nodes {
			s := c.Session(n)
			s.State, s.Reason, s.LastError, s.Families, s.HoldTime = "Idle", reason, text, nil, nil
		}
	}
}

var allNodes = []string{"node-1", "node-2", "node-3"}

// TestSeededBGPFaults: each is found, nothing else is said, and the side is named.
func TestSeededBGPFaults(t *testing.T) {
	for name, tt := range map[string]struct {
		fault    func(*sample.Cluster)
		check    string
		severity Severity
		words    []string
	}{
		"the peer's AS": {fail(v1alpha1.BGPReasonPeerASN, "the peer is in another autonomous system", allNodes...),
			"bgp-asn", Error, []string{"node-1, node-2, node-3 have no session", "spec.asn 64512", "correct the BGPPeer"}},
		"the peer's AS on one": {fail(v1alpha1.BGPReasonPeerASN, "another", "node-2"), "bgp-asn", Error, []string{"node-2 has no session", "the BGPPeer is right", "local-as"}},
		"our AS":               {fail(v1alpha1.BGPReasonLocalASN, "the peer refuses", allNodes...), "bgp-asn", Error, []string{"remote-as of its neighbours", "BGPConfiguration"}},
		"our AS on one":        {fail(v1alpha1.BGPReasonLocalASN, "the peer refuses", "node-3"), "bgp-asn", Error, []string{"the BGPPeer is right", "remote-as of these neighbours"}},
		"password":             {fail(v1alpha1.BGPReasonSilent, "the peer does not answer", allNodes...), "bgp-password", Error, []string{"key rack", "onelb-system/onelb-bgp"}},
		"password on one":      {fail(v1alpha1.BGPReasonSilent, "the peer does not answer", "node-1"), "bgp-password", Error, []string{"password of these neighbours on the router"}},
		"silent": {func(c *sample.Cluster) {
			c.Peer().PasswordKey = ""
			fail(v1alpha1.BGPReasonSilent, "the peer does not answer", allNodes...)(c)
		}, "bgp-unreachable", Error, []string{"port 179", "spec.passwordKey"}},
		"too few hops": {func(c *sample.Cluster) {
			hops := int32(2)
			c.Peer().PasswordKey, c.Peer().BFD, c.Peer().Multihop = "", nil, &hops
			fail(v1alpha1.BGPReasonSilent, "the peer does not answer", allNodes...)(c)
		}, "bgp-ttl", Error, []string{"no more than 2 hops", "ebgp-multihop"}},
		"too far":      {fail(v1alpha1.BGPReasonTooFar, "the peer is on none of this node's networks", "node-1"), "bgp-ttl", Error, []string{"spec.multihop", "further away"}},
		"refused":      {fail(v1alpha1.BGPReasonRefused, "no connection: refused", allNodes...), "bgp-refused", Error, []string{"BGP runs on the router", "port 179"}},
		"hold time":    {fail(v1alpha1.BGPReasonHoldTime, "the peer was silent for the hold time", "node-1"), "bgp-session", Error, []string{"silent for the hold time"}},
		"no BFD":       {func(c *sample.Cluster) { c.Session("node-1").BFD = "Down" }, "bgp-bfd", Warning, []string{"node-1: BFD is Down", "on the router"}},
		"no restart":   {func(c *sample.Cluster) { c.Session("node-1").GracefulRestart = false }, "bgp-graceful-restart", Warning, []string{"the router does not keep the routes"}},
		"short timers": {func(c *sample.Cluster) { c.Session("node-2").HoldTime.Duration = 9 * time.Second }, "bgp-timers", Info, []string{"hold time is 9s", "the router's"}},
		"no IPv6": {func(c *sample.Cluster) {
			c.Peer().Families = []v1alpha1.BGPFamily{v1alpha1.BGPFamilyIPv4, v1alpha1.BGPFamilyIPv6}
		}, "bgp-families", Error, []string{"node-1, node-2, node-3: the router takes no IPv6 routes", "ipv6 unicast"}},
		"problem": {func(c *sample.Cluster) {
			for _, o := range c.BGP {
				if n, ok := o.(*v1alpha1.BGPNode); ok && n.Name == "node-2" {
					n.Status.Problems = []string{"BGPPeer rack: spec.passwordKey: no such key"}
				}
			}
		}, "bgp-problem", Warning, []string{"BGPNode node-2", "no such key", "goes on with what it had"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := sample.New().WithBGP()
			tt.fault(c)
			expect(t, Examine(t.Context(), patient(t, c)), tt.check, tt.severity, tt.words...)
		})
	}
}

func TestNothingIsWrongWithBGP(t *testing.T) {
	c := sample.New().WithBGP()
	if all := Examine(t.Context(), patient(t, c)); len(all) > 0 {
		t.Errorf("%+v", all)
	}
	fail(v1alpha1.BGPReasonBroken, "the connection broke", "node-1")(c) // it may be coming back
	now := metav1.Now()
	c.Session("node-1").Since = &now
	c.Nodes[1].Status.Conditions[0].Status = corev1.ConditionUnknown // the node is what is wrong
	fail(v1alpha1.BGPReasonBroken, "the connection broke", "node-2")(c)
	if all := find(Examine(t.Context(), patient(t, c)), "bgp-session"); len(all) > 0 {
		t.Errorf("%+v", all)
	}
}

func TestBGPIsNotConfigured(t *testing.T) {
	c := sample.New().WithBGP()
	c.BGP, c.VirtualIPs, c.Services = nil, c.VirtualIPs[:2], c.Services[:2]
	expect(t, Examine(t.Context(), patient(t, c)), "bgp-not-configured", Error, "AddressPool routed", "no BGPConfiguration")
}

func TestAddressIsNotAnnounced(t *testing.T) {
	c := sample.New().WithBGP()
	c.VirtualIPs[2].Status.Announcers = nil
	expect(t, Examine(t.Context(), patient(t, c)), "address-not-announced", Error, sample.RoutedAddress, "node selectors")
}
