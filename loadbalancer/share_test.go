package loadbalancer

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/onelb/onelb/api/v1alpha1"
)

// sharing is a Service with a key and one port.
func sharing(name string, port int32) *corev1.Service {
	s := namedService(name)
	s.Annotations = map[string]string{"onelb.io/share": "key"}
	s.Spec.Ports = []corev1.ServicePort{{Name: "p", Protocol: corev1.ProtocolTCP, Port: port, NodePort: 30000 + port}}
	return s
}

func (h *harness) has(name string, addrs ...string) {
	h.t.Helper()
	h.eventually(fmt.Sprintf("%s has %v", name, addrs), func() bool { return slices.Equal(h.addressesOf(name), addrs) })
}

// refused waits for the refusal of a Service and returns its one event.
func (h *harness) refused(name string) string {
	h.t.Helper()
	n := h.calls.count("ensure " + name)
	h.eventually("it was tried a few times", func() bool { return h.calls.count("ensure "+name) > n+3 })
	w := slices.DeleteFunc(h.warnings(), func(e string) bool { return !strings.Contains(e, ReasonRefused) })
	if len(w) != 1 {
		h.t.Errorf("events %q, want one", w)
	}
	return strings.Join(w, "\n")
}

func TestServicesShareAnAddress(t *testing.T) {
	h := newHarness(t, []runtime.Object{readyNode("n1", "10.20.0.11")}, l2Pool("private"))
	h.runLibrary()
	h.create(sharing("a", 80))
	h.has("a", "10.20.0.100")
	h.create(sharing("b", 443))
	h.has("b", "10.20.0.100")
	alone := namedService("c")
	h.create(alone)
	h.has("c", "10.20.0.101")
	h.update("a", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP })
	h.has("a")
	a := netip.MustParseAddr("10.20.0.100")
	h.eventually("b alone has it", func() bool { r, _ := h.store.Get(a); return len(r.Owners) == 1 && r.Owners[0].Name == "b" })
	h.has("b", "10.20.0.100")
	h.update("b", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP })
	h.eventually("the last one has released it", func() bool { r, _ := h.store.Get(a); return len(r.Owners) == 0 })
	h.update("a", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeLoadBalancer })
	h.has("a", "10.20.0.102") // not the one that is being released
}

func TestPortClashIsRefusedUntilItEnds(t *testing.T) {
	h := newHarness(t, []runtime.Object{readyNode("n1", "10.20.0.11")}, l2Pool("private"))
	h.runLibrary()
	h.create(sharing("a", 80))
	h.has("a", "10.20.0.100")
	h.create(sharing("b", 80))
	if e := h.refused("b"); !strings.Contains(e, "cannot share 10.20.0.100: Service ns/a has port 80/TCP; change this Service") {
		t.Errorf("event %q", e)
	}
	h.has("b")
	// Another protocol is another port. Only a changes: nobody calls us for b.
	h.update("a", func(s *corev1.Service) { s.Spec.Ports[0].Protocol = corev1.ProtocolUDP })
	h.has("b", "10.20.0.100")
	if n := h.ipam.count(); n != 1 {
		t.Errorf("%d allocations", n)
	}
}

// A Service whose edit makes it clash leaves; the other is not disturbed at any time.
func TestEditThatClashesTakesTheServiceOff(t *testing.T) {
	h := newHarness(t, []runtime.Object{readyNode("n1", "10.20.0.11")}, routerPool("public", v1alpha1.ForwardNodePort, ""))
	h.runLibrary()
	h.create(sharing("b", 80))
	h.has("b", "10.20.0.100")
	h.create(sharing("a", 443))
	h.has("a", "10.20.0.100")
	if d := h.router.dump(); !strings.Contains(d, "10.20.0.100:443/TCP ns/a") || !strings.Contains(d, "10.20.0.100:80/TCP ns/b") {
		t.Fatalf("the router has\n%s", d)
	}
	h.update("a", func(s *corev1.Service) { s.Spec.Ports[0].Port = 80 })
	if e := h.refused("a"); !strings.Contains(e, "Service ns/b has port 80/TCP") {
		t.Errorf("event %q", e)
	}
	h.has("a")
	h.has("b", "10.20.0.100")
	h.eventually("the router has b's port, and not a's", func() bool {
		d := h.router.dump()
		return strings.Contains(d, "10.20.0.100:80/TCP ns/b") && !strings.Contains(d, "ns/a")
	})
	h.update("a", func(s *corev1.Service) { s.Spec.Ports[0].Port = 8080 })
	h.has("a", "10.20.0.100")
}

