package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/pki"
	"github.com/onelb/onelb/test/lab/ns"
)

// asProgram makes the test binary act as the program itself.
const asProgram = "ONELB_ROUTER_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// lan is an internet client, a router, two backends and a host beside them:
//
//	client .1 -- 203.0.113.0/24 -- .2 router .1 -- 10.20.0.0/24 -- be1 .11, be2 .12, host .250
type lan struct {
	t      *testing.T
	spaces map[string]*ns.Namespace
	dir    string
	ca     *pki.Authority
	proc   *exec.Cmd
}

const lanPrefix = "onelb-rt-"

func newLAN(t *testing.T) *lan {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	l := &lan{t: t, spaces: map[string]*ns.Namespace{}, dir: t.TempDir()}
	for _, name := range []string{"client", "router", "switch", "be1", "be2", "host"} {
		full := lanPrefix + name
		l.must(ns.DeleteNamed(full)) // from an interrupted run
		n, err := ns.New(full)
		l.must(err)
		l.spaces[name] = n
		t.Cleanup(func() { _ = n.Delete() })
	}
	l.must(l.spaces["switch"].Do(func() error {
		b := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
		if err := netlink.LinkAdd(b); err != nil {
			return err
		}
		return netlink.LinkSetUp(b)
	}))
	for _, s := range []string{"net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"} {
		_ = l.spaces["switch"].Sysctl(s, "0") // absent where the bridge does not filter
	}
	for _, s := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		l.must(l.spaces["router"].Sysctl(s, "1"))
	}
	l.link("client", "eth0", "router", "eth0")
	l.plug("router", "eth1")
	l.address("client", "eth0", "203.0.113.1/24", "2001:db8:113::1/64")
	l.address("router", "eth0", "203.0.113.2/24", "2001:db8:113::2/64")
	l.address("router", "eth1", "10.20.0.1/24", "fd00:20::1/64")
	for name, host := range map[string]string{"be1": "11", "be2": "12", "host": "250"} {
		l.plug(name, "eth0")
		l.address(name, "eth0", "10.20.0."+host+"/24", "fd00:20::"+host+"/64")
		l.route(name, "10.20.0.1")
		l.route(name, "fd00:20::1")
	}
	l.certificates()
	return l
}

func (l *lan) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// link connects two namespaces by a pair of interfaces.
func (l *lan) link(a, aName, b, bName string) {
	l.t.Helper()
	l.must(l.spaces[a].Do(func() error {
		v := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: aName}, PeerName: bName, PeerNamespace: netlink.NsFd(l.spaces[b].FD()),
		}
		if err := netlink.LinkAdd(v); err != nil {
			return fmt.Errorf("link %s %s: %w", a, b, err)
		}
		return netlink.LinkSetUp(v)
	}))
	l.up(b, bName, "")
}

// plug connects a namespace to the switch.
func (l *lan) plug(name, as string) {
	l.t.Helper()
	port := "to-" + name
	l.link(name, as, "switch", port)
	l.up("switch", port, "br0")
}

func (l *lan) up(name, as, master string) {
	l.t.Helper()
	l.must(l.spaces[name].Do(func() error {
		link, err := netlink.LinkByName(as)
		if err != nil {
			return err
		}
		if master != "" {
			b, err := netlink.LinkByName(master)
			if err != nil {
				return err
			}
			if err := netlink.LinkSetMaster(link, b); err != nil {
				return err
			}
		}
		return netlink.LinkSetUp(link)
	}))
}

func (l *lan) address(name, as string, prefixes ...string) {
	l.t.Helper()
	l.must(l.spaces[name].Do(func() error {
		link, err := netlink.LinkByName(as)
		if err != nil {
			return err
		}
		for _, p := range prefixes {
			a, err := netlink.ParseAddr(p)
			if err != nil {
				return err
			}
			if strings.Contains(p, ":") {
				a.Flags = syscall.IFA_F_NODAD
			}
			if err := netlink.AddrAdd(link, a); err != nil {
				return err
			}
		}
		return nil
	}))
}

func (l *lan) route(name, via string) {
	l.t.Helper()
	l.must(l.spaces[name].Do(func() error { return netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(via)}) }))
}

// certificates writes the router's and the cluster lab's files.
func (l *lan) certificates() {
	l.t.Helper()
	var err error
	l.ca, err = pki.NewAuthority("test", pki.Validity{})
	l.must(err)
	server, err := l.ca.Router("edge", pki.Validity{})
	l.must(err)
	client, err := l.ca.Client("lab", pki.Validity{})
	l.must(err)
	for name, data := range map[string][]byte{
		"ca.crt": l.ca.PEM.Cert, "router.crt": server.Cert, "router.key": server.Key, "client.crt": client.Cert, "client.key": client.Key,
	} {
		l.must(os.WriteFile(l.path(name), data, 0o600))
	}
}

func (l *lan) path(name string) string { return filepath.Join(l.dir, name) }

