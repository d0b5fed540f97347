package holder_test

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/onelb/onelb/api/client"
	"github.com/onelb/onelb/test/lab"
	"github.com/onelb/onelb/test/lab/labtest"
)

const (
	namespace = "default"
	name      = "held"
	port      = 8765
	// patience is the longest wait for an end state.
	patience = 150 * time.Second
)

var long = flag.Bool("long", false, "let faults that come and go last 5 and 10 minutes, as operators see them, not seconds")

// lasting is how long a fault that comes and goes lasts.
func lasting(short, full time.Duration) time.Duration {
	if *long {
		return full
	}
	return short
}

func TestMain(m *testing.M) {
	os.Exit(labtest.Run(m, lab.Options{Name: "holder", Programs: true}))
}

const pool = `
apiVersion: onelb.io/v1alpha1
kind: AddressPool
metadata:
  name: lan
spec:
  network: {name: private}
  ranges:
  - {start: 10.20.0.100, end: 10.20.0.199}
  - {start: "fd00:20::100", end: "fd00:20::163"}
  exposure: L2
`

var (
	prepared struct {
		sync.Once
		addrs []netip.Addr
		onelb client.Interface
		err   error
	}
)

// world is the lab with one dual-stack Service whose addresses nodes hold.
type world struct {
	*lab.Lab
	t     *testing.T
	onelb client.Interface
	addrs []netip.Addr
}

func newWorld(t *testing.T) *world {
	t.Helper()
	l := labtest.Shared(t)
	prepared.Do(func() {
		if prepared.addrs, prepared.err = prepare(l); prepared.err == nil {
			prepared.onelb, prepared.err = connect(l)
		}
	})
	if prepared.err != nil {
		t.Fatal(prepared.err)
	}
	labtest.Logs(t, l.Agent(1), l.Agent(2), l.Agent(3))
	w := &world{Lab: l, t: t, onelb: prepared.onelb, addrs: prepared.addrs}
	w.calm()
	return w
}

func connect(l *lab.Lab) (client.Interface, error) {
	cfg, err := l.RESTConfig(l.Control())
	if err != nil {
		return nil, err
	}
	return client.New(cfg)
}

func prepare(l *lab.Lab) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	if err := l.WaitReady(ctx); err != nil {
		return nil, err
	}
	file := filepath.Join(l.Dir(), "pool.yaml")
	if err := os.WriteFile(file, []byte(pool), 0o600); err != nil {
		return nil, err
	}
	if _, err := l.Kubectl(ctx, "apply", "-f", file); err != nil {
		return nil, err
	}
	workload := lab.Workload{Name: "web", Replicas: 3}
	if _, err := l.StartWorkload(ctx, workload); err != nil {
		return nil, err
	}
	svc := workload.Service(name, corev1.ServiceTypeLoadBalancer)
	svc.Spec.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicyRequireDualStack)
	if _, err := l.CreateService(ctx, svc); err != nil {
		return nil, err
	}
	for {
		addrs, err := l.WaitAddress(ctx, namespace, name)
		if err != nil || len(addrs) == 2 {
			return addrs, err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) eventually(what string, ok func() error) {
	w.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("not in time: %s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// holders are the nodes that have the address in their kernel.
func (w *world) holders(a netip.Addr) []*lab.Node {
	w.t.Helper()
	var out []*lab.Node
	for _, n := range w.Nodes() {
		nl, err := n.Netlink()
		w.must(err)
		all, err := nl.AddrList(nil, 0)
		nl.Close()
		w.must(err)
		for _, x := range all {
			if got, ok := netip.AddrFromSlice(x.IP); ok && got.Unmap() == a {
				out = append(out, n)
			}
		}
	}
	return out
}

// alone returns the only holder, and fails for none or several.
func (w *world) alone(a netip.Addr) (*lab.Node, error) {
	h := w.holders(a)
	if len(h) != 1 {
		return nil, fmt.Errorf("%d nodes hold %s", len(h), a)
	}
	return h[0], nil
}

// answerers are the hardware addresses that answer the LAN's client.
func (w *world) answerers(ctx context.Context, a netip.Addr, within time.Duration) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	found, err := w.LAN().WhoHas(ctx, lab.Private, a)
	var out []string
	for _, r := range found {
		out = append(out, r.MAC.String())
	}
	return out, err
}

// holder waits until one node holds the address, answers alone for it, and the
// API says so.
func (w *world) holder(a netip.Addr, not ...*lab.Node) *lab.Node {
	w.t.Helper()
	var holder *lab.Node
	w.eventually("one node holds the address, answers and is known for it", func() (err error) {
		if holder, err = w.alone(a); err != nil {
			return err
		}
		if slices.Contains(not, holder) {
			return fmt.Errorf("%s still has it", holder.ShortName())
		}
		macs, err := w.answerers(w.t.Context(), a, 100*time.Millisecond)
		if want := holder.Link(lab.Private).MAC().String(); err != nil || len(macs) != 1 || macs[0] != want {
			return fmt.Errorf("%v answer, want %s alone: %w", macs, want, err)
		}
		return nil
	})
	return holder
}

// known waits until the API names the holder.
func (w *world) known(a netip.Addr, holder *lab.Node) {
	w.t.Helper()
	w.eventually("the API names the holder", func() error {
		out, err := w.Kubectl(w.t.Context(), "get", "virtualips", "-o", "jsonpath={.items[?(@.spec.address==\""+a.String()+"\")].status.holder.name}")
		if err == nil && out != holder.ShortName() {
			err = fmt.Errorf("it names %q", out)
		}
		return err
	})
}

// calm waits until all agents see each other and each address has its holder.
func (w *world) calm() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	w.must(w.WaitPeers(ctx))
	for _, a := range w.addrs {
		w.holder(a)
	}
}
