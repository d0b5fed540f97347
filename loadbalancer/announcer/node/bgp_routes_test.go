package node

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/announcer"
	"github.com/onelb/onelb/loadbalancer/bgp"
)

func pooledAddress(pool, a string, local ...string) pooled {
	return pooled{announcer.Address{
		Address: netip.MustParseAddr(a), Services: []announcer.Service{{Name: "web"}}, Local: len(local) > 0, Endpoints: local,
	}, pool}
}

func prefixes(routes []bgp.Route) string {
	var out []string
	for _, r := range routes {
		out = append(out, fmt.Sprintf("%s%s", r.Prefix, map[bool]string{true: " leaving"}[r.Leaving]))
	}
	return strings.Join(out, ", ")
}

func TestRoutesOfPools(t *testing.T) {
	n := &network{
		Peers: []neighbor{{Name: "rack"}},
		Pools: map[string]v1alpha1.BGPSpec{
			"single": {},
			"whole":  {AggregationLength: new(int32(28)), AggregationLengthV6: new(int32(64)), Communities: []string{"1:2"}},
		},
		Addresses: []pooled{
			pooledAddress("single", "192.0.2.1"), pooledAddress("whole", "192.0.2.17"), pooledAddress("whole", "192.0.2.18"),
			pooledAddress("whole", "192.0.2.19", "me"), pooledAddress("whole", "192.0.2.20", "you"),
			pooledAddress("whole", "2001:db8::7"), pooledAddress("unknown", "192.0.2.99"),
		},
	}
	nodes := []announcer.Peer{{Name: "me", Live: true}, {Name: "you", Live: true}}
	r := newAnnouncements("me")
	routes, problems, next := r.routes(n, nodes, nil, time.Now())
	if got := prefixes(routes); got != "192.0.2.1/32, 192.0.2.16/28, 192.0.2.19/32, 2001:db8::/64" || len(problems) > 0 || !next.IsZero() {
		t.Errorf("%s, %v, %v", got, problems, next)
	}
	// Settings that cannot be used leave those that could be.
	n.Pools["whole"] = v1alpha1.BGPSpec{Communities: []string{"70000:1"}}
	routes, problems, _ = r.routes(n, nodes, nil, time.Now())
	if len(problems) != 1 || !strings.Contains(problems[0], "70000:1") || !slices.Equal(routes[1].Communities, []uint32{1<<16 | 2}) {
		t.Errorf("%s, %v", prefixes(routes), problems)
	}
	// A pool for other peers says so.
	n.Pools["single"] = v1alpha1.BGPSpec{Peers: []string{"other"}}
	if _, problems, _ = r.routes(n, nodes, nil, time.Now()); len(problems) != 2 {
		t.Errorf("%v", problems)
	}
}

// A drained node marks what it has announced, for a while.
func TestRoutesOfADrainedNode(t *testing.T) {
	n := &network{Pools: map[string]v1alpha1.BGPSpec{"p": {}}, Addresses: []pooled{pooledAddress("p", "192.0.2.1")}}
	well := []announcer.Peer{{Name: "me", Live: true}, {Name: "you", Live: true}}
	drained := []announcer.Peer{{Name: "me", Live: true, Reluctant: true}, {Name: "you", Live: true}}
	r := newAnnouncements("me")
	now := time.Now()
	for i, step := range []struct {
		nodes []announcer.Peer
		after time.Duration
		want  string
	}{
		{drained, 0, ""}, // it never had it
		{well, 0, "192.0.2.1/32"},
		{drained, time.Second, "192.0.2.1/32 leaving"},
		{drained, goingTime - time.Millisecond, "192.0.2.1/32 leaving"},
		{well, 0, "192.0.2.1/32"}, // and begins anew
		{drained, 0, "192.0.2.1/32 leaving"},
		{drained, goingTime, ""},
		{drained, time.Hour, ""},
		{well, 0, "192.0.2.1/32"},
	} {
		now = now.Add(step.after)
		routes, _, next := r.routes(n, step.nodes, []*v1alpha1.BGPNode{speaker("you", "rack")}, now)
		if got := prefixes(routes); got != step.want {
			t.Errorf("step %d: %s, want %s", i, got, step.want)
		}
		if leaving := strings.Contains(step.want, "leaving"); leaving == next.IsZero() {
			t.Errorf("step %d: next %v", i, next)
		}
	}
}