// start runs the program in the router's namespace.
func (l *lan) start() {
	l.t.Helper()
	l.proc = exec.Command(os.Args[0], "--name=edge", "--listen=:9443", "--tls-cert="+l.path("router.crt"), "--tls-key="+l.path("router.key"),
		"--tls-client-ca="+l.path("ca.crt"), "--state-dir="+l.path("state"), "--metrics-address=127.0.0.1:9912", "--v=2")
	l.proc.Env = append(os.Environ(), asProgram+"=1")
	l.proc.Stdout, l.proc.Stderr = l.t.Output(), l.t.Output()
	l.proc.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // also when the test is killed
	l.must(l.spaces["router"].Do(l.proc.Start))
	l.t.Cleanup(func() { l.stop(syscall.SIGKILL) })
	l.eventually("the program is ready", func() bool {
		s, err := l.get("router", "127.0.0.1:9912", "/readyz")
		return err == nil && s == "ok\n"
	})
}

// get asks an HTTP server from a namespace.
func (l *lan) get(from, address, path string) (string, error) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: l.spaces[from].DialContext}}
	response, err := client.Get("http://" + address + path)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	b, err := io.ReadAll(response.Body)
	return string(b), err
}

// stop ends the program and waits for it.
func (l *lan) stop(signal syscall.Signal) {
	if l.proc == nil {
		return
	}
	_ = l.proc.Process.Signal(signal)
	_ = l.proc.Wait()
	l.proc = nil
}

// client runs a push client as cluster lab, in the internet client's namespace.
func (l *lan) client() *router.Client {
	l.t.Helper()
	c, err := router.NewClient(router.ClientOptions{
		Router: "edge", Endpoints: []string{"203.0.113.2:9443"}, Cluster: "lab", Identity: "uid-1", Token: 1,
		CAFile: l.path("ca.crt"), CertFile: l.path("client.crt"), KeyFile: l.path("client.key"),
		Dial: func(ctx context.Context, address string) (net.Conn, error) {
			return l.spaces["client"].DialContext(ctx, "tcp", address)
		},
	})
	l.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = c.Run(ctx) })
	l.t.Cleanup(func() { cancel(); wg.Wait() })
	return c
}

// set pushes a document and waits until the router runs it.
func (l *lan) set(c *router.Client, d router.Document) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), 2*time.Minute)
	defer cancel()
	generation := c.Set(d)
	for {
		err := c.Wait(ctx, generation)
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			l.t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond) // unreachable while the program starts
	}
}

// backend serves on TCP and UDP ports in a namespace: it answers with its name and the
// client's address. GET /healthz says 200 while *healthy.
func (l *lan) backend(name string, port int) (unhealthy func(bool)) {
	l.t.Helper()
	var mu sync.Mutex
	down := false
	ln, err := l.spaces[name].Listen("tcp", fmt.Sprintf(":%d", port))
	l.must(err)
	server := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path == "/healthz" && down {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = fmt.Fprint(w, answer(name, r.RemoteAddr))
	})}
	go func() { _ = server.Serve(ln) }()
	var u net.PacketConn
	l.must(l.spaces[name].Do(func() error {
		u, err = (&net.ListenConfig{}).ListenPacket(context.Background(), "udp", fmt.Sprintf(":%d", port))
		return err
	}))
	go func() {
		b := make([]byte, 1500)
		for {
			_, from, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = u.WriteTo([]byte(answer(name, from.String())), from)
		}
	}()
	l.t.Cleanup(func() { _, _ = server.Close(), u.Close() })
	return func(d bool) {
		mu.Lock()
		defer mu.Unlock()
		down = d
	}
}

func answer(name, from string) string {
	ap := netip.MustParseAddrPort(from)
	return name + " " + ap.Addr().Unmap().String()
}

// An answer is waited for for long, since the machine may be busy; that none comes has
// to be believed sooner.
const (
	comes = 30 * time.Second
	never = time.Second
)

// ask asks once from a namespace over a fresh connection.
func (l *lan) ask(from, network, address string) (string, error) {
	return l.askFor(comes, from, network, address)
}

func (l *lan) askFor(within time.Duration, from, network, address string) (string, error) {
	ctx, cancel := context.WithTimeout(l.t.Context(), within)
	defer cancel()
	conn, err := l.spaces[from].DialContext(ctx, network, address)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	return exchange(conn, network, within)
}

// exchange asks over a connection that stands.
func exchange(conn net.Conn, network string, within time.Duration) (string, error) {
	if err := conn.SetDeadline(time.Now().Add(within)); err != nil {
		return "", err
	}
	if network == "udp" {
		if _, err := conn.Write([]byte("?")); err != nil {
			return "", err
		}
		b := make([]byte, 1500)
		n, err := conn.Read(b)
		return string(b[:n]), err
	}
	if _, err := fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return "", err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	b, err := io.ReadAll(response.Body)
	return string(b), err
}

// spread asks n times and returns how often each answer came.
func (l *lan) spread(from, network, address string, n int) map[string]int {
	l.t.Helper()
	got := map[string]int{}
	for range n {
		s, err := l.ask(from, network, address)
		if err != nil {
			l.t.Fatalf("%s %s from %s: %v", network, address, from, err)
		}
		got[s]++
	}
	return got
}

// run runs a command in a namespace.
func (l *lan) run(in string, args ...string) string {
	l.t.Helper()
	cmd := exec.CommandContext(l.t.Context(), args[0], args[1:]...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	l.must(l.spaces[in].Do(cmd.Start))
	if err := cmd.Wait(); err != nil {
		l.t.Fatalf("%v: %v\n%s", args, err, out.String())
	}
	return out.String()
}
