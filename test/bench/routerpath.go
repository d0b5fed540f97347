package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/nft"
	"github.com/onelb/onelb/test/lab/debian"
	"github.com/onelb/onelb/test/lab/kubebin"
	"github.com/onelb/onelb/test/lab/ns"
)

// The ways through a router that are compared, each in namespaces of its own.
var ways = []way{
	{"plain", plain}, {"tracked", tracked}, {"dnat", translated}, {"1", frontends(1)}, {"1000", frontends(1000)}, {"10000", frontends(10_000)},
	{"iptables_10000", linear}, {"haproxy", proxied},
}

// way prepares a router and returns where the client connects to.
type way struct {
	name    string
	prepare func(ctx context.Context, p *path) (netip.AddrPort, error)
}

func pathRows() []column {
	var rows []column
	for _, w := range ways {
		rows = append(rows, column{"router_conn_rate_" + w.name, "connections/s"}, column{"router_connect_p50_" + w.name, "µs"})
	}
	return rows
}

// pathServer accepts, and closes what it accepted.
var pathServer = netip.MustParseAddrPort("10.20.0.11:30000")

// path is client .1 -- 203.0.113.0/24 -- .2 router .1 -- 10.20.0.0/24 -- .11 server.
type path struct {
	client, router, server *ns.Namespace
	target                 netip.AddrPort
	undo                   []func() error // last first
}

// measurePaths takes turns with all ways, so that what else goes on concerns each.
func measurePaths(ctx context.Context, b *bench) (err error) {
	paths := map[string]*path{}
	defer func() {
		for _, p := range paths {
			err = errors.Join(err, p.close())
		}
	}()
	for _, w := range ways {
		p := &path{}
		paths[w.name] = p
		if err := p.build(w.name); err != nil {
			return fmt.Errorf("build %s: %w", w.name, err)
		}
		if p.target, err = w.prepare(ctx, p); err != nil {
			return fmt.Errorf("prepare %s: %w", w.name, err)
		}
	}
	for range b.times(12) {
		for _, w := range ways {
			p := paths[w.name]
			took, err := p.connects(1, 500*time.Millisecond)
			if err != nil {
				return fmt.Errorf("connect %s: %w", w.name, err)
			}
			slices.Sort(took)
			b.add("router_connect_p50_"+w.name, float64(took[len(took)/2])/float64(time.Microsecond))
			const workers = 4
			began := time.Now()
			if took, err = p.connects(workers, time.Second); err != nil {
				return fmt.Errorf("connect %s: %w", w.name, err)
			}
			b.add("router_conn_rate_"+w.name, float64(len(took))/time.Since(began).Seconds())
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	for _, w := range ways {
		b.note("router_conn_rate_"+w.name, "4 clients for a second in turn with the other ways; client, router and server share the machine")
		b.note("router_connect_p50_"+w.name, "one client, the median of half a second in turn with the other ways")
	}
	b.note("router_conn_rate_iptables_10000", "one rule for each frontend, as the appliance writes them; the one in the middle is used")
	b.note("router_connect_p50_iptables_10000", "one rule for each frontend, as the appliance writes them; the one in the middle is used")
	for _, row := range []string{"router_conn_rate_haproxy", "router_connect_p50_haproxy"} {
		b.note(row, "HAProxy accepts before it has connected to the server")
	}
	return nil
}

func plain(context.Context, *path) (netip.AddrPort, error) { return pathServer, nil }

// tracked is a router that tracks connections and hides clients, as the stock virtual
// router and every home router do, and chooses nothing.
func tracked(ctx context.Context, p *path) (netip.AddrPort, error) {
	return pathServer, nftables(ctx, p.router, `table ip bench {
	chain postrouting { type nat hook postrouting priority srcnat; oifname "eth1" masquerade; }
}`)
}

// translated is the least that a translation can cost: one rule for one address.
func translated(ctx context.Context, p *path) (netip.AddrPort, error) {
	return public(0), nftables(ctx, p.router, fmt.Sprintf(`table ip bench {
	chain prerouting { type nat hook prerouting priority dstnat; ip daddr %s tcp dport %d dnat to %s; }
	chain postrouting { type nat hook postrouting priority srcnat; }
}`, public(0).Addr(), public(0).Port(), pathServer))
}

// nftables loads rules with the nft program.
func nftables(ctx context.Context, in *ns.Namespace, rules string) error {
	cache, err := kubebin.CacheDir()
	if err != nil {
		return err
	}
	nft, err := debian.Find(ctx, cache, "nft", "nftables")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, nft.Path, "-f", "-") //nolint:gosec // ours
	cmd.Env, cmd.Stdin = nft.Env(), strings.NewReader(rules)
	return inNamespace(in, cmd)
}

// public is the n-th frontend: 50 on each address.
func public(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(100 + n/50/250), byte(1 + n/50%250)}), uint16(n%50+1)) //nolint:gosec // small
}

