package nft

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/test/lab/ns"
)

// stage is a small datacenter for packets: a client on the public network, a
// router, and two nodes and a client on the private one.
type stage struct {
	t      *testing.T
	kernel *Kernel
	hosts  map[string]*ns.Namespace
}

// stageNetwork gives each host its address on the bridge of its network. The
// router is on both.
const stageNetwork = `
link add pub type bridge
link add priv type bridge
link set pub up
link set priv up
`

var stageHosts = []struct{ name, bridge, v4, v6, gw4, gw6 string }{
	{"client", "pub", "203.0.113.1/24", "2001:db8:113::1/64", "", ""},
	{"router", "pub", "203.0.113.2/24", "2001:db8:113::2/64", "", ""},
	{"router", "priv", "10.20.0.1/24", "fd00:20::1/64", "", ""},
	{"node-1", "priv", "10.20.0.11/24", "fd00:20::11/64", "10.20.0.1", "fd00:20::1"},
	{"node-2", "priv", "10.20.0.12/24", "fd00:20::12/64", "10.20.0.1", "fd00:20::1"},
	{"lan", "priv", "10.20.0.250/24", "fd00:20::250/64", "10.20.0.1", "fd00:20::1"},
}

var (
	public4, public6 = netip.MustParseAddr("203.0.113.100"), netip.MustParseAddr("2001:db8:113::100")
	nodes4           = []string{"10.20.0.11", "10.20.0.12"}
	nodes6           = []string{"fd00:20::11", "fd00:20::12"}
)

// newStage builds it with the public addresses on the router. Each test has its own.
func newStage(t *testing.T) *stage {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	s := &stage{t: t, hosts: map[string]*ns.Namespace{}}
	for _, name := range []string{"switch", "client", "router", "node-1", "node-2", "lan"} {
		s.hosts[name] = s.namespace(fmt.Sprintf("onelb-stage-%d-%s", os.Getpid(), name))
	}
	s.ip("switch", stageNetwork)
	for i, h := range stageHosts {
		dev := "eth0"
		if h.name == "router" && h.bridge == "priv" {
			dev = "eth1"
		}
		s.ip("switch", fmt.Sprintf("link add p%d type veth peer name %s netns %s\nlink set p%d master %s up", i, dev, s.hosts[h.name].Name(), i, h.bridge))
		s.ip(h.name, fmt.Sprintf("link set %s up\naddr add %s dev %s\naddr add %s dev %s nodad", dev, h.v4, dev, h.v6, dev))
		if h.gw4 != "" {
			s.ip(h.name, fmt.Sprintf("route add 0.0.0.0/0 via %s\nroute add ::/0 via %s", h.gw4, h.gw6))
		}
	}
	s.ip("router", fmt.Sprintf("addr add %s/32 dev eth0\naddr add %s/128 dev eth0 nodad", public4, public6))
	s.sysctl("router", "net/ipv4/ip_forward", "1")
	s.sysctl("router", "net/ipv6/conf/all/forwarding", "1")
	s.kernel = testKernel(t, s.hosts["router"])
	return s
}

func (s *stage) namespace(name string) *ns.Namespace {
	s.t.Helper()
	s.must(ns.DeleteNamed(name))
	n, err := ns.New(name)
	s.must(err)
	s.t.Cleanup(func() {
		if err := n.Delete(); err != nil {
			s.t.Error(err)
		}
	})
	return n
}

func (s *stage) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// ip runs a batch of ip(8) commands on a host.
func (s *stage) ip(host, batch string) {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), "ip", "-n", s.hosts[host].Name(), "-batch", "-")
	cmd.Stdin = strings.NewReader(batch)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("ip on %s: %v\n%s\n%s", host, err, out, batch)
	}
}

func (s *stage) sysctl(host, name, value string) {
	s.t.Helper()
	s.must(s.hosts[host].Do(func() error { return os.WriteFile("/proc/sys/"+name, []byte(value), 0o600) }))
}

// serve answers on a TCP or UDP port of a host with its name and whom it saw.
func (s *stage) serve(host, network string, port int) {
	s.t.Helper()
	s.serveAt(host, network, fmt.Sprintf(":%d", port))
}

func (s *stage) serveAt(host, network, at string) {
	s.t.Helper()
	if network == "udp" {
		var conn net.PacketConn
		s.must(s.hosts[host].Do(func() (err error) {
			conn, err = (&net.ListenConfig{}).ListenPacket(context.Background(), network, at)
			return err
		}))
		s.t.Cleanup(func() { _ = conn.Close() })
		go func() {
			b := make([]byte, 2048)
			for {
				_, from, err := conn.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = conn.WriteTo([]byte(host+" "+hostOf(from)), from)
			}
		}()
		return
	}
	l, err := s.hosts[host].Listen(network, at)
	s.must(err)
	s.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go s.converse(host, conn)
		}
	}()
}

