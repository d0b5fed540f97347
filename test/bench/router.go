package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/test/lab"
)

// measureRouterApply pushes documents to the lab's router as the
// cloud-controller-manager does: encoding, TLS, the agent's checks, its disk and
// addresses, and the kernel's tables are all in it.
func measureRouterApply(ctx context.Context, b *bench) error {
	d, err := b.sharedLab(ctx)
	if err != nil {
		return err
	}
	// Its place is taken by a client with a higher token, so it could not go on.
	if err := d.CCM().Stop(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c, err := d.routerClient(ctx)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	err = b.push(ctx, c)
	cancel()
	return errors.Join(err, <-done, b.closeShared())
}

// routerClient is a client of the lab's router in the manager's place.
func (d *datacenter) routerClient(ctx context.Context) (*router.Client, error) {
	system, err := d.Client().CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read the cluster's identity: %w", err)
	}
	pki := filepath.Join(d.Dir(), "router-pki")
	endpoint := net.JoinHostPort(d.Router(1).Addrs(lab.Management)[0].String(), strconv.Itoa(int(lab.RouterPort)))
	return router.NewClient(router.ClientOptions{
		Router: lab.RouterName, Endpoints: []string{endpoint},
		CAFile: filepath.Join(pki, "ca.crt"), CertFile: filepath.Join(pki, "client.crt"), KeyFile: filepath.Join(pki, "client.key"),
		Cluster: lab.ClusterName, Identity: string(system.UID), Token: uint64(time.Now().Unix()),
		Dial: func(ctx context.Context, address string) (net.Conn, error) {
			return d.Control().DialContext(ctx, "tcp", address)
		},
	})
}

func (b *bench) push(ctx context.Context, c *router.Client) error {
	set := func(frontends int) (time.Duration, error) {
		doc := document(frontends)
		begin := time.Now()
		err := c.Wait(ctx, c.Set(doc))
		return time.Since(begin), err
	}
	// The client is connected only after its first document: before, Wait would
	// return that the router cannot be reached.
	if err := until(ctx, "the router", func(context.Context) error { _, err := set(0); return err }); err != nil {
		return err
	}
	for range 5 {
		took, err := set(10_000)
		if err != nil {
			return err
		}
		b.add("router_apply_10000", ms(took))
		if _, err := set(0); err != nil {
			return err
		}
	}
	if _, err := set(9_999); err != nil {
		return err
	}
	for range 20 {
		took, err := set(10_000)
		if err != nil {
			return err
		}
		b.add("router_add_one", ms(took))
		if _, err := set(9_999); err != nil {
			return err
		}
	}
	for _, row := range []string{"router_apply_10000", "router_add_one"} {
		b.note(row, "push to confirmation: mTLS, disk with fsync, kernel")
	}
	b.note("router_apply_10000", "200 addresses with 50 ports each, 10 nodes behind them, none there before")
	return nil
}

// document has n frontends, 50 on each address, over ten nodes.
func document(n int) router.Document {
	d := router.Document{Groups: []router.Group{{Name: "nodes"}}}
	for i := range 10 {
		d.Groups[0].Members = append(d.Groups[0].Members, router.Member{
			Address: netip.AddrFrom4([4]byte{10, 20, 0, byte(11 + i)}), Node: fmt.Sprintf("node-%d", i+1),
		})
	}
	for i := range n {
		d.Frontends = append(d.Frontends, router.Frontend{
			Address: netip.AddrFrom4([4]byte{203, 0, 113, byte(20 + i/50)}), Protocol: router.TCP, Port: uint16(i%50 + 1),
			Service: fmt.Sprintf("default/service-%d", i), Group: "nodes", BackendPort: uint16(30000 + i%2768), //nolint:gosec // small
		})
	}
	return d
}
