package announcer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/loadbalancer/announcer"
	"github.com/onelb/onelb/loadbalancer/announcer/addr"
	"github.com/onelb/onelb/loadbalancer/announcer/arpfilter"
	"github.com/onelb/onelb/loadbalancer/announcer/member"
	"github.com/onelb/onelb/loadbalancer/announcer/wire"
	"github.com/onelb/onelb/test/lab/ns"
)

// These tests run agents against the real kernel: each in a network namespace
// of its own, all on one bridge.

const nsPrefix = "onelb-ann-"

func TestMain(m *testing.M) {
	left, _ := ns.Named(nsPrefix) // of a run that was interrupted
	for _, n := range left {
		_ = ns.DeleteNamed(n)
	}
	goleak.VerifyTestMain(m)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(4 * time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// lan is a switch and the hosts on it.
type lan struct {
	t      *testing.T
	bridge *ns.Namespace
	key    string
	hosts  int
}

func newLAN(t *testing.T) *lan {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	l := &lan{t: t, bridge: namespace(t), key: filepath.Join(t.TempDir(), "key")}
	must(t, os.WriteFile(l.key, bytes.Repeat([]byte{7}, member.KeySize), 0o600))
	must(t, l.bridge.Do(func() error {
		// No multicast snooping: it would need a querier.
		off := false
		br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}, MulticastSnooping: &off}
		if err := netlink.LinkAdd(br); err != nil {
			return err
		}
		return netlink.LinkSetUp(br)
	}))
	return l
}

func namespace(t *testing.T) *ns.Namespace {
	t.Helper()
	n, err := ns.New(fmt.Sprintf("%s%d", nsPrefix, time.Now().UnixNano()))
	must(t, err)
	t.Cleanup(func() { must(t, n.Delete()) })
	return n
}

// host is a namespace whose eth0 is a port of the switch.
type host struct {
	*ns.Namespace
	lan  *lan
	port string
	ip   netip.Addr
	name string
}

func (l *lan) host() *host {
	l.t.Helper()
	l.hosts++
	h := &host{
		Namespace: namespace(l.t), lan: l, port: fmt.Sprintf("port%d", l.hosts),
		ip: netip.AddrFrom4([4]byte{10, 77, 0, byte(10 + l.hosts)}), name: fmt.Sprintf("node-%d", l.hosts),
	}
	must(l.t, l.bridge.Do(func() error {
		br, err := netlink.LinkByName("br0")
		if err != nil {
			return err
		}
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: h.port, MasterIndex: br.Attrs().Index, Flags: net.FlagUp},
			PeerName:  "eth0", PeerNamespace: netlink.NsFd(h.FD()),
		})
	}))
	must(l.t, h.Do(func() error {
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		for _, a := range []string{h.ip.String() + "/24", fmt.Sprintf("fd77::%d/64", 10+l.hosts)} {
			parsed, err := netlink.ParseAddr(a)
			if err != nil {
				return err
			}
			parsed.Flags = unix.IFA_F_NODAD
			if err := netlink.AddrAdd(eth0, parsed); err != nil {
				return err
			}
		}
		return netlink.LinkSetUp(eth0)
	}))
	h.cable(true)
	return h
}

// cable plugs the host in or cuts it off.
func (h *host) cable(in bool) {
	h.lan.t.Helper()
	must(h.lan.t, h.lan.bridge.Do(func() error {
		port, err := netlink.LinkByName(h.port)
		if err != nil {
			return err
		}
		if in {
			return netlink.LinkSetUp(port)
		}
		return netlink.LinkSetDown(port)
	}))
}

// has reports whether the host's kernel has the address.
func (h *host) has(a netip.Addr) bool {
	h.lan.t.Helper()
	return slices.Contains(h.all(), a)
}

// all are the addresses that the host's kernel has from an agent.
func (h *host) all() (out []netip.Addr) {
	h.lan.t.Helper()
	for _, e := range h.ours() {
		out = append(out, e.Address)
	}
	return out
}

