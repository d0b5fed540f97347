package loadbalancer

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func earlyHarness(t *testing.T) *harness {
	t.Helper()
	h := newHarness(t, []runtime.Object{&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}}, l2Pool("lan"))
	if err := h.controller.waitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.eventually("the pool is looked at", func() bool { return !h.controller.pools.pending() })
	return h
}

// TestEarlyAllocation: a new Service has its address before the service
// controller asks for it, and keeps it when that does.
func TestEarlyAllocation(t *testing.T) {
	h := earlyHarness(t)
	svc := namedService("web")
	owned := func() int { return len(h.store.OwnedBy(svc.UID)) }
	h.create(svc)
	h.eventually("the address is there", func() bool { return owned() == 1 })
	address := h.store.OwnedBy(svc.UID)[0].Address.String()
	st, err := h.controller.EnsureLoadBalancer(t.Context(), "", h.service("web"), nil)
	if err != nil || len(st.Ingress) != 1 || st.Ingress[0].IP != address || h.ipam.count() != 1 {
		t.Fatalf("%+v, %v after %d allocations, want %s", st, err, h.ipam.count(), address)
	}
	// It has no finalizer yet, so nobody tells the provider.
	if err := h.kube.CoreV1().Services("ns").Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	h.eventually("the address is given back", func() bool { return owned() == 0 })
}

// TestEarlyAllocationTooLate: the Service is gone when its address is there.
func TestEarlyAllocationTooLate(t *testing.T) {
	h := earlyHarness(t)
	e := &early{c: h.controller, slots: make(chan struct{}, 1)}
	svc := namedService("gone") // never in the API
	e.added(t.Context(), svc)
	e.wg.Wait()
	if n := len(h.store.OwnedBy(svc.UID)); n != 0 || h.ipam.count() != 1 {
		t.Errorf("%d addresses left of %d", n, h.ipam.count())
	}
}

// TestNoEarlyAllocation for what is not ours, or has an address.
func TestNoEarlyAllocation(t *testing.T) {
	h := earlyHarness(t)
	e := &early{c: h.controller, slots: make(chan struct{}, 1)}
	for name, change := range map[string]func(*corev1.Service){
		"another type":  func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP },
		"another class": func(s *corev1.Service) { s.Spec.LoadBalancerClass = new("example.org/x") },
		"being deleted": func(s *corev1.Service) { s.DeletionTimestamp = new(metav1.Now()) },
		"served": func(s *corev1.Service) {
			s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "10.20.0.9"}}
		},
		"new namespace": func(s *corev1.Service) { s.Namespace = "other" },
	} {
		svc := namedService("web")
		change(svc)
		e.added(t.Context(), svc)
		e.wg.Wait()
		if h.ipam.count() != 0 {
			t.Fatalf("%s: allocated", name)
		}
	}
	e.slots <- struct{}{}
	e.added(t.Context(), namedService("web")) // does not block
	if e.wg.Wait(); h.ipam.count() != 0 {
		t.Error("more at once than allowed")
	}
}
