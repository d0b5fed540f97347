package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/nft"
	"github.com/onelb/onelb/loadbalancer/router/pki"
	"github.com/onelb/onelb/loadbalancer/router/wire"
	"github.com/onelb/onelb/test/lab/ns"
)

// large has n frontends, 50 on each address, over 10 nodes.
func large(n int) router.Document {
	d := router.Document{Cluster: "lab", Identity: "uid-lab", Groups: []router.Group{{Name: "nodes"}}}
	for i := range 10 {
		d.Groups[0].Members = append(d.Groups[0].Members, router.Member{Address: netip.AddrFrom4([4]byte{10, 20, 0, byte(11 + i)}), Node: fmt.Sprintf("node-%d", i)})
	}
	for i := range n {
		d.Frontends = append(d.Frontends, router.Frontend{
			Address: netip.AddrFrom4([4]byte{203, 0, 113, byte(i / 50)}), Protocol: router.TCP, Port: uint16(i%50 + 1),
			Service: fmt.Sprintf("default/service-%d", i), Group: "nodes", BackendPort: uint16(30000 + i%2768),
		})
	}
	return d
}

// benchAgent is an agent with a real table in a namespace and a real disk.
func benchAgent(b *testing.B) (*router.Client, *prometheus.Registry) {
	b.Helper()
	if os.Geteuid() != 0 {
		b.Skip("needs root")
	}
	name := fmt.Sprintf("onelb-agent-%d", os.Getpid())
	check(b, ns.DeleteNamed(name))
	n, err := ns.New(name)
	check(b, err)
	b.Cleanup(func() { check(b, n.Delete()) })
	dir := b.TempDir()
	ca, err := pki.NewAuthority("bench", pki.Validity{})
	check(b, err)
	server, err := ca.Router("edge", pki.Validity{})
	check(b, err)
	client, err := ca.Client("lab", pki.Validity{})
	check(b, err)
	for name, data := range map[string][]byte{
		"ca.crt": ca.PEM.Cert, "router.crt": server.Cert, "router.key": server.Key, "client.crt": client.Cert, "client.key": client.Key,
	} {
		check(b, os.WriteFile(dir+"/"+name, data, 0o600))
	}
	l, err := (&net.ListenConfig{}).Listen(b.Context(), "tcp", "127.0.0.1:0")
	check(b, err)
	registry := prometheus.NewRegistry()
	fake := &fakeKernel{}
	a, err := New(Options{
		Name: "edge", Listener: l, CertFile: dir + "/router.crt", KeyFile: dir + "/router.key", ClientCAFile: dir + "/ca.crt",
		StateDir: dir + "/state", Registerer: registry, Table: nft.Open(nft.Options{NetNS: n.FD()}), Addresses: fakeAddresses{fake}, Flows: fake, Routes: fakeRoutes{fake},
	})
	check(b, err)
	c, err := router.NewClient(router.ClientOptions{
		Router: "edge", Endpoints: []string{l.Addr().String()}, CAFile: dir + "/ca.crt", CertFile: dir + "/client.crt", KeyFile: dir + "/client.key",
		Cluster: "lab", Identity: "uid-lab", Token: 1,
	})
	check(b, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- a.Run(ctx) }()
	go func() { done <- c.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		check(b, <-done)
		check(b, <-done)
	})
	return c, registry
}

// inAgent is the number of changes so far, and the time they took in the agent.
func inAgent(b *testing.B, r *prometheus.Registry) (n uint64, took time.Duration) {
	b.Helper()
	families, err := r.Gather()
	check(b, err)
	for _, f := range families {
		if f.GetName() == "onelb_router_apply_seconds" {
			h := f.GetMetric()[0].GetHistogram()
			return h.GetSampleCount(), time.Duration(h.GetSampleSum() * float64(time.Second))
		}
	}
	b.Fatal("no figure of the agent's")
	return 0, 0
}

func check(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// BenchmarkPush10000 pushes 10,000 frontends to an agent that has none: encoding,
// TLS, checks, disk with fsync, kernel.
func BenchmarkPush10000(b *testing.B) {
	c, _ := benchAgent(b)
	check(b, c.Wait(b.Context(), c.Set(large(0))))
	d := large(10_000)
	for b.Loop() {
		check(b, c.Wait(b.Context(), c.Set(d)))
		b.StopTimer()
		check(b, c.Wait(b.Context(), c.Set(large(0))))
		b.StartTimer()
	}
}

// BenchmarkPushOne10000 adds one frontend to 10,000, and takes it away again. What
// the agent itself needs is given beside it.
func BenchmarkPushOne10000(b *testing.B) {
	c, registry := benchAgent(b)
	with, without := large(10_000), large(9_999)
	check(b, c.Wait(b.Context(), c.Set(without)))
	before, tookBefore := inAgent(b, registry)
	for b.Loop() {
		check(b, c.Wait(b.Context(), c.Set(with)))
		check(b, c.Wait(b.Context(), c.Set(without)))
	}
	after, tookAfter := inAgent(b, registry)
	b.ReportMetric(float64((tookAfter-tookBefore).Microseconds())/float64(after-before)/1000, "agent-ms/change")
}

// BenchmarkRestore10000 reads 10,000 frontends, of which a thousand came one by
// one, from the disk.
func BenchmarkRestore10000(b *testing.B) {
	dir := b.TempDir()
	s, err := openStore(dir)
	check(b, err)
	from := large(9_000).Normalize()
	from.Generation = 1
	check(b, s.save(from))
	for n := 9_001; n <= 10_000; n++ {
		d := large(n).Normalize()
		d.Generation = from.Generation + 1
		delta := router.Diff(from, d)
		p, err := s.prepare(d, &wire.ApplyRequest{
			Cluster: d.Cluster, Identity: d.Identity, Hash: d.Hash(), BaseGeneration: from.Generation, Generation: d.Generation,
			Frontends: router.ToWire(router.Document{Frontends: delta.Frontends}).GetFrontends(),
		})
		check(b, err)
		check(b, p.commit())
		from = d
	}
	s.close()
	for b.Loop() {
		s, err := openStore(dir)
		check(b, err)
		documents, problems, err := s.load()
		check(b, err)
		if len(problems) > 0 || len(documents[0].Frontends) != 10_000 {
			b.Fatal(problems, len(documents[0].Frontends))
		}
		s.close()
	}
}