func (h *host) ours() (ours []addr.Entry) {
	h.lan.t.Helper()
	table, err := addr.Open(addr.Options{Enter: h.Do})
	must(h.lan.t, err)
	defer func() { _ = table.Close() }()
	for range 10 { // the kernel makes and removes other namespaces meanwhile
		if ours, err = table.Ours(func(netip.Addr) bool { return false }); !errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
	}
	must(h.lan.t, err)
	return ours
}

// renewed waits until the kernel has been given the addresses' lifetimes anew so many
// times, and fails if one is missing meanwhile.
func (h *host) renewed(times int, addresses ...netip.Addr) {
	h.lan.t.Helper()
	left, count := map[netip.Addr]time.Duration{}, map[netip.Addr]int{}
	eventually(h.lan.t, "the lifetimes are renewed", func() bool {
		there := 0
		for _, o := range h.ours() {
			if left[o.Address] > 0 && o.Valid > left[o.Address] {
				count[o.Address]++
			}
			left[o.Address] = o.Valid
		}
		for _, a := range addresses {
			if !h.has(a) {
				h.lan.t.Fatalf("%s went although the agent lives", a)
			}
			if count[a] >= times {
				there++
			}
		}
		return there == len(addresses)
	})
}

// memory is announcer.Memory that outlives an agent.
type memory struct {
	mu   sync.Mutex
	held map[netip.Addr]announcer.Holding
}

func (m *memory) Held() map[netip.Addr]announcer.Holding {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.held
}

func (m *memory) SetHeld(h map[netip.Addr]announcer.Holding) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held = h
}

// reports is announcer.Reporter that remembers.
type reports struct {
	mu        sync.Mutex
	holders   map[netip.Addr]*announcer.Holding
	moved     []announcer.Holding
	conflicts []string
	peace     int
}

func (r *reports) Holder(a netip.Addr, h *announcer.Holding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.holders == nil {
		r.holders = map[netip.Addr]*announcer.Holding{}
	}
	r.holders[a] = h
}

func (r *reports) Moved(_ announcer.Address, h announcer.Holding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.moved = append(r.moved, h)
}

func (r *reports) Conflict(a announcer.Address, mac net.HardwareAddr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conflicts = append(r.conflicts, a.Address.String()+" "+mac.String())
}

func (r *reports) Peace(netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.peace++
}

// counts are the moves told, and the conflicts that were taken back.
func (r *reports) counts() (moved, peace int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.moved), r.peace
}

func (r *reports) holder(a netip.Addr) (h *announcer.Holding, told bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h, told = r.holders[a]
	return h, told
}

func (r *reports) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.holders)
}

// agent is a running engine with all that belongs to it.
type agent struct {
	*host
	*announcer.Engine
	reports *reports
	group   *member.Group
	stop    func()
}

const gossipPort = 7947

// lasting is a lifetime that no agent lets lapse, however long it waits for a processor.
const lasting = 10 * time.Second

