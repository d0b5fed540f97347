package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
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

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/health"
	"github.com/onelb/onelb/loadbalancer/router/nft"
	"github.com/onelb/onelb/loadbalancer/router/pki"
	"github.com/onelb/onelb/loadbalancer/router/returnpath"
	"github.com/onelb/onelb/loadbalancer/router/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeKernel stands for table, addresses and flows; faults are injected.
type fakeKernel struct {
	mu       sync.Mutex
	fail     error // of the next Apply
	failOn   bool  // of all that follow, too
	plans    int
	whole    int // times that all was looked at
	plan     *nft.Plan
	size     nft.Counts
	held     []netip.Addr
	failHold int // so many calls of Hold fail
	routed   []Routed
	flows    []Flow
	routes   []router.Route
	firewall error         // what other tables do
	traffic  []nft.Traffic // that was asked about
	past     netip.Addr    // a backend that replies elsewhere
}

func (k *fakeKernel) Apply(_ context.Context, p *nft.Plan) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.fail; err != nil {
		if !k.failOn {
			k.fail = nil
		}
		return err
	}
	k.plans++
	k.plan, k.size = p, p.Counts()
	return nil
}
func (k *fakeKernel) Repair(context.Context) (bool, error) { return false, nil }

func (k *fakeKernel) Close() error { return nil }

// replies come back to the router, but for those of one backend.
func (k *fakeKernel) replies(_ context.Context, b returnpath.Backend, from netip.Addr) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return !from.IsValid() || b.Address != k.past || b.Interface != "eth1"
}

// fakeRoutes has a route of somebody else's beside ours.
type fakeRoutes struct{ *fakeKernel }

func (f fakeRoutes) Set(_ context.Context, r []router.Route) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.whole++
	f.routes = slices.Clone(r)
	return nil
}

func (f fakeRoutes) List() ([]netip.Prefix, error) {
	return []netip.Prefix{netip.MustParsePrefix("10.20.0.0/24")}, nil
}

func (k *fakeKernel) Firewalls(_ context.Context, traffic []nft.Traffic) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.traffic = traffic
	return k.firewall
}

type fakeAddresses struct{ *fakeKernel }

func (fakeAddresses) Run(ctx context.Context, _ func()) error { <-ctx.Done(); return nil }
func (fakeAddresses) Refresh() error                          { return nil }
func (fakeAddresses) Interfaces() []Interface {
	return []Interface{{Name: "eth0", Networks: public}, {Name: "eth1", Networks: []netip.Prefix{netip.MustParsePrefix("10.20.0.0/24")}}}
}

var public = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8:113::/64")}

func (fakeAddresses) Where(a netip.Addr) (string, error) {
	for _, p := range public {
		if p.Contains(a) {
			return "eth0", nil
		}
	}
	return "", fmt.Errorf("address %s is on no network", a)
}

func (f fakeAddresses) Hold(_ context.Context, a []netip.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failHold > 0 {
		f.failHold--
		return errors.New("no room for addresses")
	}
	f.held = slices.Clone(a)
	return nil
}

func (f fakeAddresses) Route(_ context.Context, r []Routed) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.routed = slices.Clone(r)
	return nil
}

func (k *fakeKernel) Forget(_ context.Context, stale func(Flow) bool) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	before := len(k.flows)
	k.flows = slices.DeleteFunc(k.flows, stale)
	return before - len(k.flows), nil
}

// bench is an agent with real TLS on the loopback and a fake kernel.
type bench struct {
	t      *testing.T
	dir    string
	ca     *pki.Authority
	kernel *fakeKernel
	addr   string
	stop   func()
	dial   func(ctx context.Context, network, address string) (net.Conn, error) // of health checks
	role   Role                                                                 // nil: the master
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir(), kernel: &fakeKernel{}}
	b.dial = func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("backend is off") }
	var err error
	b.ca, err = pki.NewAuthority("test", pki.Validity{})
	b.must(err)
	server, err := b.ca.Router("edge", pki.Validity{})
	b.must(err)
	b.write("ca.crt", b.ca.PEM.Cert)
	b.write("router.crt", server.Cert)
	b.write("router.key", server.Key)
	for _, cluster := range []string{"lab", "other"} {
		pair, err := b.ca.Client(cluster, pki.Validity{})
		b.must(err)
		b.pair(cluster, pair)
	}
	return b
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

func (b *bench) write(name string, data []byte) {
	b.t.Helper()
	b.must(os.WriteFile(b.path(name), data, 0o600))
}

