package services

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/test/e2e/kit"
)

// TestSelectors: a pool for some namespaces and some Services.
func TestSelectors(t *testing.T) {
	w := newWorld(t)
	w.Pool("shop", `network: {name: private}, exposure: L2, quarantine: 1s, ranges: [{start: 10.20.0.180, end: 10.20.0.183}],
  namespaceSelector: {matchLabels: {team: shop}}, serviceSelector: {matchExpressions: [{key: tier, operator: In, values: [front]}]}`)
	w.PoolIs("shop", metav1.ConditionTrue, "Reserved")
	label := func(args ...string) {
		out, err := w.Kubectl(w.Context(), append([]string{"label", "--overwrite"}, args...)...)
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	w.Create(web, "shop-one", kit.V4, kit.InPool("shop"))
	w.Waits("shop-one", "Refused", "shop", "team=shop", "namespace default")
	label("namespace", "default", "team=shop")
	t.Cleanup(func() { _, _ = w.Kubectl(context.Background(), "label", "namespace", "default", "team-") })
	w.Said("Service", "shop-one", "Refused", "shop", "tier in (front)")
	w.Pending("shop-one")
	label("service", "shop-one", "tier=front")
	had := w.Served(web, "shop-one")
	if a := had[0]; a != netip.MustParseAddr("10.20.0.180") {
		t.Errorf("it has %s", a)
	}
	t.Log("labels go: it keeps what it has, and another gets none")
	label("service", "shop-one", "tier=back")
	w.Create(web, "shop-two", kit.V4, kit.InPool("shop"))
	w.Waits("shop-two", "Refused", "tier in (front)")
	w.Shows("shop-one", had...)
	w.Answers(web, "shop-one", had...)
	w.Remove("shop-one", "shop-two")
	w.NothingLeft()
}

// TestAvoidEdges: a network up to .255, of which the pool gives neither .0 nor .255.
func TestAvoidEdges(t *testing.T) {
	w := newWorld(t)
	_, err := w.OneSim().AddVNet("", `NAME="edges"
VN_MAD="dummy"
BRIDGE="br-private"
NETWORK_ADDRESS="10.20.0.0"
NETWORK_MASK="255.255.255.0"
AR=[TYPE="IP4",IP="10.20.0.254",SIZE="2"]
AR=[TYPE="IP4",IP="10.20.1.0",SIZE="1"]
`)
	w.Must(err)
	w.Pool("edges", `network: {name: edges}, exposure: L2, quarantine: 1s, avoidEdgeAddresses: true`)
	w.PoolIs("edges", metav1.ConditionTrue, "Reserved")
	w.Create(web, "edge-inside", kit.V4, kit.InPool("edges"))
	w.Shows("edge-inside", netip.MustParseAddr("10.20.0.254"))
	w.Served(web, "edge-inside")
	w.Create(web, "edge-full", kit.V4, kit.InPool("edges"))
	w.Waits("edge-full", "AllocationFailed", "AddressPool edges")
	w.Create(web, "edge-asked", kit.V4, kit.InPool("edges"), kit.Annotate("address", "10.20.0.255"))
	w.Waits("edge-asked", "AllocationFailed", "10.20.0.255")
	w.Remove("edge-inside", "edge-full", "edge-asked")
	w.NothingLeft()
}

// TestDraining empties a pool and fills it again.
func TestDraining(t *testing.T) {
	w := newWorld(t)
	w.Pool("drain", `network: {name: private}, exposure: L2, quarantine: 1s, ranges: [{start: 10.20.0.184, end: 10.20.0.187}]`)
	w.PoolIs("drain", metav1.ConditionTrue, "Reserved")
	w.Create(web, "drain-old", kit.V4, kit.InPool("drain"))
	had := w.Served(web, "drain-old")
	w.Patch("drain", `{"draining":true}`)
	w.PoolIs("drain", metav1.ConditionFalse, "Draining")
	w.Create(web, "drain-new", kit.V4, kit.InPool("drain"))
	w.Waits("drain-new", "AllocationFailed", "drain", "Draining")
	w.Shows("drain-old", had...)
	w.Answers(web, "drain-old", had...)
	t.Log("a restart changes nothing")
	w.Must(w.CCM().Restart())
	w.Update("drain-old", kit.OnPort(9000))
	w.Served(web, "drain-old")
	w.Pending("drain-new")
	w.Shows("drain-old", had...)
	t.Log("moved elsewhere, the pool is empty")
	w.Update("drain-old", kit.InPool("lan"))
	w.Eventually("an address of the other pool", otherThan(w, "drain-old", had))
	w.Served(web, "drain-old")
	w.Patch("drain", `{"draining":false}`)
	w.Served(web, "drain-new")
	w.Remove("drain-old", "drain-new")
	w.NothingLeft()
}

// TestQuarantine: the only address of a pool comes back, not before its time.
func TestQuarantine(t *testing.T) {
	w := newWorld(t)
	const quarantine = 4 * time.Second
	w.Pool("quiet", `network: {name: private}, exposure: L2, quarantine: 4s, ranges: [{start: 10.20.0.188, end: 10.20.0.188}], chunkSize: 1, reserveAhead: 0`)
	w.PoolIs("quiet", metav1.ConditionTrue, "Reserved")
	a := netip.MustParseAddr("10.20.0.188")
	w.Create(web, "quiet-first", kit.V4, kit.InPool("quiet"))
	w.Served(web, "quiet-first")
	w.Create(pair, "quiet-next", kit.V4, kit.InPool("quiet"))
	w.Waits("quiet-next", "AllocationFailed", "no free address")
	w.Remove("quiet-first")
	var begin time.Time
	w.Eventually("quarantine", func(ctx context.Context) error {
		v, err := w.VirtualIP(ctx, a)
		if err == nil && v.Status.Phase != v1alpha1.PhaseQuarantined {
			return fmt.Errorf("phase %s", v.Status.Phase)
		}
		if err == nil {
			begin = v.Status.ReleasedAt.Time // whole seconds, rounded down
		}
		return err
	})
	w.Silent(a, kit.Port)
	w.Shows("quiet-next", a)
	// Made on the machine that this test runs on.
	if v, err := w.VirtualIP(w.Context(), a); err != nil || v.CreationTimestamp.Sub(begin) < quarantine-time.Second {
		t.Errorf("given again %s after its release, want %s: %v", v.CreationTimestamp.Sub(begin), quarantine, err)
	}
	w.Served(pair, "quiet-next")
	w.Remove("quiet-next")
	w.NothingLeft()
}

// TestPoolGoes deletes a pool with a kept address and one in use: it stays, gives
// nothing new, serves what it has given, and goes with the last.
func TestPoolGoes(t *testing.T) {
	w := newWorld(t)
	w.Pool("going", `network: {name: private}, exposure: L2, quarantine: 1s, ranges: [{start: 10.20.0.189, end: 10.20.0.192}]`)
	w.PoolIs("going", metav1.ConditionTrue, "Reserved")
	w.Create(web, "going-in-use", kit.V4, kit.InPool("going"))
	w.Create(web, "going-kept", kit.V4, kit.InPool("going"), kit.Annotate("retain", "1h"))
	had, kept := w.Served(web, "going-in-use"), w.Served(web, "going-kept")
	w.Remove("going-kept")
	w.keptFor(kept[0], "going-kept")
	_, err := w.Kubectl(w.Context(), "delete", "addresspool", "going", "--wait=false")
	w.Must(err)
	w.Create(web, "going-late", kit.V4, kit.InPool("going"))
	w.Said("Service", "going-late", "AllocationFailed", "going")
	w.Answers(web, "going-in-use", had...)
	w.Create(web, "going-kept", kit.V4, kit.InPool("going"))
	w.Shows("going-kept", kept...)
	w.Served(web, "going-kept")
	w.Pending("going-late")
	w.Remove("going-in-use", "going-kept")
	w.Eventually("the pool to be gone", func(ctx context.Context) error {
		_, err := w.OneLB.AddressPools().Get(ctx, "going", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("still there: %w", err)
	})
	w.Eventually("the reservation to be gone", func(context.Context) error { // oned takes a moment for it
		if n := w.reserved("going"); n >= 0 {
			return fmt.Errorf("%d addresses are still reserved", n)
		}
		return nil
	})
	w.Remove("going-late")
	w.NothingLeft()
}
