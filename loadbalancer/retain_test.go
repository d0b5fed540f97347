package loadbalancer

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
)

// remove deletes a Service as a real API server does.
func (h *harness) remove(name string) {
	h.t.Helper()
	h.update(name, func(s *corev1.Service) { s.DeletionTimestamp = new(metav1.Now()) })
	h.eventually("the finalizer is gone", func() bool { return len(h.service(name).Finalizers) == 0 })
	if err := h.kube.CoreV1().Services("ns").Delete(h.t.Context(), name, metav1.DeleteOptions{}); err != nil {
		h.t.Fatal(err)
	}
}

func retaining(name, uid string) *corev1.Service {
	s := namedService(name)
	s.UID = types.UID(uid)
	s.Annotations = map[string]string{"onelb.io/retain": "1h"}
	return s
}

func TestAddressComesBackToItsName(t *testing.T) {
	h := newHarness(t, []runtime.Object{readyNode("n1", "10.20.0.11")}, routerPool("public", v1alpha1.ForwardVIP, "private"), l2Pool("private"))
	h.runLibrary()
	first := retaining("web", "u1")
	first.Annotations["onelb.io/pool"] = "public"
	h.create(first)
	h.has("web", "10.20.0.100", "10.20.0.101") // and the inner one
	h.remove("web")
	v, err := h.onelb.VirtualIPs().Get(t.Context(), "10.20.0.100", metav1.GetOptions{})
	if err != nil || v.Spec.Retain == nil || v.Spec.Retain.Namespace != "ns" || v.Spec.Retain.Name != "web" || len(v.Spec.Services) > 0 {
		t.Fatalf("%+v, %v", v.Spec, err)
	}
	h.eventually("the router has let go", func() bool { return h.router.dump() == "" })
	h.controller.sweep(t.Context())
	// Nobody else gets it, not by name either.
	thief := retaining("thief", "u2")
	thief.Annotations["onelb.io/address"] = "10.20.0.100"
	h.create(thief)
	h.eventually("it is refused", func() bool {
		return slices.ContainsFunc(h.warnings(), func(e string) bool { return strings.Contains(e, "taken") })
	})
	// The next one of the name does, though the pool is for nobody new now.
	pool, err := h.onelb.AddressPools().Get(t.Context(), "public", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pool.Spec.ServiceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
	if _, err := h.onelb.AddressPools().Update(t.Context(), pool, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	second := retaining("web", "u3")
	second.Annotations["onelb.io/pool"] = "public"
	h.create(second)
	h.has("web", "10.20.0.100", "10.20.0.101")
	h.eventually("the router has it again", func() bool { return strings.Contains(h.router.dump(), "10.20.0.100:80/TCP ns/web") })
}

func TestWithoutRetainNothingIsKept(t *testing.T) {
	h := newHarness(t, []runtime.Object{readyNode("n1", "10.20.0.11")}, l2Pool("private"))
	h.runLibrary()
	h.create(retaining("web", "u1"))
	h.has("web", "10.20.0.100")
	// The annotation goes with the Service: what it says at the end counts.
	h.update("web", func(s *corev1.Service) { s.Annotations, s.DeletionTimestamp = nil, new(metav1.Now()) })
	h.eventually("it is released", func() bool {
		r, _ := h.store.Get(netip.MustParseAddr("10.20.0.100"))
		return r.Phase == ipam.Releasing
	})
}

// A Service that moves to another pool does not keep the address that it left.
func TestMovingDoesNotRetain(t *testing.T) {
	h := newHarness(t, []runtime.Object{readyNode("n1", "10.20.0.11")}, l2Pool("a"), l2Pool("b"))
	h.runLibrary()
	h.create(retaining("web", "u1"))
	h.has("web", "10.20.0.100")
	h.update("web", func(s *corev1.Service) { s.Annotations["onelb.io/pool"] = "b" })
	h.has("web", "10.20.0.101")
	h.eventually("the old one is released", func() bool {
		r, _ := h.store.Get(netip.MustParseAddr("10.20.0.100"))
		return r.Phase == ipam.Releasing
	})
}

// The address of a Service that went without a word is kept too.
func TestSweepRetains(t *testing.T) {
	h := newHarness(t, []runtime.Object{readyNode("n1", "10.20.0.11")}, l2Pool("private"))
	svc := retaining("web", "u1")
	h.create(svc)
	if _, err := h.controller.EnsureLoadBalancer(t.Context(), "lab", svc, nil); err != nil {
		t.Fatal(err)
	}
	if err := h.kube.CoreV1().Services("ns").Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	h.eventually("it is kept", func() bool { return len(h.store.Retained("ns", "web")) == 1 })
}
