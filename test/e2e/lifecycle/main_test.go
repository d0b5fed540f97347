package lifecycle

import (
	"context"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/test/e2e/kit"
	"github.com/onelb/onelb/test/lab"
	"github.com/onelb/onelb/test/lab/labtest"
)

// root is the repository, as tests see it.
const root = "../../.."

var (
	web   = lab.Workload{Name: "web", Replicas: 2}
	setup = kit.Setup{Workloads: []lab.Workload{web}, Pools: `
apiVersion: onelb.io/v1alpha1
kind: AddressPool
metadata: {name: lan}
spec:
  network: {name: private}
  ranges: [{start: 10.20.0.100, end: 10.20.0.119}]
  exposure: L2
  autoAssign: false
  quarantine: 1s
---
apiVersion: onelb.io/v1alpha1
kind: AddressPool
metadata: {name: internet}
spec:
  network: {name: public}
  ranges: [{start: 203.0.113.100, end: 203.0.113.119}]
  exposure: Router
  autoAssign: false
  quarantine: 1s
  router: {name: edge}
`}
)

func TestMain(m *testing.M) {
	os.Exit(labtest.Run(m, lab.Options{Name: "lifecycle", Programs: true, Nodes: 2}))
}

// TestLifecycle is one story: what comes later finds what was before. Names have no
// commas: kubectl takes one in a path for the end of a file's name.
func TestLifecycle(t *testing.T) {
	for _, step := range []struct {
		name string
		run  func(*testing.T, *kit.World)
	}{
		{"doctor finds what is wrong", doctorFinds},
		{"a pool is checked and made", poolCreate},
		{"Services come from MetalLB", fromMetalLB},
		{"Services come from OpenNebula's own controller", fromOfficial},
		{"an upgrade keeps every address", upgrade},
		{"what is uninstalled keeps its addresses", uninstallKeeps},
		{"what is uninstalled gives its addresses back", uninstallReleases},
	} {
		ok := t.Run(step.name, func(t *testing.T) { step.run(t, kit.New(t, &setup)) })
		if !ok {
			t.Fatal("what follows needs this")
		}
	}
}

// shows has a Service show an address, as another load balancer does.
func shows(w *kit.World, name string, a netip.Addr) {
	w.T.Helper()
	w.Eventually(name+" to show "+a.String(), func(ctx context.Context) error {
		svc, err := w.Client().CoreV1().Services(kit.Namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: a.String()}}
		_, err = w.Client().CoreV1().Services(kit.Namespace).UpdateStatus(ctx, svc, metav1.UpdateOptions{})
		return err
	})
}

// guard watches Services until the returned function is called, which fails the test
// if one of them was ever seen without its address.
func guard(w *kit.World, want map[string]netip.Addr) (end func()) {
	w.T.Helper()
	var mu sync.Mutex // guards lost
	lost := map[string]bool{}
	ctx, cancel := context.WithCancel(w.Context())
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			list, err := w.Client().CoreV1().Services(kit.Namespace).List(ctx, metav1.ListOptions{})
			if err == nil {
				mu.Lock()
				for i := range list.Items {
					a, watched := want[list.Items[i].Name]
					if watched && !slices.Contains(kit.Shown(&list.Items[i]), a) {
						lost[list.Items[i].Name] = true
					}
				}
				mu.Unlock()
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		w.T.Helper()
		cancel()
		done.Wait()
		mu.Lock()
		defer mu.Unlock()
		if len(lost) > 0 {
			w.T.Errorf("without their addresses for a moment: %v", lost)
		}
	}
}
