package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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
	err = b.push(ctx, d, c)
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

func (b *bench) push(ctx context.Context, d *datacenter, c *router.Client) error {
	set := func(doc router.Document) (time.Duration, error) {
		begin := time.Now()
		err := c.Wait(ctx, c.Set(doc))
		return time.Since(begin), err
	}
	// The client is connected only after its first document: before, Wait would
	// return that the router cannot be reached.
	if err := until(ctx, "the router", func(context.Context) error { _, err := set(document(0)); return err }); err != nil {
		return err
	}
	for range 5 {
		took, err := set(document(10_000))
		if err != nil {
			return err
		}
		b.add("router_apply_10000", ms(took))
		if _, err := set(document(0)); err != nil {
			return err
		}
	}
	if err := b.addOne(ctx, d, set); err != nil {
		return err
	}
	b.note("router_apply_10000", "push to confirmation: mTLS, disk with fsync, kernel; 200 addresses with 50 ports each, 10 nodes behind them, none there before")
	if err := b.largest(d, set); err != nil {
		return err
	}
	return b.edit(ctx, d, set)
}

// edit adds, edits and deletes a thousand frontends, one by one, while connections to
// others carry requests.
func (b *bench) edit(ctx context.Context, d *datacenter, set func(router.Document) (time.Duration, error)) (err error) {
	const row, backend = "router_edit_broken_connections", 18080
	steady := router.Document{Groups: []router.Group{{Name: "steady"}}}
	var to []netip.AddrPort
	for _, n := range d.Nodes() {
		steady.Groups[0].Members = append(steady.Groups[0].Members, router.Member{Address: n.Addrs(lab.Private)[0], Node: n.ShortName()})
		stop, err := answerOn(n, backend)
		if err != nil {
			return err
		}
		defer func() { _ = stop() }()
	}
	for i := range 20 {
		at := netip.AddrPortFrom(netip.MustParseAddr("203.0.113.230"), uint16(8000+i)) //nolint:gosec // small
		to = append(to, at)
		steady.Frontends = append(steady.Frontends, router.Frontend{
			Address: at.Addr(), Protocol: router.TCP, Port: at.Port(), Service: "default/steady", Group: "steady", BackendPort: backend,
		})
	}
	if _, err := set(steady); err != nil {
		return err
	}
	n := b.times(1000)
	others := document(n)
	return b.under(ctx, row, d, func(context.Context) error {
		doc := router.Document{Groups: append(others.Groups, steady.Groups...)}
		for i := range 3 * n { // add, edit, delete
			switch others.Frontends[i%n].BackendPort++; {
			case i < n:
				doc.Frontends = append(slices.Clone(steady.Frontends), others.Frontends[:i+1]...)
			case i < 2*n:
				doc.Frontends = append(slices.Clone(steady.Frontends), others.Frontends...)
			default:
				doc.Frontends = append(slices.Clone(steady.Frontends), others.Frontends[i-2*n+1:]...)
			}
			if _, err := set(doc); err != nil {
				return err
			}
		}
		b.note(row, "%d frontends added, edited and deleted one by one", n)
		return nil
	}, to...)
}

// listener is a host that somebody listens on.
type listener interface {
	Listen(network, address string) (net.Listener, error)
}

// answerOn has a host answer requests.
func answerOn(n listener, at int) (stop func() error, err error) {
	l, err := n.Listen("tcp", fmt.Sprintf(":%d", at))
	if err != nil {
		return nil, err
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintln(w, "here")
	})}
	go func() { _ = server.Serve(l) }()
	return server.Close, nil
}

// addOne adds one frontend to 9,999 again and again.
func (b *bench) addOne(ctx context.Context, d *datacenter, set func(router.Document) (time.Duration, error)) error {
	with, without := document(10_000), document(9_999)
	if _, err := set(without); err != nil {
		return err
	}
	for range 20 {
		before, err := d.applySeconds(ctx)
		if err != nil {
			return err
		}
		took, err := set(with)
		if err != nil {
			return err
		}
		after, err := d.applySeconds(ctx)
		if err != nil {
			return err
		}
		b.add("router_add_one", 1000*(after-before))
		b.add("router_add_one_push", ms(took))
		if _, err := set(without); err != nil {
			return err
		}
	}
	b.note("router_add_one", "with 9,999 there, in the agent: check, kernel, journal with fsync")
	b.note("router_add_one_push", "the same from the client: it makes the difference, waits for the answer")
	return nil
}

// applySeconds is the time that the router's agent has spent on changes.
func (d *datacenter) applySeconds(ctx context.Context) (float64, error) {
	_, body, err := d.Router(1).Get(ctx, "http://"+lab.RouterAgentMetrics+"/metrics")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(body)) {
		if value, is := strings.CutPrefix(line, "onelb_router_apply_seconds_sum "); is {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("metrics of the router's agent: no figure of changes: %w", errNoRow)
}

// largest measures the agent's memory when each frontend has backends of its own.
func (b *bench) largest(d *datacenter, set func(router.Document) (time.Duration, error)) error {
	doc := document(10_000)
	members := doc.Groups[0].Members
	doc.Groups = nil
	for i := range doc.Frontends {
		name := fmt.Sprintf("group-%d", i)
		own := make([]router.Member, 0, len(members))
		for n := range members { // no two groups alike
			own = append(own, router.Member{Address: netip.AddrFrom4([4]byte{10, 100 + byte(n), byte(i / 250), byte(1 + i%250)}), Node: members[n].Node}) //nolint:gosec // small
		}
		doc.Groups = append(doc.Groups, router.Group{Name: name, Members: own})
		doc.Frontends[i].Group = name
	}
	if _, err := set(doc); err != nil {
		return err
	}
	memory, err := residentMiB(d.Router(1).Agent().PID())
	if err != nil {
		return err
	}
	b.add("router_rss_10000x10", memory.now)
	b.note("router_rss_10000x10", "10 backends of its own for each frontend; at most %.0f", memory.peak)
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
