package loadbalancer

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