// converse answers each line until the client is gone.
func (s *stage) converse(host string, conn net.Conn) {
	defer func() { _ = conn.Close() }()
	b := make([]byte, 2048)
	for {
		if _, err := conn.Read(b); err != nil {
			return
		}
		if _, err := conn.Write([]byte(host + " " + hostOf(conn.RemoteAddr()))); err != nil {
			return
		}
	}
}

func hostOf(a net.Addr) string {
	ap := netip.MustParseAddrPort(a.String())
	return ap.Addr().Unmap().WithZone("").String()
}

// open dials from a host and has one answer.
func (s *stage) open(host, network string, to netip.AddrPort, within time.Duration) (net.Conn, string, error) {
	var conn net.Conn
	err := s.hosts[host].Do(func() (err error) {
		conn, err = (&net.Dialer{Timeout: within}).DialContext(s.t.Context(), network, to.String())
		return err
	})
	if err != nil {
		return nil, "", err
	}
	answer, err := ask(conn, within)
	if err != nil {
		_ = conn.Close()
	}
	return conn, answer, err
}

func ask(conn net.Conn, within time.Duration) (string, error) {
	if err := conn.SetDeadline(time.Now().Add(within)); err != nil {
		return "", err
	}
	if _, err := conn.Write([]byte("hello\n")); err != nil {
		return "", err
	}
	b := make([]byte, 2048)
	n, err := conn.Read(b)
	return string(b[:n]), err
}

// patience is for what has to work; whatever takes longer is broken.
const patience = 30 * time.Second

// asks opens a connection, has an answer and closes it.
func (s *stage) asks(host, network string, to netip.AddrPort) (node, client string) {
	s.t.Helper()
	conn, answer, err := s.open(host, network, to, patience)
	if err != nil {
		s.t.Fatalf("%s asks %s/%s: %v\n%s", host, to, network, err, s.ruleset())
	}
	_ = conn.Close()
	node, client, _ = strings.Cut(answer, " ")
	return node, client
}

// silent fails the test if an answer comes.
func (s *stage) silent(host, network string, to netip.AddrPort) {
	s.t.Helper()
	if conn, answer, err := s.open(host, network, to, 300*time.Millisecond); err == nil {
		_ = conn.Close()
		s.t.Errorf("%s asks %s/%s and is answered by %s", host, to, network, answer)
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		s.t.Errorf("%s asks %s/%s and is refused, not ignored", host, to, network)
	}
}

// refused fails the test unless a connection is refused at once.
func (s *stage) refused(host, network string, to netip.AddrPort) {
	s.t.Helper()
	if _, _, err := s.open(host, network, to, patience); !errors.Is(err, syscall.ECONNREFUSED) {
		s.t.Errorf("%s asks %s/%s: %v, want that it is refused", host, to, network, err)
	}
}

func (s *stage) ruleset() string { return nftList(s.t, s.hosts["router"], "list", "ruleset") }

// apply programs the router as its agent does.
func (s *stage) apply(d router.Document, change ...func(*Input)) {
	s.t.Helper()
	d.Cluster = "lab"
	d = d.Normalize()
	s.must(d.Validate())
	in := Input{
		Documents: []router.Document{d}, Inner: []string{"eth1"},
		Networks: []netip.Prefix{
			netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8:113::/64"),
			netip.MustParsePrefix("10.20.0.0/24"), netip.MustParsePrefix("fd00:20::/64"),
		},
	}
	for _, f := range change {
		f(&in)
	}
	p := New(in)
	s.must(s.kernel.Apply(s.t.Context(), p))
	verify(s.t, s.kernel, p)
}

// stageDocument has one Service of both families over both nodes, for each port.
func stageDocument(change func(*router.Frontend), ports ...uint16) router.Document {
	d := router.Document{Groups: []router.Group{
		{Name: "nodes-ipv4", Check: &router.Check{Port: 10256, Path: "/healthz"}, Members: stageMembers(nodes4)},
		{Name: "nodes-ipv6", Check: &router.Check{Port: 10256, Path: "/healthz"}, Members: stageMembers(nodes6)},
	}}
	for _, port := range ports {
		for _, protocol := range []router.Protocol{router.TCP, router.UDP} {
			for _, a := range []netip.Addr{public4, public6} {
				f := router.Frontend{Address: a, Protocol: protocol, Port: port, Service: "default/web", Group: "nodes-ipv6", BackendPort: 30000 + port}
				if a.Is4() {
					f.Group = "nodes-ipv4"
				}
				if change != nil {
					change(&f)
				}
				d.Frontends = append(d.Frontends, f)
			}
		}
	}
	return d
}

func stageMembers(addresses []string) []router.Member {
	var out []router.Member
	for i, a := range addresses {
		out = append(out, router.Member{Address: netip.MustParseAddr(a), Node: fmt.Sprintf("node-%d", i+1)})
	}
	return out
}
