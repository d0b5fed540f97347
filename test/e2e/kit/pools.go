package kit

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/api/v1alpha1"
)

// Pools share the lab's two networks; .180 to .199 of each, and ::150 to ::163,
// are for single tests, each its own: what a pool has given back is not given for
// a minute. Quarantine is short, so that its end is seen.
const Pools = `
apiVersion: onelb.io/v1alpha1
kind: AddressPool
metadata: {name: lan}
spec:
  network: {name: private}
  ranges:
  - {start: 10.20.0.100, end: 10.20.0.149}
  - {start: "fd00:20::100", end: "fd00:20::131"}
  exposure: L2
  quarantine: 1s
---
apiVersion: onelb.io/v1alpha1
kind: AddressPool
metadata: {name: inner}
spec:
  network: {name: private}
  ranges:
  - {start: 10.20.0.150, end: 10.20.0.179}
  - {start: "fd00:20::132", end: "fd00:20::14f"}
  exposure: L2
  autoAssign: false
  quarantine: 1s
---
apiVersion: onelb.io/v1alpha1
kind: AddressPool
metadata: {name: internet}
spec:
  network: {name: public}
  ranges:
  - {start: 203.0.113.100, end: 203.0.113.149}
  - {start: "2001:db8:113::100", end: "2001:db8:113::131"}
  exposure: Router
  autoAssign: false
  quarantine: 1s
  router: {name: edge}
---
apiVersion: onelb.io/v1alpha1
kind: AddressPool
metadata: {name: direct}
spec:
  network: {name: public}
  ranges:
  - {start: 203.0.113.150, end: 203.0.113.179}
  - {start: "2001:db8:113::132", end: "2001:db8:113::14f"}
  exposure: Router
  autoAssign: false
  quarantine: 1s
  router: {name: edge, forward: VIP, innerPool: inner}
`

// Apply runs kubectl apply.
func (w *World) Apply(text string) {
	w.T.Helper()
	file := filepath.Join(w.T.TempDir(), "objects.yaml")
	w.Must(os.WriteFile(file, []byte(text), 0o600))
	if out, err := w.Kubectl(w.Context(), "apply", "-f", file); err != nil {
		w.T.Fatalf("%v: %s", err, out)
	}
}

// Pool makes a pool for one test, or changes it: spec is in flow style, with
// network and exposure. It is removed with the test.
func (w *World) Pool(name, spec string) {
	w.T.Helper()
	if _, err := w.OneLB.AddressPools().Get(w.Context(), name, metav1.GetOptions{}); apierrors.IsNotFound(err) {
		w.T.Cleanup(func() { w.RemovePool(name) })
	}
	w.Apply(fmt.Sprintf("apiVersion: onelb.io/v1alpha1\nkind: AddressPool\nmetadata: {name: %s}\nspec: {autoAssign: false, %s}\n", name, spec))
}

// RemovePool deletes a pool and waits until object and reservation are gone.
func (w *World) RemovePool(name string) {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	out, err := w.Kubectl(ctx, "delete", "addresspool", name, "--ignore-not-found", "--timeout=60s")
	if err != nil {
		w.T.Errorf("delete pool %s: %v: %s", name, err, out)
	}
}

// Patch changes a pool's spec by a merge patch.
func (w *World) Patch(name, spec string) {
	w.T.Helper()
	out, err := w.Kubectl(w.Context(), "patch", "addresspool", name, "--type=merge", "-p", `{"spec":`+spec+`}`)
	if err != nil {
		w.T.Fatalf("%v: %s", err, out)
	}
}

// PoolIs waits until a pool is ready, or not ready for the given reason.
func (w *World) PoolIs(name string, status metav1.ConditionStatus, reason string) metav1.Condition {
	w.T.Helper()
	var found metav1.Condition
	w.Eventually(fmt.Sprintf("pool %s to be %s for %s", name, status, reason), func(ctx context.Context) error {
		p, err := w.OneLB.AddressPools().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range p.Status.Conditions {
			if c.Type != v1alpha1.PoolReady {
				continue
			}
			if found = c; c.Status == status && c.Reason == reason && c.ObservedGeneration == p.Generation {
				return nil
			}
		}
		return fmt.Errorf("it is %s: %s: %s", found.Status, found.Reason, found.Message)
	})
	return found
}
