package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/nft"
	"github.com/onelb/onelb/loadbalancer/router/pki"
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
func benchAgent(b *testing.B) (*router.Client, *nft.Kernel) {
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
	kernel := nft.Open(nft.Options{NetNS: n.FD()})
	fake := &fakeKernel{}
	a, err := New(Options{
		Name: "edge", Listener: l, CertFile: dir + "/router.crt", KeyFile: dir + "/router.key", ClientCAFile: dir + "/ca.crt",
		StateDir: dir + "/state", Table: kernel, Addresses: fakeAddresses{fake}, Flows: fake,
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
	return c, kernel
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

// BenchmarkPushOne10000 adds one frontend to 10,000.
func BenchmarkPushOne10000(b *testing.B) {
	c, _ := benchAgent(b)
	with, without := large(10_000), large(9_999)
	check(b, c.Wait(b.Context(), c.Set(without)))
	time.Sleep(100 * time.Millisecond)
	for b.Loop() {
		check(b, c.Wait(b.Context(), c.Set(with)))
		b.StopTimer()
		check(b, c.Wait(b.Context(), c.Set(without)))
		b.StartTimer()
	}
}
