package loadbalancer

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/loadbalancer/virtualip"
)

// TestLateStatusIsCorrected: a former leader writes the status of a Service
// after its successor did, with an address that it had allocated itself.
func TestLateStatusIsCorrected(t *testing.T) {
	h := newHarness(t, nil, l2Pool("private"))
	h.runLibrary()
	h.create(namedService("web"))
	h.eventually("an address", func() bool { return len(h.addressesOf("web")) == 1 })
	has := h.addressesOf("web")[0]

	svc := h.service("web")
	svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "10.20.0.199"}}
	if _, err := h.kube.CoreV1().Services("ns").UpdateStatus(t.Context(), svc, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	h.eventually("the status is corrected", func() bool {
		shown := h.addressesOf("web")
		return len(shown) == 1 && shown[0] == has
	})
}

// TestAddressOfTheOtherLeaderIsReleased: both leaders allocated for a Service,
// and the one that lost died before it gave its address back.
func TestAddressOfTheOtherLeaderIsReleased(t *testing.T) {
	h := newHarness(t, nil, l2Pool("private"))
	h.runLibrary()
	h.create(namedService("web"))
	h.eventually("an address", func() bool { return len(h.addressesOf("web")) == 1 })
	svc := h.service("web")
	a := netip.MustParseAddr("10.20.0.198")
	_, err := h.store.Create(t.Context(), ipam.Record{
		Address: a, Pool: "private", Owners: []ipam.Owner{{Namespace: "ns", Name: "web", UID: string(svc.UID)}},
		Detail: virtualip.Detail{Role: "L2", TrafficPolicy: "Cluster"},
	})
	if err != nil {
		t.Fatal(err)
	}
	h.eventually("one of the two addresses is given back, and the other shown", func() bool {
		records, shown := h.store.OwnedBy(svc.UID), h.addressesOf("web")
		return len(records) == 1 && len(shown) == 1 && records[0].Address.String() == shown[0]
	})
}

// TestFamilyThatComesLater: a Service that prefers two families has to do with
// one, and gets the other when a pool has it, and when it has a free address.
func TestFamilyThatComesLater(t *testing.T) {
	h := newHarness(t, nil, l2Pool("private"))
	h.runLibrary()
	svc := namedService("web")
	dual(corev1.IPFamilyPolicyPreferDualStack)(svc)
	h.create(svc)
	h.eventually("one address", func() bool { return len(h.addressesOf("web")) == 1 })
	four := h.addressesOf("web")[0]

	h.ipam.setIPv6(netip.MustParseAddr("fd00:20::100"), true)
	h.event("AllocationFailed", "no free address")
	if shown := h.addressesOf("web"); len(shown) != 1 || shown[0] != four {
		t.Errorf("it shows %v", shown)
	}
	h.ipam.setIPv6(netip.MustParseAddr("fd00:20::100"), false)
	h.eventually("both addresses", func() bool { return len(h.addressesOf("web")) == 2 })
	if shown := h.addressesOf("web"); shown[0] != "fd00:20::100" || shown[1] != four {
		t.Errorf("it shows %v", shown)
	}

	h.ipam.setIPv6(netip.Addr{}, false)
	before := h.calls.count("ensure web")
	h.update("web", func(s *corev1.Service) { s.Spec.Ports[0].Port = 81 })
	h.eventually("a look at the edit", func() bool { return h.calls.count("ensure web") > before })
	time.Sleep(100 * time.Millisecond)
	if shown := h.addressesOf("web"); len(shown) != 2 {
		t.Errorf("the family has left the pool, and the Service shows %v", shown)
	}
}

// TestEditedVirtualIPIsRepaired: somebody edits what the VirtualIP says, and a
// pool's interfaces change.
func TestEditedVirtualIPIsRepaired(t *testing.T) {
	h := newHarness(t, nil, l2Pool("private"))
	h.runLibrary()
	h.create(namedService("web"))
	h.eventually("an address", func() bool { return len(h.addressesOf("web")) == 1 })
	spec := func() v1alpha1.VirtualIPSpec {
		v, err := h.onelb.VirtualIPs().Get(t.Context(), h.addressesOf("web")[0], metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return v.Spec
	}
	_, err := h.onelb.VirtualIPs().Patch(t.Context(), h.addressesOf("web")[0], types.MergePatchType,
		[]byte(`{"spec":{"trafficPolicy":"Local","interfaces":["eth7"]}}`), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	h.eventually("the edit is undone", func() bool {
		return spec().TrafficPolicy == v1alpha1.TrafficPolicyCluster && len(spec().Interfaces) == 0
	})
	_, err = h.onelb.AddressPools().Patch(t.Context(), "private", types.MergePatchType,
		[]byte(`{"spec":{"l2":{"interfaces":["eth1"]}}}`), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	h.eventually("the pool's interfaces", func() bool { return len(spec().Interfaces) == 1 && spec().Interfaces[0] == "eth1" })
}

// event waits for an event of a reason with a word.
func (h *harness) event(reason, word string) {
	h.t.Helper()
	deadline := time.After(2 * time.Minute)
	for {
		select {
		case e := <-h.events.Events:
			if strings.Contains(e, reason) && strings.Contains(e, word) {
				return
			}
		case <-deadline:
			h.t.Fatalf("no event %s with %q", reason, word)
		}
	}
}
