package lab_test

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ndp"
	"github.com/onelb/onelb/test/lab"
	"github.com/onelb/onelb/test/lab/labtest"
	"github.com/onelb/onelb/test/lab/wire"
)

// pings sends up to a few echo requests and says whether one was answered: the
// first may be lost to address resolution.
func pings(t *testing.T, from *lab.Host, to netip.Addr) bool {
	t.Helper()
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err := from.Ping(ctx, to)
		cancel()
		if err == nil {
			return true
		}
	}
	return false
}

// TestReach pings along every way a packet has, in both families.
func TestReach(t *testing.T) {
	l := labtest.Shared(t)
	pods := workload(t, l, lab.Workload{Name: "reach", Replicas: 3})
	nodes := l.Nodes()
	var routes []struct {
		name string
		from *lab.Host
		to   []netip.Addr
	}
	add := func(name string, from *lab.Host, to []netip.Addr) {
		routes = append(routes, struct {
			name string
			from *lab.Host
			to   []netip.Addr
		}{name, from, to})
	}
	add("internet to router", l.Internet(), l.Router(1).Addrs(lab.Public))
	add("internet to node", l.Internet(), nodes[0].Addrs(lab.Private))
	add("node to internet", nodes[0].Host, l.Internet().Addrs(lab.Public))
	add("LAN to router", l.LAN(), l.Router(1).Addrs(lab.Private))
	add("LAN to node", l.LAN(), nodes[1].Addrs(lab.Private))
	add("node to node", nodes[0].Host, nodes[2].Addrs(lab.Private))
	add("control to node", l.Control(), nodes[0].Addrs(lab.Management))
	add("router to control", l.Router(1).Host, l.Control().Addrs(lab.Management))
	add("node to its pod", nodes[0].Host, pods[0].PodIPs())
	add("node to another's pod", nodes[0].Host, pods[1].PodIPs())
	add("pod to pod", pods[0].Host, pods[2].PodIPs())
	add("pod to internet", pods[1].Host, l.Internet().Addrs(lab.Public))
	for _, r := range routes {
		for _, to := range r.to {
			if !pings(t, r.from, to) {
				t.Errorf("%s: %s gives no answer", r.name, to)
			}
		}
	}
	if _, ok := once(t, l.LAN(), lab.ControlAddr); ok {
		t.Error("LAN to control: answered, but the management network must be apart")
	}
}

// TestProductionSettings holds the kernel settings that tests elsewhere rely on.
func TestProductionSettings(t *testing.T) {
	l := labtest.Shared(t)
	node := l.Nodes()[0]
	for name, want := range map[string]string{
		"net/ipv4/conf/all/rp_filter": "1", "net/ipv4/conf/eth0/rp_filter": "1",
		"net/ipv4/ip_forward": "1", "net/ipv6/conf/eth0/forwarding": "1",
		"net/ipv4/conf/eth0/arp_ignore": "0",
	} {
		if got, err := node.ReadSysctl(name); err != nil || got != want {
			t.Errorf("%s on %s: %q, %v; want %q", name, node.Name(), got, err, want)
		}
	}
}

// TestWhoHas asks for addresses that one machine has, and for one nobody has.
func TestWhoHas(t *testing.T) {
	l := labtest.Shared(t)
	node := l.Nodes()[1]
	for _, addr := range node.Addrs(lab.Private) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		got, err := l.LAN().WhoHas(ctx, lab.Private, addr)
		cancel()
		if err != nil || len(got) != 1 || got[0].MAC.String() != node.Link(lab.Private).MAC().String() {
			t.Errorf("who has %s: %v, %v; want only %s", addr, got, err, node.Link(lab.Private).MAC())
		}
	}
	for _, addr := range []string{"10.20.0.99", "fd00:20::99"} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		got, err := l.LAN().WhoHas(ctx, lab.Private, netip.MustParseAddr(addr))
		cancel()
		if err != nil || len(got) != 0 {
			t.Errorf("who has %s: %v, %v; want nobody", addr, got, err)
		}
	}
}

func TestNames(t *testing.T) {
	l := labtest.Shared(t)
	if _, err := l.Link("node-9", lab.Private); err == nil {
		t.Error("a link of a node that does not exist: no error")
	}
	if _, err := l.Link("internet", lab.Private); err == nil {
		t.Error("a link of the internet to the private network: no error")
	}
	for _, name := range l.Namespaces() {
		if !strings.HasPrefix(name, "onelb-labtest-") {
			t.Errorf("namespace %s does not carry the lab's prefix", name)
		}
	}
}

// TestSniff announces an address with frames that others have encoded, and finds
// them; an ordinary request is no announcement.
func TestSniff(t *testing.T) {
	l := labtest.Shared(t)
	sniffer, err := l.Sniff(lab.Private)
	must(t, err)
	defer func() { must(t, sniffer.Close()) }()
	node := l.Nodes()[0]
	v4, v6 := netip.MustParseAddr("10.20.0.88"), netip.MustParseAddr("fd00:20::88")
	begin := time.Now()
	must(t, node.Do(func() error { return announce(node.Link(lab.Private).MAC(), v4, v6) }))
	for addr, kind := range map[netip.Addr]wire.Kind{v4: wire.GratuitousReply, v6: wire.UnsolicitedNA} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		got, err := sniffer.Wait(ctx, addr, begin)
		cancel()
		if err != nil || got.Kind != kind || got.MAC.String() != node.Link(lab.Private).MAC().String() {
			t.Errorf("announcement of %s: %v, %v; want a %s by %s", addr, got, err, kind, node.Link(lab.Private).MAC())
		}
	}
	for _, a := range sniffer.Seen() {
		if a.Addr != v4 && a.Addr != v6 {
			t.Errorf("something else counts as an announcement: %v", a)
		}
	}
}

// announce sends a question and an answer to everyone from the current namespace.
func announce(mac net.HardwareAddr, v4, v6 netip.Addr) error {
	ifi, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	client, err := arp.Dial(ifi)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	everyone := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	if err := client.Request(netip.MustParseAddr("10.20.0.89")); err != nil {
		return err
	}
	reply, err := arp.NewPacket(arp.OperationReply, mac, v4, everyone, v4)
	if err != nil {
		return err
	}
	if err := client.WriteTo(reply, everyone); err != nil {
		return err
	}
	conn, _, err := ndp.Listen(ifi, ndp.LinkLocal)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return conn.WriteTo(&ndp.NeighborAdvertisement{
		Override: true, TargetAddress: v6,
		Options: []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Target, Addr: mac}},
	}, nil, netip.IPv6LinkLocalAllNodes())
}