// frontends has the kernel's tables hold n; the last one is used.
func frontends(n int) func(context.Context, *path) (netip.AddrPort, error) {
	return func(ctx context.Context, p *path) (netip.AddrPort, error) {
		d := router.Document{Cluster: "bench", Groups: []router.Group{{Name: "nodes", Members: []router.Member{{Address: pathServer.Addr(), Node: "node-1"}}}}}
		for i := range n {
			d.Frontends = append(d.Frontends, router.Frontend{
				Address: public(i).Addr(), Protocol: router.TCP, Port: public(i).Port(), Service: fmt.Sprintf("default/s%d", i), Group: "nodes", BackendPort: pathServer.Port(),
			})
		}
		kernel := nft.Open(nft.Options{NetNS: p.router.FD()})
		p.undo = append(p.undo, kernel.Close)
		return public(n - 1), kernel.Apply(ctx, nft.New(nft.Input{Documents: []router.Document{d.Normalize()}}))
	}
}

// linear writes 10,000 rules of iptables.
func linear(ctx context.Context, p *path) (netip.AddrPort, error) {
	const n = 10_000
	cache, err := kubebin.CacheDir()
	if err != nil {
		return netip.AddrPort{}, err
	}
	multi, err := debian.Find(ctx, cache, "xtables-nft-multi", "iptables")
	if err != nil {
		return netip.AddrPort{}, err
	}
	var rules strings.Builder
	rules.WriteString("*nat\n:PREROUTING ACCEPT [0:0]\n")
	for i := range n {
		fmt.Fprintf(&rules, "-A PREROUTING -d %s/32 -p tcp -m tcp --dport %d -j DNAT --to-destination %s\n", public(i).Addr(), public(i).Port(), pathServer)
	}
	rules.WriteString("COMMIT\n")
	cmd := exec.CommandContext(ctx, multi.Path, "iptables-restore")
	cmd.Env = multi.Env()
	for _, lib := range multi.LibDirs {
		cmd.Env = append(cmd.Env, "XTABLES_LIBDIR="+filepath.Join(lib, "xtables"))
	}
	cmd.Stdin = strings.NewReader(rules.String())
	return public(n / 2), inNamespace(p.router, cmd)
}

// inNamespace runs a command to its end.
func inNamespace(n *ns.Namespace, cmd *exec.Cmd) error {
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	err := n.Do(cmd.Start)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", cmd.Path, err, out.String())
	}
	return nil
}