func TestWhatElseCannotBeShared(t *testing.T) {
	local := func(s *corev1.Service) { s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal }
	selector := func(v string) func(*corev1.Service) {
		return func(s *corev1.Service) { local(s); s.Spec.Selector = map[string]string{"app": v} }
	}
	for _, tt := range []struct {
		name string
		a, b func(*corev1.Service)
		want string // part of the event; empty: shared
	}{
		{"policies differ", func(*corev1.Service) {}, local, "externalTrafficPolicy is Local, and that of ns/a is Cluster"},
		{"Local, other pods", selector("x"), selector("y"), "ns/a does not select the same pods"},
		{"Local, no selector", local, local, "does not select the same pods"},
		{"Local, same pods", selector("x"), selector("x"), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHarness(t, []runtime.Object{readyNode("n1", "10.20.0.11")}, l2Pool("private"))
			h.runLibrary()
			a, b := sharing("a", 80), sharing("b", 443)
			tt.a(a)
			tt.b(b)
			h.create(a)
			h.has("a", "10.20.0.100")
			h.create(b)
			if tt.want == "" {
				h.has("b", "10.20.0.100")
				return
			}
			if e := h.refused("b"); !strings.Contains(e, tt.want) {
				t.Errorf("event %q, want %q", e, tt.want)
			}
		})
	}
}

func TestSharingAcrossNamespaces(t *testing.T) {
	for _, across := range []bool{false, true} {
		pool := l2Pool("private")
		pool.Spec.ShareAcrossNamespaces = across
		h := newHarness(t, []runtime.Object{readyNode("n1", "10.20.0.11")}, pool)
		h.runLibrary()
		h.create(sharing("a", 80))
		h.has("a", "10.20.0.100")
		b := sharing("b", 443)
		b.Namespace = "other"
		if _, err := h.kube.CoreV1().Services("other").Create(t.Context(), b, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		want := map[bool]string{false: "10.20.0.101", true: "10.20.0.100"}[across]
		h.eventually("b has "+want, func() bool {
			s, err := h.kube.CoreV1().Services("other").Get(t.Context(), "b", metav1.GetOptions{})
			return err == nil && len(s.Status.LoadBalancer.Ingress) == 1 && s.Status.LoadBalancer.Ingress[0].IP == want
		})
	}
}

func TestKeyThatChanges(t *testing.T) {
	h := newHarness(t, []runtime.Object{readyNode("n1", "10.20.0.11")}, l2Pool("private"))
	h.runLibrary()
	plain := sharing("a", 80)
	plain.Annotations = nil
	h.create(plain)
	h.has("a", "10.20.0.100")
	key := func(k string) func(*corev1.Service) {
		return func(s *corev1.Service) { s.Annotations = map[string]string{"onelb.io/share": k} }
	}
	h.update("a", key("key")) // keeps what it has alone
	a := netip.MustParseAddr("10.20.0.100")
	h.eventually("the address has the key", func() bool { return len(h.store.Shared("key")) == 1 })
	h.create(sharing("b", 443))
	h.has("b", "10.20.0.100")
	h.update("b", key("other"))
	h.has("b", "10.20.0.101")
	h.update("b", key("key")) // comes back, and leaves its own
	h.has("b", "10.20.0.100")
	h.eventually("what it had is released", func() bool {
		r, _ := h.store.Get(netip.MustParseAddr("10.20.0.101"))
		return len(r.Owners) == 0
	})
	h.update("a", func(s *corev1.Service) { s.Annotations = nil })
	h.has("a", "10.20.0.102")
	if r, _ := h.store.Get(a); len(r.Owners) != 1 || r.Owners[0].Name != "b" {
		t.Errorf("%+v, want b alone", r)
	}
}

func TestManyThatShareAtOnce(t *testing.T) {
	h := newHarness(t, []runtime.Object{readyNode("n1", "10.20.0.11")}, routerPool("public", v1alpha1.ForwardVIP, "private"), l2Pool("private"))
	var wg sync.WaitGroup
	for i := range 12 {
		s := sharing(fmt.Sprint("s", i), int32(8000+i))
		s.Annotations["onelb.io/pool"] = "public"
		h.create(s)
		wg.Go(func() {
			st, err := h.controller.EnsureLoadBalancer(t.Context(), "lab", s, nil)
			if err != nil || len(st.Ingress) != 2 {
				t.Errorf("%v, %v", st, err)
			}
		})
	}
	wg.Wait()
	if n := h.ipam.count(); n != 1+12 {
		t.Errorf("%d allocations, want a public address for all and an inner one for each", n)
	}
	h.eventually("the router has all", func() bool { return strings.Count(h.router.dump(), "/TCP ns/s") == 12 })
}
