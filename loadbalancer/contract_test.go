package loadbalancer

// What k8s.io/cloud-provider's service controller really does, and what onelb
// makes of it. Each test runs the real service controller.

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cloud-provider/api"

	"github.com/onelb/onelb/api/v1alpha1"
)

const cleanup = "service.kubernetes.io/load-balancer-cleanup"

func readyNode(name, ip4 string) *corev1.Node {
	n := testNode(name, ip4, "")
	n.Spec.ProviderID = "one://" + name
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	return n
}

func TestNewServiceGetsFinalizerThenAddress(t *testing.T) {
	h := newHarness(t, []runtime.Object{readyNode("n1", "10.20.0.11")}, l2Pool("private"))
	h.runLibrary()
	h.create(namedService("web"))
	h.eventually("the address is in the status", func() bool { return slices.Equal(h.addressesOf("web"), []string{"10.20.0.100"}) })
	if !slices.Contains(h.service("web").Finalizers, cleanup) {
		t.Error("the finalizer is missing")
	}
	if mode := h.service("web").Status.LoadBalancer.Ingress[0].IPMode; mode == nil || *mode != corev1.LoadBalancerIPModeVIP {
		t.Errorf("ipMode %v, want VIP: nil costs one patch at each Ensure", mode)
	}
}

func TestEnsureAtStartWritesNothing(t *testing.T) {
	h := newHarness(t, []runtime.Object{readyNode("n1", "10.20.0.11")}, l2Pool("private"))
	h.runLibrary()
	h.create(namedService("web"))
	h.eventually("the address is there", func() bool { return len(h.addressesOf("web")) == 1 })
	h.quiet() // the first one may look again with what it knew before its own write
	before := len(h.kube.Actions())
	vipsBefore := len(h.onelb.Actions())

	// A further service controller starts, as after a change of leader: it
	// ensures every Service that exists.
	ensured := h.calls.count("ensure web")
	h.runLibrary()
	h.eventually("it ensures the Service", func() bool { return h.calls.count("ensure web") > ensured })
	for _, a := range h.kube.Actions()[before:] {
		if a.Matches("patch", "services") || a.Matches("update", "services") {
			t.Errorf("a useless write to the Service: %v", a)
		}
	}
	for _, a := range h.onelb.Actions()[vipsBefore:] {
		if a.GetVerb() != "list" && a.GetVerb() != "watch" && a.GetVerb() != "get" && a.GetResource().Resource == "virtualips" {
			t.Errorf("a useless write to a VirtualIP: %v", a)
		}
	}
	if n := h.ipam.count(); n != 1 {
		t.Errorf("%d allocations, want 1", n)
	}
}

func TestDeletedServiceReleasesItsAddress(t *testing.T) {
	h := newHarness(t, []runtime.Object{readyNode("n1", "10.20.0.11")}, l2Pool("private"))
	h.runLibrary()
	h.create(namedService("web"))
	h.eventually("the address is there", func() bool { return len(h.addressesOf("web")) == 1 })
	// The fake API server does not wait for finalizers: say what a real one says.
	h.update("web", func(s *corev1.Service) { s.DeletionTimestamp = new(metav1.Now()) })
	h.eventually("it is asked whether anything is left, then told to delete, then the finalizer goes", func() bool {
		s := h.service("web")
		return h.calls.count("delete web") == 1 && s != nil && len(s.Finalizers) == 0
	})
	if h.calls.count("get web") == 0 {
		t.Error("GetLoadBalancer was not called")
	}
	rec, ok := h.store.Get(netip.MustParseAddr("10.20.0.100"))
	if !ok || len(rec.Owners) != 0 {
		t.Errorf("record %+v (exists %v), want one without owners: it is IPAM's to release", rec, ok)
	}
}

// exists=false would drop the finalizer without EnsureLoadBalancerDeleted: the
// address of a Service that never got as far as a status must count as residue.
func TestResidueOfAFailedServiceIsDeleted(t *testing.T) {
	h := newHarness(t, []runtime.Object{readyNode("n1", "10.20.0.11")}, routerPool("public", v1alpha1.ForwardNodePort, ""))
	h.router.setFail(errors.New("no instance is reachable"))
	h.runLibrary()
	h.create(namedService("web"))
	h.eventually("an address is allocated", func() bool { return h.ipam.count() == 1 })
	h.eventually("Ensure fails", func() bool { return h.calls.count("ensure web") > 1 })
	if got := h.addressesOf("web"); len(got) != 0 {
		t.Fatalf("%v is published though no router forwards it", got)
	}
	h.update("web", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP })
	h.eventually("it is released", func() bool {
		rec, _ := h.store.Get(netip.MustParseAddr("10.20.0.100"))
		return len(rec.Owners) == 0 && h.calls.count("delete web") > 0
	})
	if n := h.ipam.count(); n != 1 {
		t.Errorf("%d allocations for one Service that failed and was tried again, want 1", n)
	}
}

