package bgp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"

	"github.com/onelb/onelb/test/lab/bgprouter"
	"github.com/onelb/onelb/test/lab/ns"
	"github.com/onelb/onelb/test/lab/proc"
)

const (
	nsPrefix = "onelb-bgp-"
	inside   = "ONELB_BGP_TEST_INSIDE"
)

// TestMain runs the tests in a network namespace of their own: the library opens
// sockets where the process is.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv(crashing) != "":
		os.Exit(speakUntilKilled())
	case os.Geteuid() != 0: // what needs namespaces says so
	case os.Getenv(inside) == "":
		os.Exit(reexec())
	default:
		if err := plug(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	// The library ends a session's queue while it may still be handing over its last
	// message, and that goroutine then waits for ever: one for a session, if at all.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/eapache/channels.(*InfiniteChannel).infiniteBuffer"))
}

// routerName is the router's namespace of the process that runs the tests.
func routerName(pid int) string { return fmt.Sprintf("%s%d", nsPrefix, pid) }

func reexec() int {
	left, _ := ns.Named(nsPrefix) // of a run that was interrupted
	for _, n := range left {
		_ = ns.DeleteNamed(n)
	}
	cmd := exec.CommandContext(context.Background(), os.Args[0], os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if cmd.Process != nil {
		_ = ns.DeleteNamed(routerName(cmd.Process.Pid))
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.ExitCode()
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// This side of the wire is three nodes, the other one the router.
var (
	nodes4   = []netip.Addr{netip.MustParseAddr("10.79.0.11"), netip.MustParseAddr("10.79.0.12"), netip.MustParseAddr("10.79.0.13")}
	nodes6   = []netip.Addr{netip.MustParseAddr("fd00:79::11"), netip.MustParseAddr("fd00:79::12"), netip.MustParseAddr("fd00:79::13")}
	router4  = netip.MustParseAddr("10.79.0.1")
	router6  = netip.MustParseAddr("fd00:79::1")
	routerNS *ns.Namespace
)

func plug() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	if routerNS, err = ns.New(routerName(os.Getpid())); err != nil {
		return err
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(routerNS.FD())}
	if err := netlink.LinkAdd(veth); err != nil {
		return err
	}
	if err := configure(append(nodes4, nodes6...)); err != nil {
		return err
	}
	return routerNS.Do(func() error { return configure([]netip.Addr{router4, router6}) })
}

func configure(addrs []netip.Addr) error {
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	for _, a := range addrs {
		bits := 24
		if a.Is6() {
			bits = 64
		}
		parsed, err := netlink.ParseAddr(netip.PrefixFrom(a, bits).String())
		if err != nil {
			return err
		}
		if a.Is6() {
			parsed.Flags = 0x02 // no duplicate address detection: nobody is there yet
		}
		if err := netlink.AddrAdd(link, parsed); err != nil {
			return err
		}
	}
	return nil
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until ok, which says what is missing, says nothing.
func eventually(t *testing.T, what string, ok func() string) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		missing := ok()
		if missing == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s: %s", what, missing)
		}
	}
}

// place is where a router of a test runs.
func place(t *testing.T) bgprouter.Options {
	t.Helper()
	return placeIn(t, routerNS)
}

func placeIn(t *testing.T, host proc.Host) bgprouter.Options {
	t.Helper()
	needRoot(t)
	dir, err := os.MkdirTemp("", "onelb-bgp-")
	must(t, err)
	spawner := proc.NewSpawner(filepath.Base(dir), os.Environ())
	t.Cleanup(func() {
		if t.Failed() {
			logs, _ := filepath.Glob(filepath.Join(dir, "*.log"))
			for _, l := range logs {
				b, _ := os.ReadFile(l)
				t.Logf("%s:\n%s", filepath.Base(l), b)
			}
		}
		spawner.Close()
		must(t, os.RemoveAll(dir))
	})
	return bgprouter.Options{Spawner: spawner, Host: host, Name: "router", Dir: dir}
}

