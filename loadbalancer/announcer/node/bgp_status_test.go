package node

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"

	onelbfake "github.com/onelb/onelb/api/client/fake"
	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/announcer"
)

func speaker(name string, peers ...string) *v1alpha1.BGPNode {
	n := &v1alpha1.BGPNode{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, p := range peers {
		n.Status.Sessions = append(n.Status.Sessions, v1alpha1.BGPSession{Peer: p, State: "Established"})
	}
	n.Status.Sessions = append(n.Status.Sessions, v1alpha1.BGPSession{Peer: "down", State: "Idle"})
	return n
}

// Exactly one of the live nodes writes who announces an address, and says so when the
// first one does and the last one does not any more.
func TestWhoAnnouncesIsWritten(t *testing.T) {
	v := virtualIP()
	v.Spec.Role = v1alpha1.RoleBGP
	c := onelbfake.New(v)
	get := func() *v1alpha1.VirtualIP {
		got, err := c.VirtualIPs().Get(t.Context(), vipName, metav1.GetOptions{})
		must(t, err)
		return got
	}
	n := &network{Pools: map[string]v1alpha1.BGPSpec{"p": {Peers: []string{"a", "b"}}}, Addresses: []pooled{pooledAddress("p", vipName)}}
	nodes := []announcer.Peer{{Name: "n1", Live: true}, {Name: "n2", Live: true}, {Name: "n3", Live: true}}
	speakers := []*v1alpha1.BGPNode{speaker("n3", "a"), speaker("n1", "b", "a", "c"), speaker("n2", "c")}
	var reasons []string
	write := func() (writers int) {
		t.Helper()
		for _, node := range []string{"n1", "n2", "n3"} {
			events := record.NewFakeRecorder(10)
			before := get().ResourceVersion
			w := &announcers{node: node, vips: c.VirtualIPs(), cached: func(string) (*v1alpha1.VirtualIP, bool) { return get(), true }, written: map[string]string{},
				view: func() (*network, []announcer.Peer, []*v1alpha1.BGPNode) { return n, nodes, speakers }}
			more, err := w.write(t.Context(), events)
			must(t, err)
			if more {
				t.Error("there is more")
			}
			if get().ResourceVersion != before {
				writers++
			}
			for len(events.Events) > 0 {
				reasons = append(reasons, strings.Fields(<-events.Events)[1])
			}
		}
		return writers
	}
	said := func(want ...string) {
		t.Helper()
		var got []string
		for _, a := range get().Status.Announcers {
			got = append(got, a.Node+":"+strings.Join(a.Peers, "+"))
		}
		if !slices.Equal(got, want) {
			t.Errorf("announcers %v, want %v", got, want)
		}
	}
	if w := write(); w != 1 {
		t.Errorf("%d nodes wrote", w)
	}
	said("n1:a+b", "n3:a")
	if w := write(); w != 0 {
		t.Errorf("%d nodes wrote again", w)
	}
	nodes[0].Live = false // whoever it was, another one writes
	write()
	said("n3:a")
	speakers[0] = speaker("n3")
	write()
	said()
	if !slices.Equal(reasons, []string{ReasonBGPAnnounced, ReasonBGPNotAnnounced}) {
		t.Errorf("events %v", reasons)
	}
	if announcer.First(nil, netip.MustParseAddr(vipName)) != "" {
		t.Error("none of no nodes is the first")
	}
}