func TestTypeChangedAwayAndBack(t *testing.T) {
	h := newHarness(t, []runtime.Object{readyNode("n1", "10.20.0.11")}, l2Pool("private"))
	h.runLibrary()
	h.create(namedService("web"))
	h.eventually("the address is there", func() bool { return len(h.addressesOf("web")) == 1 })
	h.update("web", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP })
	h.eventually("status and finalizer are gone", func() bool {
		return len(h.addressesOf("web")) == 0 && len(h.service("web").Finalizers) == 0
	})
	h.update("web", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeLoadBalancer })
	h.eventually("it has an address again", func() bool { return len(h.addressesOf("web")) == 1 })
}

func TestServiceOfAnotherClassIsLeftAlone(t *testing.T) {
	h := newHarness(t, []runtime.Object{readyNode("n1", "10.20.0.11")}, l2Pool("private"))
	h.runLibrary()
	other := namedService("other")
	other.Spec.LoadBalancerClass = new("example.com/lb")
	h.create(other)
	h.create(namedService("web"))
	h.eventually("ours has an address", func() bool { return len(h.addressesOf("web")) == 1 })
	if n := h.calls.count("ensure other"); n != 0 {
		t.Errorf("%d calls for a Service of another class", n)
	}
}

// RetryError requeues after exactly its duration; any other error first after
// 5 s, later after 300 s. What may come is retried soon.
func TestServiceThatWaitsForAPool(t *testing.T) {
	h := newHarness(t, []runtime.Object{readyNode("n1", "10.20.0.11")}, l2Pool("private"))
	h.ipam.setNotReady("private", "no network is called private")
	h.runLibrary()
	h.create(namedService("web"))
	h.eventually("it was tried a few times", func() bool { return h.calls.count("ensure web") > 3 })
	h.ipam.setNotReady("", "")
	h.eventually("it has an address", func() bool { return len(h.addressesOf("web")) == 1 })
}

func TestTransientErrorIsARetryErrorAndRefusalIsNot(t *testing.T) {
	h := newHarness(t, nil, l2Pool("private"))
	svc := namedService("web")
	svc.Annotations = map[string]string{"onelb.io/pool": "missing"}
	_, err := h.controller.EnsureLoadBalancer(t.Context(), "lab", svc, nil)
	if re := (*api.RetryError)(nil); !errors.As(err, &re) || re.RetryAfter() != 50*time.Millisecond {
		t.Errorf("got %v, want a RetryError: the pool may be made", err)
	}
	svc.Annotations = map[string]string{"onelb.io/pol": "private"}
	st, err := h.controller.EnsureLoadBalancer(t.Context(), "lab", svc, nil)
	if re := (*api.RetryError)(nil); err == nil || errors.As(err, &re) || st != nil {
		t.Errorf("got %v, %v, want a plain error: only an edit can help", st, err)
	}
}