func (b *bench) pair(name string, p pki.Pair) {
	b.t.Helper()
	b.write(name+".crt", p.Cert)
	b.write(name+".key", p.Key)
}

func (b *bench) options(l net.Listener) Options {
	return Options{
		Name: "edge", Listener: l, CertFile: b.path("router.crt"), KeyFile: b.path("router.key"), ClientCAFile: b.path("ca.crt"),
		StateDir: b.path("state"), Version: "test", Role: b.role, Table: b.kernel, Addresses: fakeAddresses{b.kernel}, Flows: b.kernel,
		Replies: returnpath.Options{Answers: b.kernel.replies}, Routes: fakeRoutes{b.kernel}, PodNetworks: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")},
		Health: health.Options{Interval: 10 * time.Millisecond, Dial: b.dial},
	}
}

// start runs an agent on the same port as before, if there was one.
func (b *bench) start() {
	b.t.Helper()
	at := b.addr
	if at == "" {
		at = "127.0.0.1:0"
	}
	l, err := (&net.ListenConfig{}).Listen(b.t.Context(), "tcp", at)
	b.must(err)
	b.addr = l.Addr().String()
	a, err := New(b.options(l))
	b.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("agent: %v", err)
		}
	})
	b.t.Cleanup(b.stop)
}

// client runs a push client.
func (b *bench) client(cluster string, token uint64, change ...func(*router.ClientOptions)) *router.Client {
	b.t.Helper()
	o := router.ClientOptions{
		Router: "edge", Endpoints: []string{b.addr}, CAFile: b.path("ca.crt"), CertFile: b.path(cluster + ".crt"), KeyFile: b.path(cluster + ".key"),
		Cluster: cluster, Identity: "uid-" + cluster, Token: token,
	}
	for _, f := range change {
		f(&o)
	}
	c, err := router.NewClient(o)
	b.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(ctx) }()
	b.t.Cleanup(func() { cancel(); <-done })
	return c
}

// raw is a bare gRPC client of a cluster, which does what it is told.
func (b *bench) raw(cluster string) wire.RouterClient {
	b.t.Helper()
	pair, err := tls.LoadX509KeyPair(b.path(cluster+".crt"), b.path(cluster+".key"))
	b.must(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(b.ca.PEM.Cert)
	conn, err := grpc.NewClient("passthrough:///"+b.addr, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: router.ServerName("edge"), RootCAs: roots, Certificates: []tls.Certificate{pair},
	})))
	b.must(err)
	b.t.Cleanup(func() { _ = conn.Close() })
	return wire.NewRouterClient(conn)
}

func (b *bench) wait(c *router.Client, generation uint64) error {
	ctx, cancel := context.WithTimeout(b.t.Context(), 2*time.Minute)
	defer cancel()
	return c.Wait(ctx, generation)
}

func (b *bench) eventually(what string, ok func() bool) {
	b.t.Helper()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	b.t.Fatalf("not in time: %s", what)
}

func (b *bench) size() nft.Counts {
	b.kernel.mu.Lock()
	defer b.kernel.mu.Unlock()
	return b.kernel.size
}

// doc has n frontends on one address.
func doc(cluster, address string, n int) router.Document {
	d := router.Document{
		Cluster: cluster, Identity: "uid-" + cluster,
		Groups: []router.Group{{Name: "nodes", Members: []router.Member{{Address: netip.MustParseAddr("10.20.0.11"), Node: "node-1"}}}},
	}
	for i := range n {
		d.Frontends = append(d.Frontends, router.Frontend{
			Address: netip.MustParseAddr(address), Protocol: router.TCP, Port: uint16(i + 1), Service: fmt.Sprintf("default/s%d", i), Group: "nodes", BackendPort: 30000,
		})
	}
	return d
}

func accepted(tb testing.TB, d router.Document) router.Accepted {
	tb.Helper()
	a, err := router.Accept(d)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

// whole is a request for a whole document.
func whole(d router.Document, base, generation, token uint64) *wire.ApplyRequest {
	d = d.Normalize()
	w := router.ToWire(d)
	return &wire.ApplyRequest{
		Cluster: d.Cluster, Identity: d.Identity, Token: token, BaseGeneration: base, Generation: generation, Hash: d.Hash(),
		Whole: true, Groups: w.GetGroups(), Frontends: w.GetFrontends(), Routes: w.GetRoutes(),
	}
}

// closedListener takes no connections.
type closedListener struct{ net.Listener }