// proxied has HAProxy accept and connect in TCP mode.
func proxied(ctx context.Context, p *path) (netip.AddrPort, error) {
	cache, err := kubebin.CacheDir()
	if err != nil {
		return netip.AddrPort{}, err
	}
	haproxy, err := debian.Find(ctx, cache, "haproxy", "haproxy")
	if err != nil {
		return netip.AddrPort{}, err
	}
	dir, err := os.MkdirTemp("", "onelb-bench-")
	if err != nil {
		return netip.AddrPort{}, err
	}
	p.undo = append(p.undo, func() error { return os.RemoveAll(dir) })
	at := public(0)
	if err := p.address(p.router, "lo", at.Addr().String()+"/32"); err != nil {
		return at, err
	}
	config := filepath.Join(dir, "haproxy.cfg")
	err = os.WriteFile(config, fmt.Appendf(nil, `global
  maxconn 4000
defaults
  mode tcp
  timeout connect 5s
  timeout client 30s
  timeout server 30s
listen bench
  bind %s
  server node-1 %s
`, at, pathServer), 0o600)
	if err != nil {
		return at, err
	}
	cmd := exec.Command(haproxy.Path, "-db", "-f", config) //nolint:gosec,noctx // ours; ended below
	cmd.Env = haproxy.Env()
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.router.Do(cmd.Start); err != nil {
		return at, err
	}
	p.undo = append(p.undo, func() error { _, _ = cmd.Process.Kill(), cmd.Wait(); return nil })
	return at, until(ctx, "HAProxy", func(ctx context.Context) error {
		conn, err := p.client.DialContext(ctx, "tcp", at.String())
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// build makes the namespaces and the server.
func (p *path) build(name string) error {
	for role, at := range map[string]**ns.Namespace{"c": &p.client, "r": &p.router, "s": &p.server} {
		full := "onelb-bench-" + role + "-" + name
		if err := ns.DeleteNamed(full); err != nil { // from an interrupted run
			return err
		}
		n, err := ns.New(full)
		if err != nil {
			return err
		}
		*at = n
		p.undo = append(p.undo, n.Delete)
	}
	err := errors.Join(
		p.router.Sysctl("net/ipv4/ip_forward", "1"),
		p.link(p.client, "203.0.113.1/24", "eth0", "203.0.113.2/24"),
		p.link(p.server, pathServer.Addr().String()+"/24", "eth1", "10.20.0.1/24"),
		p.route(p.client, "203.0.113.2"), p.route(p.server, "10.20.0.1"),
		// No connection waits for the ports of former ones.
		p.client.Sysctl("net/ipv4/ip_local_port_range", "1024 65535"),
	)
	if err != nil {
		return err
	}
	l, err := p.server.Listen("tcp", pathServer.String())
	if err != nil {
		return err
	}
	p.undo = append(p.undo, l.Close)
	for range 2 {
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_ = conn.(*net.TCPConn).SetLinger(0) //nolint:forcetypeassert // it is one
				_ = conn.Close()
			}
		}()
	}
	return nil
}

// link connects a host's eth0 with an interface of the router.
func (p *path) link(host *ns.Namespace, hostAddress, as, routerAddress string) error {
	err := host.Do(func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: as, PeerNamespace: netlink.NsFd(p.router.FD())})
	})
	if err != nil {
		return fmt.Errorf("link %s: %w", as, err)
	}
	return errors.Join(p.address(host, "eth0", hostAddress), p.address(p.router, as, routerAddress))
}

func (p *path) address(in *ns.Namespace, as, prefix string) error {
	return in.Do(func() error {
		link, err := netlink.LinkByName(as)
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(prefix)
		if err != nil {
			return err
		}
		return errors.Join(netlink.AddrAdd(link, a), netlink.LinkSetUp(link))
	})
}

func (p *path) route(in *ns.Namespace, via string) error {
	return in.Do(func() error { return netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(via)}) })
}

func (p *path) close() error {
	var errs []error
	for _, undo := range slices.Backward(p.undo) {
		errs = append(errs, undo())
	}
	return errors.Join(errs...)
}

// connects opens and resets connections, and returns how long each took to open.
func (p *path) connects(workers int, lasting time.Duration) ([]time.Duration, error) {
	var mu sync.Mutex // guards what follows
	var all []time.Duration
	var errs []error
	var over atomic.Bool
	stop := time.AfterFunc(lasting, func() { over.Store(true) })
	defer stop.Stop()
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			var took []time.Duration
			err := p.client.Do(func() error { // keeps its thread in the namespace
				for !over.Load() {
					d, err := connect(p.target)
					if err != nil {
						return err
					}
					took = append(took, d)
				}
				return nil
			})
			mu.Lock()
			defer mu.Unlock()
			all, errs = append(all, took...), append(errs, err)
		})
	}
	wg.Wait()
	if len(all) == 0 {
		errs = append(errs, errors.New("no connection"))
	}
	return all, errors.Join(errs...)
}

// connect blocks its thread: what Go's network poller needs is not measured.
func connect(to netip.AddrPort) (time.Duration, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("socket: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return 0, fmt.Errorf("linger: %w", err)
	}
	begin := time.Now()
	// One that the server has reset before this thread ran again was open.
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil && !errors.Is(err, unix.ECONNRESET) {
		return 0, fmt.Errorf("connect to %s: %w", to, err)
	}
	return time.Since(begin), nil
}