// Neither Ensure nor Update gets a deadline from the library.
func TestHangingAllocatorEndsByItself(t *testing.T) {
	h := newHarness(t, nil, l2Pool("private"))
	h.ipam.hang.Store(true)
	h.controller.o.Timeout = 100 * time.Millisecond
	done := make(chan error, 1)
	go func() {
		_, err := h.controller.EnsureLoadBalancer(context.Background(), "lab", namedService("web"), nil)
		done <- err
	}()
	select {
	case err := <-done:
		if !strings.Contains(err.Error(), "deadline") {
			t.Errorf("got %v, want a deadline", err)
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("Ensure hangs with its allocator")
	}
}

// Address changes, taints and readiness of nodes trigger nothing in the
// library, and the nodes argument may be nil; the router's document follows
// the watched nodes.
func TestRouterFollowsNodesByItself(t *testing.T) {
	h := newHarness(t, []runtime.Object{readyNode("n1", "10.20.0.11")}, routerPool("public", v1alpha1.ForwardNodePort, ""))
	h.runLibrary()
	h.create(namedService("web"))
	h.eventually("the router has the Service", func() bool { return strings.Contains(h.router.dump(), "10.20.0.100:80/TCP ns/web") })
	ctx := t.Context()
	n, err := h.kube.CoreV1().Nodes().Get(ctx, "n1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	updates := h.calls.count("update web")
	for i := range n.Status.Addresses {
		if n.Status.Addresses[i].Type == corev1.NodeInternalIP {
			n.Status.Addresses[i].Address = "10.20.0.99"
		}
	}
	if _, err := h.kube.CoreV1().Nodes().UpdateStatus(ctx, n, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	h.eventually("the router has the new address", func() bool { return strings.Contains(h.router.dump(), "10.20.0.99*1") })
	if got := h.calls.count("update web"); got != updates {
		t.Errorf("the library called Update %d times for a change of addresses: the contract page is wrong", got-updates)
	}
	if _, err := h.kube.CoreV1().Nodes().Create(ctx, readyNode("n2", "10.20.0.12"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	h.eventually("the library says that the node set has changed", func() bool { return h.calls.count("update web") > updates })
	h.eventually("the router has both", func() bool { return strings.Contains(h.router.dump(), "10.20.0.12*1 10.20.0.99*1") })
	if _, err := h.controller.EnsureLoadBalancer(ctx, "lab", h.service("web"), nil); err != nil {
		t.Errorf("no nodes means that none qualifies, not that the Service goes: %v", err)
	}
}

// Ensure and Update of one Service overlap, even with one worker.
func TestOverlappingCalls(t *testing.T) {
	h := newHarness(t, []runtime.Object{readyNode("n1", "10.20.0.11")}, routerPool("public", v1alpha1.ForwardVIP, "private"), l2Pool("private"))
	svc := namedService("web")
	svc.Annotations = map[string]string{"onelb.io/pool": "public"}
	h.create(svc)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := h.controller.EnsureLoadBalancer(t.Context(), "lab", svc, nil); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if err := h.controller.UpdateLoadBalancer(t.Context(), "lab", svc, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := h.ipam.count(); n != 2 {
		t.Errorf("%d allocations, want one public and one inner address", n)
	}
	st, exists, err := h.controller.GetLoadBalancer(t.Context(), "lab", svc)
	if err != nil || !exists || len(st.Ingress) != 2 {
		t.Fatalf("got %v, %v, %v", st, exists, err)
	}
	if st.Ingress[0].IP != "10.20.0.100" {
		t.Errorf("ingress %v: the public address comes first", st.Ingress)
	}
}

// There is no drift repair in the library, and nobody calls us when a
// VirtualIP goes.
func TestVirtualIPDeletedInUseIsMadeAnew(t *testing.T) {
	h := newHarness(t, []runtime.Object{readyNode("n1", "10.20.0.11")}, l2Pool("private"))
	h.runLibrary()
	h.create(namedService("web"))
	h.eventually("the address is there", func() bool { return len(h.addressesOf("web")) == 1 })
	ctx := t.Context()
	old, err := h.onelb.VirtualIPs().Get(ctx, "10.20.0.100", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.onelb.VirtualIPs().Delete(ctx, "10.20.0.100", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	h.eventually("it is there again", func() bool {
		v, err := h.onelb.VirtualIPs().Get(ctx, "10.20.0.100", metav1.GetOptions{})
		return err == nil && v.UID != old.UID && len(v.Spec.Services) == 1 && v.DeletionTimestamp == nil
	})
	if got := h.addressesOf("web"); !slices.Equal(got, []string{"10.20.0.100"}) {
		t.Errorf("the Service has %v", got)
	}
}

// A Service can go without a word: its finalizer was taken off by hand.
func TestAddressOfAServiceThatIsGoneIsReleased(t *testing.T) {
	h := newHarness(t, []runtime.Object{readyNode("n1", "10.20.0.11")}, l2Pool("private"))
	svc := namedService("web")
	h.create(svc)
	if _, err := h.controller.EnsureLoadBalancer(t.Context(), "lab", svc, nil); err != nil {
		t.Fatal(err)
	}
	if err := h.kube.CoreV1().Services("ns").Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	h.eventually("the address has no owner", func() bool {
		rec, ok := h.store.Get(netip.MustParseAddr("10.20.0.100"))
		return ok && len(rec.Owners) == 0
	})
}

func TestMovingToAnotherPoolKeepsTheOldAddressUntilTheNewOneWorks(t *testing.T) {
	h := newHarness(t, []runtime.Object{readyNode("n1", "10.20.0.11")}, l2Pool("private"), routerPool("public", v1alpha1.ForwardNodePort, ""))
	h.runLibrary()
	svc := namedService("web")
	svc.Annotations = map[string]string{"onelb.io/pool": "private"}
	h.create(svc)
	h.eventually("the address is there", func() bool { return slices.Equal(h.addressesOf("web"), []string{"10.20.0.100"}) })
	h.router.setFail(errors.New("unreachable"))
	ensured := h.calls.count("ensure web")
	h.update("web", func(s *corev1.Service) { s.Annotations["onelb.io/pool"] = "public" })
	h.eventually("it was tried", func() bool { return h.calls.count("ensure web") > ensured+2 })
	if rec, _ := h.store.Get(netip.MustParseAddr("10.20.0.100")); len(rec.Owners) != 1 {
		t.Error("the old address was released before the new one works")
	}
	h.router.setFail(nil)
	h.eventually("the new address is published", func() bool { return slices.Equal(h.addressesOf("web"), []string{"10.20.0.101"}) })
	h.eventually("the old one is released", func() bool {
		rec, _ := h.store.Get(netip.MustParseAddr("10.20.0.100"))
		return len(rec.Owners) == 0
	})
}
