// Package trouble takes OpenNebula and the API server away, in every way, under
// Services that clients use.
package trouble

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/test/e2e/kit"
	"github.com/onelb/onelb/test/lab"
	"github.com/onelb/onelb/test/lab/labtest"
)

var setup = kit.Setup{Pools: kit.Pools, Workloads: []lab.Workload{kit.Web}}

func TestMain(m *testing.M) {
	os.Exit(labtest.Run(m, lab.Options{Name: "trouble", Programs: true}))
}

type world struct{ *kit.World }

// tooLate is when an answer no longer counts: well beyond the second after which
// TCP repeats a lost SYN, since the machine may be busy, and well below the length
// of any trouble.
const tooLate = 5 * time.Second

// knocks are new connections to addresses, on a fixed schedule.
type knocks struct {
	cancel context.CancelFunc
	all    sync.WaitGroup
	mu     sync.Mutex // guards what follows
	sent   int
	failed []string
}

func (w world) knock(addrs ...netip.Addr) *knocks {
	ctx, cancel := context.WithCancel(w.T.Context())
	k := &knocks{cancel: cancel}
	for _, a := range addrs {
		k.all.Go(func() {
			for ctx.Err() == nil {
				k.all.Go(func() { k.once(w.T.Context(), w.ClientOf(a), a) })
				select {
				case <-ctx.Done():
				case <-time.After(100 * time.Millisecond):
				}
			}
		})
	}
	return k
}

func (k *knocks) once(ctx context.Context, from *lab.Host, a netip.Addr) {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, tooLate)
	defer cancel()
	_, err := from.HTTPGet(ctx, a, kit.Port)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sent++
	if err != nil {
		k.failed = append(k.failed, fmt.Sprintf("%s: %v", begin.Format("15:04:05.000"), err))
	}
}

// undisturbed ends it, and fails the test if a request has failed.
func (k *knocks) undisturbed(t *testing.T) {
	t.Helper()
	k.cancel()
	k.all.Wait()
	if k.sent == 0 || len(k.failed) > 0 {
		t.Errorf("%d of %d requests failed: %q", len(k.failed), k.sent, k.failed)
	}
	t.Logf("%d requests were answered", k.sent)
}

// nodes are the Nodes that the API has, with what tells one object from its
// successor, and their taints.
func (w world) nodes() map[string]string {
	w.T.Helper()
	list, err := w.Client().CoreV1().Nodes().List(w.Context(), metav1.ListOptions{})
	w.Must(err)
	out := map[string]string{}
	for _, n := range list.Items {
		out[n.Name] = fmt.Sprint(n.UID, n.Spec.ProviderID, n.Spec.Taints)
	}
	return out
}

// crowd keeps 15 connections to the front-end open that say nothing, and opens a
// new one as soon as one is closed.
func (w world) crowd() (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for range 15 {
		all.Go(func() {
			for ctx.Err() == nil {
				w.sit(ctx)
			}
		})
	}
	return func() { cancel(); all.Wait() }
}

// sit holds one connection until the front-end closes it.
func (w world) sit(ctx context.Context) {
	conn, err := w.Control().DialContext(ctx, "tcp", fmt.Sprintf("%s:%d", lab.ControlAddr, lab.OneSimPort))
	if err != nil {
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	_, _ = conn.Read(make([]byte, 1))
	_ = conn.Close()
}

// oneHolder reports whether exactly one node has the address.
func (w world) oneHolder(a netip.Addr) func(context.Context) error {
	return func(context.Context) error {
		if h := w.Holders(a); len(h) != 1 {
			return fmt.Errorf("it is in the kernels of %v", h)
		}
		return nil
	}
}
