package lifecycle

import (
	"strings"
	"testing"

	"github.com/onelb/onelb/test/e2e/kit"
)

// poolCreate: what is printed is what an operator would write, a pool that would not
// work is not made, and one that works is ready.
func poolCreate(t *testing.T, w *kit.World) {
	create := func(args ...string) (string, error) {
		return w.Ctl(w.Context(), append([]string{"pool", "create", "made", "--cloud-config", w.CloudConfig(), "--no-auto-assign"}, args...)...)
	}
	out, err := create("--network", "private", "--range", "10.20.0.180-10.20.0.181", "--range", "10.20.0.183")
	want := `apiVersion: onelb.io/v1alpha1
kind: AddressPool
metadata:
  name: made
spec:
  autoAssign: false
  exposure: L2
  network:
    name: private
  ranges:
  - end: 10.20.0.181
    start: 10.20.0.180
  - end: 10.20.0.183
    start: 10.20.0.183
`
	if err != nil || out != want {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, tt := range []struct {
		args  []string
		words []string
	}{
		{[]string{"--network", "nowhere"}, []string{"[network]", "the pool would not work"}},
		{[]string{"--network", "public"}, []string{"[pool-without-nodes]", "exposure: Router"}},
		{[]string{"--network", "public", "--exposure", "Router", "--router", "egde"}, []string{"[pool-router]", "egde"}},
		{[]string{"--network", "public", "--exposure", "Router", "--router", "edge", "--forward", "VIP"}, []string{"innerPool is required"}},
		{[]string{"--network", "private", "--exposure", "Nowhere"}, []string{"Unsupported value", "Nowhere"}},
		{[]string{"--network", "private", "--range", "10.20.0.9-10.20.0.1"}, []string{"the smaller one first"}},
		{[]string{}, []string{"--network"}},
	} {
		if out, err := create(append(tt.args, "--apply")...); err == nil || !containsAll(err.Error(), tt.words...) {
			t.Errorf("%v: %v\n%s", tt.args, err, out)
		}
	}
	if out, err := w.Kubectl(w.Context(), "get", "addresspools", "-o", "name"); err != nil || strings.Contains(out, "made") {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Cleanup(func() { w.RemovePool("made") })
	if out, err := create("--network", "private", "--range", "10.20.0.180-10.20.0.183", "--apply"); err != nil || !strings.Contains(out, "start: 10.20.0.180") {
		t.Fatalf("%v\n%s", err, out)
	}
	w.PoolIs("made", "True", "Reserved")
	if _, err := create("--network", "private", "--apply"); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("%v", err)
	}
}
