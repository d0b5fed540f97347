package loadbalancer

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/utils/ptr"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/loadbalancer/class"
	"github.com/onelb/onelb/loadbalancer/virtualip"
)

// runClass starts the controller of our class.
func (h *harness) runClass() (stop func()) {
	h.t.Helper()
	c, err := class.New(class.Options{
		Class: Class, Kube: h.kube, Services: h.shared.Core().V1().Services().Informer(), Balancer: h.calls, Workers: 4,
	})
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(h.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := c.Run(ctx); err != nil && ctx.Err() == nil {
			h.t.Errorf("class: %v", err)
		}
	}()
	stop = func() { cancel(); <-done }
	h.t.Cleanup(stop)
	return stop
}

func classed(name string) *corev1.Service {
	s := namedService(name)
	s.Spec.LoadBalancerClass = new(Class)
	return s
}

func TestServiceOfOurClass(t *testing.T) {
	h := newHarness(t, []runtime.Object{readyNode("n1", "10.20.0.11")}, l2Pool("private"))
	h.runLibrary()
	h.runClass()
	h.create(classed("web"))
	h.has("web", "10.20.0.100")
	if !slices.Contains(h.service("web").Finalizers, cleanup) {
		t.Error("the finalizer is missing")
	}
	for _, a := range h.kube.Actions() {
		if a.Matches("patch", "services") && a.GetSubresource() != "status" || a.Matches("update", "services") {
			t.Errorf("%v: we may write the status only", a)
		}
	}
	// Both controllers see the deletion; it is served once and nothing is left.
	h.update("web", func(s *corev1.Service) { s.DeletionTimestamp = new(metav1.Now()) })
	h.eventually("addresses, status and finalizer are gone", func() bool {
		rec, _ := h.store.Get(netip.MustParseAddr("10.20.0.100"))
		return len(rec.Owners) == 0 && len(h.addressesOf("web")) == 0 && len(h.service("web").Finalizers) == 0
	})
}

// Without the library's controller too, and for what happened while nobody ran.
func TestClassControllerAlone(t *testing.T) {
	h := newHarnessWith(t, func(o *Options) { o.NoDefaultClass = true }, []runtime.Object{readyNode("n1", "10.20.0.11")}, l2Pool("private"))
	stop := h.runClass()
	h.create(classed("web"))
	h.create(namedService("plain"))
	other := namedService("other")
	other.Spec.LoadBalancerClass = new("example.com/lb")
	other.Finalizers = []string{cleanup}
	h.create(other)
	h.has("web", "10.20.0.100")
	// The class goes with the type: the API server demands it.
	h.update("web", func(s *corev1.Service) {
		s.Spec.Type, s.Spec.LoadBalancerClass = corev1.ServiceTypeClusterIP, nil
	})
	h.eventually("status and finalizer are gone", func() bool {
		return len(h.addressesOf("web")) == 0 && len(h.service("web").Finalizers) == 0
	})
	h.update("web", func(s *corev1.Service) {
		s.Spec.Type, s.Spec.LoadBalancerClass = corev1.ServiceTypeLoadBalancer, new(Class)
	})
	h.has("web", "10.20.0.101")
	stop()
	h.update("web", func(s *corev1.Service) { s.DeletionTimestamp = new(metav1.Now()) })
	h.update("other", func(s *corev1.Service) { s.DeletionTimestamp = new(metav1.Now()) })
	h.runClass()
	h.eventually("it is served at the start", func() bool { return len(h.service("web").Finalizers) == 0 })
	if n := h.calls.count("ensure plain") + h.calls.count("ensure other") + h.calls.count("delete other"); n > 0 {
		t.Errorf("%d calls for Services that are not of our class", n)
	}
	if len(h.service("other").Finalizers) != 1 {
		t.Error("the finalizer of another's Service was taken off")
	}
}