// A node gives way to none that no router of the pool hears.
func TestNobodyToGiveWayTo(t *testing.T) {
	n := &network{Pools: map[string]v1alpha1.BGPSpec{"p": {Peers: []string{"rack"}}}, Addresses: []pooled{pooledAddress("p", "192.0.2.1")}}
	for name, me := range map[string]announcer.Peer{
		"drained": {Name: "me", Live: true, Reluctant: true}, "comes and goes": {Name: "me", Live: true, Damped: true},
	} {
		nodes := []announcer.Peer{me, {Name: "you", Live: true}}
		for _, you := range [][]*v1alpha1.BGPNode{nil, {speaker("you")}, {speaker("you", "other")}} {
			if routes, _, _ := newAnnouncements("me").routes(n, nodes, you, time.Now()); len(routes) != 1 || routes[0].Leaving {
				t.Errorf("%s: %s beside %+v", name, prefixes(routes), you)
			}
			all := append(you, speaker("me", "rack"))
			if got := announcersOf(n.Pools["p"], n.Addresses[0], nodes, all); len(got) != 1 || got[0].Node != "me" {
				t.Errorf("%s: written is %+v", name, got)
			}
		}
		if routes, _, _ := newAnnouncements("me").routes(n, nodes, []*v1alpha1.BGPNode{speaker("you", "rack")}, time.Now()); len(routes) != 0 {
			t.Errorf("%s: %s", name, prefixes(routes))
		}
	}
}

func TestPeersOfANode(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"good": "swordfish\n", "empty": "\n", "long": strings.Repeat("x", 81)} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	around := surroundings{passwords: dir, addresses: func() ([]net.Addr, error) {
		return []net.Addr{&net.IPNet{IP: net.IPv4(10, 0, 0, 1), Mask: net.CIDRMask(24, 32)}}, nil
	}}
	n := &network{Config: &v1alpha1.BGPConfigurationSpec{ASN: 65001}, Own: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}
	add := func(name string, spec v1alpha1.BGPPeerSpec) {
		n.Peers = append(n.Peers, neighbor{Name: name, Spec: spec})
	}
	add("a", v1alpha1.BGPPeerSpec{
		Address: "10.0.0.254", ASN: 4200000000, PasswordKey: "good", SourceAddress: "10.0.0.1", Port: 1179, LocalASN: new(int64(65002)),
		Multihop: new(int32(3)), HoldTime: &metav1.Duration{Duration: 10 * time.Second}, BFD: &v1alpha1.BFDProfile{},
	})
	add("b", v1alpha1.BGPPeerSpec{Address: "10.0.0.254", ASN: 1})
	add("c", v1alpha1.BGPPeerSpec{Address: "10.0.0.3", ASN: 1, PasswordKey: "none"})
	add("d", v1alpha1.BGPPeerSpec{Address: "10.0.0.4", ASN: 1, PasswordKey: "empty"})
	add("e", v1alpha1.BGPPeerSpec{Address: "10.0.0.5", ASN: 1, PasswordKey: "long", SourceAddress: "10.0.0.9"})
	add("f", v1alpha1.BGPPeerSpec{Address: "10.0.0.6", ASN: 1, Families: []v1alpha1.BGPFamily{"IPv6"}})
	add("g", v1alpha1.BGPPeerSpec{Address: "fd00::1", ASN: 1, GracefulRestart: v1alpha1.BGPGracefulRestart{Enabled: new(false)}})
	g := globalOf(n, "me")
	if g.ASN != 65001 || g.RouterID != n.Own[0] || g.NextHops != [2]netip.Addr{n.Own[0]} {
		t.Errorf("%+v", g)
	}
	peers := around.peersOf(n, g)
	want := bgp.Peer{
		Name: "a", Address: netip.MustParseAddr("10.0.0.254"), Port: 1179, ASN: 4200000000, LocalASN: 65002, Password: "swordfish",
		Source: n.Own[0], Multihop: 3, HoldTime: 10 * time.Second, KeepaliveTime: 3 * time.Second, ConnectRetryTime: 10 * time.Second,
		RestartTime: 120 * time.Second, BFDInterval: 300 * time.Millisecond, BFDMultiplier: 3, IPv4: true,
	}
	if peers[0] != want {
		t.Errorf("%+v, want %+v", peers[0], want)
	}
	for i, word := range []string{"", "BGPPeer a has the same address", "no key none", "has 0 bytes", "no address 10.0.0.9; spec.passwordKey: the password of key long has 81 bytes", "no InternalIP of family IPv6", ""} {
		if !strings.Contains(peers[i].Problem, word) || (word == "") != (peers[i].Problem == "") {
			t.Errorf("%s: %q, want %q", peers[i].Name, peers[i].Problem, word)
		}
	}
	if p := peers[6]; p.IPv4 || !p.IPv6 || p.RestartTime != 0 || p.HoldTime != 90*time.Second || p.KeepaliveTime != 30*time.Second {
		t.Errorf("%+v", p)
	}
	if a, b := routerID(nil, "node-1"), routerID(nil, "node-2"); !a.Is4() || a == b || a.IsUnspecified() {
		t.Errorf("router IDs %s and %s", a, b)
	}
}