// frr is a router in AS 64512 that knows the nodes, in AS 65001, over IPv4. extra
// are more lines for each neighbour.
func frr(t *testing.T, extra ...string) *bgprouter.FRR {
	t.Helper()
	f, err := bgprouter.StartFRR(t.Context(), place(t))
	must(t, err)
	t.Cleanup(func() { must(t, f.Stop()) })
	must(t, f.Configure(t.Context(), frrConfig(nodes4, extra...)...))
	return f
}

func frrConfig(nodes []netip.Addr, extra ...string) []string {
	lines := []string{
		"router bgp 64512", "bgp router-id 10.79.0.1", "no bgp ebgp-requires-policy", "no bgp default ipv4-unicast",
		"bgp bestpath as-path multipath-relax",
	}
	for _, n := range nodes {
		lines = append(lines, fmt.Sprintf("neighbor %s remote-as 65001", n))
		for _, e := range extra {
			lines = append(lines, fmt.Sprintf("neighbor %s %s", n, e))
		}
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		lines = append(lines, "address-family "+family+" unicast", "maximum-paths 64")
		for _, n := range nodes {
			lines = append(lines, fmt.Sprintf("neighbor %s activate", n))
		}
		lines = append(lines, "exit-address-family")
	}
	return lines
}

// node is a speaker with an address of its own.
type node struct {
	t       *testing.T
	speaker *Speaker
	metrics *Metrics
	stop    func()
	desired Desired
}

// newNode is node i of the three, with the router as peer "rack".
func newNode(i int) *node {
	return &node{desired: Desired{
		Global: Global{ASN: 65001, RouterID: nodes4[i], NextHops: [2]netip.Addr{nodes4[i], nodes6[i]}},
		Peers: []Peer{{
			Name: "rack", Address: router4, Port: 179, ASN: 64512, Source: nodes4[i], HoldTime: 90 * time.Second,
			KeepaliveTime: 30 * time.Second, ConnectRetryTime: 2 * time.Second, RestartTime: 120 * time.Second, IPv4: true, IPv6: true,
		}},
	}}
}

func (n *node) start(t *testing.T, restarting bool) *node {
	t.Helper()
	needRoot(t)
	m, err := NewMetrics(prometheus.NewRegistry())
	must(t, err)
	n.t, n.metrics = t, m
	n.speaker, err = New(Options{Restarting: restarting, Metrics: m})
	must(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- n.speaker.Run(ctx) }()
	stopped := false
	n.stop = func() {
		if !stopped {
			stopped = true
			cancel()
			must(t, <-done)
		}
	}
	t.Cleanup(n.stop)
	n.set()
	return n
}

// set hands over a copy of what is desired.
func (n *node) set() {
	d := n.desired
	d.Peers = append([]Peer{}, d.Peers...)
	d.Routes = append([]Route{}, d.Routes...)
	n.speaker.Set(&d)
}

// routes makes the prefixes the node's routes.
func (n *node) routes(a *Attributes, prefixes ...string) {
	n.desired.Routes = nil
	for _, p := range prefixes {
		n.desired.Routes = append(n.desired.Routes, Route{netip.MustParsePrefix(p), a})
	}
	if n.speaker != nil {
		n.set()
	}
}

func (n *node) session() Session {
	all := n.speaker.Sessions()
	if len(all) == 0 {
		return Session{}
	}
	return all[0]
}

func (n *node) up() {
	n.t.Helper()
	eventually(n.t, "the session is up", func() string {
		if s := n.session(); !s.Up() {
			return fmt.Sprintf("%+v", s)
		}
		return ""
	})
}

func (n *node) says(text string) {
	n.t.Helper()
	eventually(n.t, "the session says why", func() string {
		if s := n.session(); !strings.Contains(s.LastError+s.Problem, text) {
			return fmt.Sprintf("%+v", s)
		}
		return ""
	})
}