func TestClassControllerWritesOnlyWhatDiffers(t *testing.T) {
	h := newHarness(t, []runtime.Object{readyNode("n1", "10.20.0.11")}, l2Pool("private"))
	stop := h.runClass()
	h.create(classed("web"))
	h.has("web", "10.20.0.100")
	stop()
	before, ensured := len(h.kube.Actions()), h.calls.count("ensure web")
	h.runClass()
	h.eventually("it is ensured at the start", func() bool { return h.calls.count("ensure web") > ensured })
	h.update("web", func(s *corev1.Service) { s.Spec.Ports[0].Port = 81 })
	h.eventually("and when it changes", func() bool { return h.calls.count("ensure web") > ensured+1 })
	for _, a := range h.kube.Actions()[before:] {
		if a.Matches("patch", "services") {
			t.Errorf("a useless write: %v", a)
		}
	}
}

// A RetryError is tried again after its own time, and a router that is away
// leaves the Service with the finalizer and without a status.
func TestClassControllerTriesAgain(t *testing.T) {
	h := newHarness(t, []runtime.Object{readyNode("n1", "10.20.0.11")}, routerPool("public", v1alpha1.ForwardNodePort, ""))
	h.router.setFail(errors.New("unreachable"))
	h.runClass()
	h.create(classed("web"))
	h.eventually("it was tried a few times", func() bool { return h.calls.count("ensure web") > 3 })
	if s := h.service("web"); len(s.Finalizers) != 1 || len(s.Status.LoadBalancer.Ingress) > 0 {
		t.Errorf("finalizers %v, status %v", s.Finalizers, s.Status.LoadBalancer)
	}
	h.router.setFail(nil)
	h.has("web", "10.20.0.100")
	if n := h.ipam.count(); n != 1 {
		t.Errorf("%d allocations", n)
	}
}

func TestWithoutDefaultClass(t *testing.T) {
	// No nodes: the library's node worker races with its service worker over
	// Services that exist at its start, and the race detector sees it.
	h := newHarnessWith(t, func(o *Options) { o.NoDefaultClass = true }, nil, l2Pool("private"))
	// A Service from the time before the flag.
	old := namedService("old")
	old.Finalizers = []string{cleanup}
	old.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "10.20.0.100", IPMode: ptr.To(corev1.LoadBalancerIPModeVIP)}}
	h.create(old)
	_, err := h.ipam.Allocate(t.Context(), ipam.Request{
		Pool: "private", Owner: ipam.Owner{Namespace: "ns", Name: "old", UID: "uid-old"},
		Detail: virtualip.Detail{Role: v1alpha1.RoleL2, TrafficPolicy: v1alpha1.TrafficPolicyCluster},
	})
	if err != nil {
		t.Fatal(err)
	}
	h.runLibrary()
	h.runClass()
	h.create(namedService("web"))
	h.create(classed("ours"))
	h.has("ours", "10.20.0.101")
	h.eventually("the library has asked", func() bool { return h.calls.count("ensure web") > 0 })
	if _, err := h.controller.EnsureLoadBalancer(t.Context(), "lab", namedService("web"), nil); err != cloudprovider.ImplementedElsewhere { //nolint:errorlint // the library compares it like this
		t.Errorf("got %v, want ImplementedElsewhere bare", err)
	}
	h.has("web")
	// What it has, a Service keeps, through sweeps too; and gives back when it goes.
	h.controller.sweep(t.Context())
	h.has("old", "10.20.0.100")
	if r, _ := h.store.Get(netip.MustParseAddr("10.20.0.100")); len(r.Owners) != 1 {
		t.Errorf("%+v", r)
	}
	h.update("old", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP })
	h.has("old")
	h.eventually("it is released", func() bool {
		r, _ := h.store.Get(netip.MustParseAddr("10.20.0.100"))
		return len(r.Owners) == 0
	})
	// A Service that lost its finalizer keeps nothing for itself.
	h.update("ours", func(s *corev1.Service) { s.Spec.LoadBalancerClass = new("example.com/lb"); s.Finalizers = nil })
	h.controller.sweep(t.Context())
	h.eventually("an address of another class is released", func() bool {
		h.controller.sweep(t.Context())
		r, _ := h.store.Get(netip.MustParseAddr("10.20.0.101"))
		return len(r.Owners) == 0
	})
}
