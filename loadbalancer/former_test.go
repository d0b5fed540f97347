package loadbalancer

import (
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/loadbalancer/annotation"
)

func (f *fakeAllocator) set(formers []ipam.Former, unread ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.formers, f.unread = formers, unread
}

func kept(pool, address string, t ipam.Title, names ...string) ipam.Former {
	for _, n := range names {
		t.Owners = append(t.Owners, ipam.Owner{Namespace: "ns", Name: n})
	}
	return ipam.Former{Pool: pool, Address: netip.MustParseAddr(address), Title: t}
}

func TestServiceGetsItsFormerAddress(t *testing.T) {
	low, high := l2Pool("low"), l2Pool("zhigh")
	high.Spec.Priority = 100
	h := newHarness(t, nil, low, high)
	h.ipam.set([]ipam.Former{kept("low", "10.20.0.50", ipam.Title{}, "web"), kept("zhigh", "10.20.0.60", ipam.Title{Inner: true}, "web")})
	h.runLibrary()
	h.create(namedService("web"))
	h.create(namedService("other"))
	named := namedService("named")
	named.Annotations = map[string]string{annotation.Address.Name: "10.20.0.77"}
	h.ipam.set(append(h.ipam.formers, kept("low", "10.20.0.51", ipam.Title{}, "named")))
	h.create(named)
	h.eventually("addresses", func() bool {
		return slices.Equal(h.addressesOf("web"), []string{"10.20.0.50"}) && len(h.addressesOf("other")) == 1 &&
			slices.Equal(h.addressesOf("named"), []string{"10.20.0.77"})
	})
}

// Those who shared an address meet on it again, and not on the one of a
// newcomer that has their key.
func TestSharersMeetAgain(t *testing.T) {
	h := newHarness(t, nil, l2Pool("pool"))
	h.runLibrary()
	share := func(name string, port int32) *corev1.Service {
		s := namedService(name)
		s.Annotations = map[string]string{annotation.Share.Name: "k"}
		s.Spec.Ports = []corev1.ServicePort{{Name: "p", Port: port, Protocol: corev1.ProtocolTCP}}
		return s
	}
	h.create(share("newcomer", 80))
	h.eventually("the newcomer's address", func() bool { return len(h.addressesOf("newcomer")) == 1 })
	h.ipam.set([]ipam.Former{kept("pool", "10.20.0.50", ipam.Title{Share: "k"}, "a", "b")})
	h.create(share("a", 80))
	h.eventually("a is back", func() bool { return slices.Equal(h.addressesOf("a"), []string{"10.20.0.50"}) })
	f := kept("pool", "10.20.0.50", ipam.Title{Share: "k"}, "b")
	f.Taken = true
	h.ipam.set([]ipam.Former{f})
	h.create(share("b", 81))
	h.eventually("b is back", func() bool { return slices.Equal(h.addressesOf("b"), []string{"10.20.0.50"}) })
}

// A new Service waits for a pool that may have an address for it.
func TestServiceWaitsForPoolsThatAreNotRead(t *testing.T) {
	h := newHarness(t, nil, l2Pool("pool"), l2Pool("slow"))
	h.ipam.set(nil, "slow")
	svc := namedService("web")
	h.create(svc)
	if _, err := h.controller.EnsureLoadBalancer(t.Context(), "", svc, nil); err == nil || h.ipam.count() > 0 {
		t.Errorf("%v, %d allocations", err, h.ipam.count())
	}
	svc.Annotations = map[string]string{annotation.Pool.Name: "pool"} // then no other counts
	if _, err := h.controller.EnsureLoadBalancer(t.Context(), "", svc, nil); err != nil {
		t.Error(err)
	}
}

// A Service whose VirtualIP is gone, and that still shows an address, asks for it.
func TestServiceKeepsWhatItShows(t *testing.T) {
	h := newHarness(t, nil, l2Pool("pool"))
	svc := namedService("web")
	svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "10.20.0.90"}}
	h.create(svc)
	st, err := h.controller.EnsureLoadBalancer(t.Context(), "", svc, nil)
	if err != nil || len(st.Ingress) != 1 || st.Ingress[0].IP != "10.20.0.90" {
		t.Errorf("%+v, %v", st, err)
	}
}

// Behind a router with forward VIP a Service has two addresses, and gets both
// back, each in its place.
func TestRouterAndInnerAddressComeBack(t *testing.T) {
	h := newHarness(t, nil, l2Pool("inner"), routerPool("public", v1alpha1.ForwardVIP, "inner"))
	h.ipam.set([]ipam.Former{
		kept("inner", "10.20.0.60", ipam.Title{Inner: true}, "web"),
		kept("public", "203.0.113.70", ipam.Title{}, "web"),
		kept("public", "203.0.113.71", ipam.Title{}, "other"),
	})
	svc := namedService("web")
	svc.Annotations = map[string]string{annotation.Pool.Name: "public"}
	h.create(svc)
	st, err := h.controller.EnsureLoadBalancer(t.Context(), "", svc, nil)
	if err != nil || len(st.Ingress) != 2 || st.Ingress[0].IP != "203.0.113.70" || st.Ingress[1].IP != "10.20.0.60" {
		t.Fatalf("%+v, %v", st, err)
	}
	for _, r := range h.store.OwnedBy(svc.UID) {
		want := map[string]v1alpha1.Role{"203.0.113.70": v1alpha1.RoleRouter, "10.20.0.60": v1alpha1.RoleInner}[r.Address.String()]
		if role(r) != want {
			t.Errorf("%s has role %s, want %q", r.Address, role(r), want)
		}
	}
}
