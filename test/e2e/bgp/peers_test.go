package bgp_test

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/api/client"
	"github.com/onelb/onelb/api/v1alpha1"
)

// TestInvalidPeers creates BGPPeers that the API server itself refuses, with a message
// that says what is wrong, and some that it takes.
func TestInvalidPeers(t *testing.T) {
	w := newWorld(t)
	cfg, err := w.RESTConfig(w.Control())
	w.Must(err)
	c, err := client.New(cfg)
	w.Must(err)
	hops := int32(2)
	for name, p := range map[string]struct {
		spec    v1alpha1.BGPPeerSpec
		message string // empty: it is taken
	}{
		"nowhere":          {v1alpha1.BGPPeerSpec{}, "either an address or an interface"},
		"both":             {v1alpha1.BGPPeerSpec{Address: "10.20.0.9", Interface: "eth1"}, "either an address or an interface"},
		"interface":        {v1alpha1.BGPPeerSpec{Interface: "eth1"}, ""},
		"interface-far":    {v1alpha1.BGPPeerSpec{Interface: "eth1", Multihop: &hops}, "do not go with interface"},
		"interface-source": {v1alpha1.BGPPeerSpec{Interface: "eth1", SourceAddress: "fe80::1"}, "do not go with interface"},
		"interface-vrf":    {v1alpha1.BGPPeerSpec{Interface: "eth1", VRF: "blue"}, "do not go with interface"},
		"bad-interface":    {v1alpha1.BGPPeerSpec{Interface: "eth 1"}, "should match"},
		"vrf":              {v1alpha1.BGPPeerSpec{Address: "10.20.0.9", VRF: "blue"}, ""},
		"vrf-bfd":          {v1alpha1.BGPPeerSpec{Address: "10.20.0.9", VRF: "blue", BFD: &v1alpha1.BFDProfile{}}, "bfd does not go with vrf"},
		"far-bfd":          {v1alpha1.BGPPeerSpec{Address: "10.20.0.9", Multihop: &hops, BFD: &v1alpha1.BFDProfile{}}, "does not go with multihop"},
		"families":         {v1alpha1.BGPPeerSpec{Address: "10.20.0.9", SourceAddress: "fd00::1"}, "of the same family"},
		"hold-time":        {v1alpha1.BGPPeerSpec{Address: "10.20.0.9", HoldTime: &metav1.Duration{Duration: time.Second}}, "holdTime is from 3s to 1h"},
	} {
		p.spec.ASN = 64512
		// No node has it: this is about what the API server says.
		p.spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"no": "node"}}
		_, err := c.BGPPeers().Create(t.Context(), &v1alpha1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: p.spec}, metav1.CreateOptions{})
		if err == nil {
			if _, err := w.Kubectl(t.Context(), "delete", "bgppeer", name); err != nil {
				t.Error(err)
			}
		}
		if p.message == "" && err != nil || p.message != "" && (err == nil || !strings.Contains(err.Error(), p.message)) {
			t.Errorf("%s: %v, want %q", name, err, p.message)
		}
	}
}
