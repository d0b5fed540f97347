package e2e_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/api/v1alpha1"
)

// pools share the lab's two networks; .180 to .199 of each are for single tests.
// Quarantine is short, so that its end is seen.
const pools = `
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

// poolYAML is a small pool of one test; spec is in flow style, with exposure and
// network.
func poolYAML(name, spec string) string {
	return fmt.Sprintf("apiVersion: onelb.io/v1alpha1\nkind: AddressPool\nmetadata: {name: %s}\nspec: {autoAssign: false, %s}\n", name, spec)
}

// applyText runs kubectl apply and returns what it says.
func (w *world) applyText(text string) (string, error) {
	file := filepath.Join(w.t.TempDir(), "objects.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return "", err
	}
	return w.Kubectl(w.context(), "apply", "-f", file)
}

// pool makes a pool, which is removed with the test.
func (w *world) pool(name, spec string) {
	w.t.Helper()
	out, err := w.applyText(poolYAML(name, spec))
	if err != nil {
		w.t.Fatalf("pool %s: %v: %s", name, err, out)
	}
	w.t.Cleanup(func() { w.removePool(name) })
}

// removePool deletes a pool and waits until object and reservation are gone.
func (w *world) removePool(name string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := w.Kubectl(ctx, "delete", "addresspool", name, "--ignore-not-found", "--timeout=60s")
	if err != nil {
		w.t.Errorf("delete pool %s: %v: %s", name, err, out)
	}
}

// ready is the pool's condition.
func (w *world) ready(ctx context.Context, name string) (metav1.Condition, error) {
	p, err := w.onelb.AddressPools().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return metav1.Condition{}, err
	}
	for _, c := range p.Status.Conditions {
		if c.Type == v1alpha1.PoolReady {
			return c, nil
		}
	}
	return metav1.Condition{}, fmt.Errorf("pool %s has no condition yet", name)
}

// waitPool waits until a pool is ready, or not ready for the given reason.
func (w *world) waitPool(name string, status metav1.ConditionStatus, reason string) metav1.Condition {
	w.t.Helper()
	var c metav1.Condition
	w.eventually(fmt.Sprintf("pool %s to be %s for %s", name, status, reason), func(ctx context.Context) error {
		var err error
		if c, err = w.ready(ctx, name); err != nil {
			return err
		}
		if c.Status != status || c.Reason != reason {
			return fmt.Errorf("it is %s: %s: %s", c.Status, c.Reason, c.Message)
		}
		return nil
	})
	return c
}

// mentions fails the test unless the text has all of the words.
func (w *world) mentions(text string, words ...string) {
	w.t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			w.t.Errorf("%q does not mention %q", text, word)
		}
	}
}