// start runs an agent on the host; kill it with stop, which leaves the kernel
// as it is.
func (h *host) start(m *memory, lifetime time.Duration) *agent {
	t := h.lan.t
	t.Helper()
	if m == nil {
		m = &memory{}
	}
	table, err := addr.Open(addr.Options{Enter: h.Do})
	must(t, err)
	group, err := member.New(member.Options{
		Name: h.name, Port: gossipPort, KeyFile: h.lan.key, Enter: h.Do, Logger: klog.Background(),
	})
	must(t, err)
	var engine *announcer.Engine
	w, err := wire.New(wire.Options{Enter: h.Do, Seen: func(s wire.Sighting) { engine.Sighted(s) }, Asked: func(s wire.Sighting) { engine.Asked(s) }})
	must(t, err)
	filter := arpfilter.New(arpfilter.Options{Enter: h.Do, Failed: func(err error) {
		if err != nil {
			t.Errorf("%s: %v", h.name, err)
		}
	}})
	metrics, err := announcer.NewMetrics(prometheus.NewRegistry())
	must(t, err)
	a := &agent{host: h, reports: &reports{}, group: group}
	engine, err = announcer.New(announcer.Options{
		Node: h.name, Lifetime: lifetime, Kernel: table, Wire: w, Filter: filter, Group: group, Changed: group.Changed(),
		Reporter: a.reports, Memory: m, Metrics: metrics,
	})
	must(t, err)
	a.Engine = engine

	ctx, cancel := context.WithCancel(klog.NewContext(context.Background(), klog.Background().WithName(h.name)))
	filtering, enough := context.WithCancel(context.WithoutCancel(ctx))
	var all sync.WaitGroup
	for _, run := range []func(context.Context) error{
		w.Run, group.Run,
		func(ctx context.Context) error { defer enough(); return engine.Run(ctx) },
		func(context.Context) error { return filter.Run(filtering) },
		func(ctx context.Context) error { return table.WatchLinks(ctx, engine.LinksChanged) },
	} {
		all.Go(func() {
			if err := run(ctx); err != nil {
				t.Errorf("%s: %v", h.name, err)
			}
		})
	}
	var once sync.Once
	a.stop = func() {
		once.Do(func() {
			cancel()
			all.Wait()
			_ = table.Close()
		})
	}
	t.Cleanup(a.stop)
	return a
}

var (
	vip4 = netip.MustParseAddr("10.77.0.100")
	vip6 = netip.MustParseAddr("fd77::100")
)

// cluster is all the hosts and the addresses, each with a Service.
func cluster(hosts []*host, addresses ...netip.Addr) *announcer.Cluster {
	c := &announcer.Cluster{}
	for _, h := range hosts {
		c.Nodes = append(c.Nodes, announcer.Node{Name: h.name, Addresses: []netip.Addr{h.ip}})
	}
	for _, a := range addresses {
		c.Addresses = append(c.Addresses, announcer.Address{
			Address: a, Services: []announcer.Service{{Namespace: "default", Name: "web", UID: "1"}},
		})
	}
	return c
}

func set(agents []*agent, c *announcer.Cluster) {
	for _, a := range agents {
		var peers []member.Peer
		for _, n := range c.Nodes {
			peers = append(peers, member.Peer{Name: n.Name, Address: n.Addresses[0]})
		}
		a.group.SetPeers(a.ip, peers)
		a.SetCluster(c)
	}
}

// holders are the hosts that have the address. One that moves while they are looked at
// is not on two of them.
func holders(hosts []*host, a netip.Addr) []*host {
	have := func(h *host) bool { return h.has(a) }
	var out []*host
	for _, h := range hosts {
		if have(h) {
			out = append(out, h)
		}
	}
	if len(out) > 1 {
		out = slices.DeleteFunc(out, func(h *host) bool { return !have(h) })
	}
	return out
}

func TestOneAgent(t *testing.T) {
	l := newLAN(t)
	node, client := l.host(), l.host()
	hosts := []*host{node}
	mem := &memory{}
	a := node.start(mem, lasting)

	seen := make(chan wire.Sighting, 1000)
	w, err := wire.New(wire.Options{Enter: client.Do, Seen: func(s wire.Sighting) { seen <- s }})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	defer func() { cancel(); must(t, <-done) }()
	for _, x := range []netip.Addr{vip4, vip6} {
		must(t, w.Listen(interfaceOf(t, client), x))
	}

	set([]*agent{a}, cluster(hosts, vip4, vip6))
	for _, x := range []netip.Addr{vip4, vip6} {
		eventually(t, "the address is there", func() bool { return node.has(x) })
	}
	announced := map[netip.Addr]int{}
	for announced[vip4] < 6 || announced[vip6] < 3 { // ARP in two forms each
		select {
		case s := <-seen:
			announced[s.Address]++
			if s.MAC.String() != interfaceOf(t, node).MAC.String() {
				t.Errorf("saw %+v", s)
			}
		case <-time.After(time.Minute):
			t.Fatalf("announcements seen: %v", announced)
		}
	}
	if h, _ := a.reports.holder(vip4); h == nil || h.Node != node.name || h.Interface != "eth0" || h.Epoch != 1 {
		t.Errorf("reported %+v", h)
	}

	t.Run("renewed", func(*testing.T) { node.renewed(2, vip4, vip6) })
	t.Run("restart", func(t *testing.T) {
		a.stop()
		if !node.has(vip4) {
			t.Fatal("the end of the agent took the address away")
		}
		a = node.start(mem, lasting)
		set([]*agent{a}, cluster(hosts, vip4, vip6))
		node.renewed(1, vip4, vip6)
		if h, _ := a.reports.holder(vip4); h == nil || h.Epoch != 1 {
			t.Errorf("reported %+v, want the old epoch", h)
		}
		if moved, _ := a.reports.counts(); moved != 0 {
			t.Errorf("a restart counts as %d takeovers", moved)
		}
	})
	t.Run("release", func(t *testing.T) {
		c := cluster(hosts, vip4, vip6)
		c.Addresses[0].Services = nil
		c.Addresses[0].Holder = &announcer.Holding{Node: node.name, Interface: "eth0", Epoch: 1}
		set([]*agent{a}, c)
		eventually(t, "the release is acknowledged", func() bool {
			h, told := a.reports.holder(vip4)
			return told && h == nil
		})
		if node.has(vip4) {
			t.Error("acknowledged, and still there")
		}
		if !node.has(vip6) {
			t.Error("the other address went too")
		}
	})
	t.Run("vanished object", func(t *testing.T) {
		set([]*agent{a}, cluster(hosts))
		if !node.has(vip6) {
			t.Error("gone at once")
		}
		eventually(t, "it goes in the end", func() bool { return !node.has(vip6) })
	})
}

func interfaceOf(t *testing.T, h *host) addr.Interface {
	t.Helper()
	table, err := addr.Open(addr.Options{Enter: h.Do})
	must(t, err)
	defer func() { _ = table.Close() }()
	all, err := table.Interfaces()
	must(t, err)
	for _, i := range all {
		if i.Name == "eth0" {
			return i
		}
	}
	t.Fatal("no eth0")
	return addr.Interface{}
}

func TestFailover(t *testing.T) {
	for _, count := range []int{2, 3} {
		t.Run(fmt.Sprint(count), func(t *testing.T) {
			l := newLAN(t)
			var hosts []*host
			var agents []*agent
			for range count {
				h := l.host()
				hosts = append(hosts, h)
				agents = append(agents, h.start(nil, lasting))
			}
			set(agents, cluster(hosts, vip4, vip6))
			for _, a := range agents {
				eventually(t, "all agents see each other", func() bool { return len(a.group.Members()) == count })
			}
			eventually(t, "both addresses are held", func() bool {
				return len(holders(hosts, vip4)) == 1 && len(holders(hosts, vip6)) == 1
			})
			time.Sleep(time.Second) // the others must not join in
			now := holders(hosts, vip4)
			if len(now) != 1 {
				t.Fatalf("%d nodes hold it", len(now))
			}
			first := now[0]

			first.cable(false)
			cut := time.Now()
			var rest []*host
			for _, h := range hosts {
				if h != first {
					rest = append(rest, h)
				}
			}
			eventually(t, "another one has it", func() bool { return len(holders(rest, vip4)) == 1 })
			t.Logf("taken over %v after the cut", time.Since(cut))
			second := holders(rest, vip4)[0]

			time.Sleep(2 * time.Second)
			first.cable(true)
			eventually(t, "the cut one knows that it lost", func() bool { return !first.has(vip4) && !first.has(vip6) || len(holders(hosts, vip4)) == 1 })
			time.Sleep(2 * time.Second)
			if got := holders(hosts, vip4); len(got) != 1 || got[0] != second {
				t.Errorf("after the return %d nodes hold it, want %s alone", len(got), second.name)
			}
		})
	}
}
