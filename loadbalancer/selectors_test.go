package loadbalancer

import (
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
)

func (h *harness) labelNamespace(labels map[string]string) {
	h.t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns", Labels: labels}}
	if _, err := h.kube.CoreV1().Namespaces().Update(h.t.Context(), ns, metav1.UpdateOptions{}); err != nil {
		h.t.Fatal(err)
	}
	h.eventually("the labels are known", func() bool { return maps.Equal(h.controller.namespaceLabels("ns"), labels) })
}

// warnings drains what events there are, and returns the warnings.
func (h *harness) warnings() []string {
	var out []string
	for {
		select {
		case e := <-h.events.Events:
			if strings.HasPrefix(e, corev1.EventTypeWarning) {
				out = append(out, e)
			}
		default:
			return out
		}
	}
}

func TestPoolIsForSomeNamespacesOnly(t *testing.T) {
	pool := l2Pool("private")
	pool.Spec.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "a"}}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}
	h := newHarness(t, []runtime.Object{readyNode("n1", "10.20.0.11"), ns}, pool)
	h.runLibrary()
	svc := namedService("web")
	svc.Annotations = map[string]string{"onelb.io/pool": "private"}
	h.create(svc)
	h.eventually("it was tried a few times", func() bool { return h.calls.count("ensure web") > 3 })
	if got := h.addressesOf("web"); len(got) > 0 || h.ipam.count() > 0 {
		t.Fatalf("it has %v", got)
	}
	warned := slices.DeleteFunc(h.warnings(), func(e string) bool { return !strings.Contains(e, ReasonRefused) })
	if len(warned) != 1 || !strings.Contains(warned[0], `is for namespaces with labels "team=a", and namespace ns has ""`) {
		t.Errorf("events %q, want one that says why", warned)
	}
	h.labelNamespace(map[string]string{"team": "a"})
	h.eventually("it has an address", func() bool { return len(h.addressesOf("web")) == 1 })
	// What is given stays, whatever becomes of the labels.
	h.labelNamespace(nil)
	ensured := h.calls.count("ensure web")
	h.update("web", func(s *corev1.Service) { s.Spec.Ports[0].Port++ })
	h.eventually("it is ensured again", func() bool { return h.calls.count("ensure web") > ensured })
	if got := h.addressesOf("web"); !slices.Equal(got, []string{"10.20.0.100"}) {
		t.Errorf("it has %v", got)
	}
}

func TestSpecOfPool(t *testing.T) {
	pool := l2Pool("p")
	pool.Spec.Draining, pool.Spec.AvoidEdgeAddresses = true, true
	s, err := specOf(pool)
	if err != nil || !s.Draining || !s.AvoidEdges || s.Leaving {
		t.Errorf("%+v, %v", s, err)
	}
	pool = l2Pool("p")
	pool.Spec.Ranges = []v1alpha1.AddressRange{{Start: "10.0.0.9", End: "10.0.0.1"}}
	if s, err := specOf(pool); err == nil || !s.Draining || s.Leaving {
		t.Errorf("%+v, %v: a mistake in the ranges must not give the reservation back", s, err)
	}
	pool = l2Pool("p")
	pool.Spec.ServiceSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Is"}}}
	v, err := viewOf(pool)
	if err == nil || !strings.Contains(err.Error(), "spec.serviceSelector") {
		t.Errorf("got %v", err)
	}
	if v.admit(testService(), nil) == nil {
		t.Error("a pool whose selector cannot be read is for nobody")
	}
}

func TestNodesOfAPool(t *testing.T) {
	pool := l2Pool("p")
	pool.Spec.L2 = &v1alpha1.L2Spec{
		NodeSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"edge": "yes"}, MatchExpressions: []metav1.LabelSelectorRequirement{
			{Key: "old", Operator: metav1.LabelSelectorOpDoesNotExist}}},
		NodePreferences: []v1alpha1.NodePreference{{Weight: 7, Selector: metav1.LabelSelector{MatchLabels: map[string]string{"rack": "a"}}}},
	}
	v, err := viewOf(pool)
	if err != nil || v.NodeSelector != "edge=yes,!old" || !slices.Equal(v.NodePreferences, []v1alpha1.NodeWeight{{Weight: 7, Selector: "rack=a"}}) {
		t.Errorf("%+v, %v", v, err)
	}
	d := detailFor(testService(), want{}, v, false)
	if d.NodeSelector != v.NodeSelector || !slices.Equal(d.NodePreferences, v.NodePreferences) {
		t.Errorf("%+v", d)
	}
	pool.Spec.L2.NodePreferences[0].Selector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Is"}}
	if _, err := viewOf(pool); err == nil || !strings.Contains(err.Error(), "spec.l2.nodePreferences[0].selector") {
		t.Errorf("got %v", err)
	}
}

// An edit of a pool reaches the addresses that Services have.
func TestAddressesFollowTheirPool(t *testing.T) {
	h := newHarness(t, []runtime.Object{readyNode("n1", "10.20.0.11")}, l2Pool("private"))
	h.runLibrary()
	h.create(namedService("web"))
	h.eventually("it has an address", func() bool { return len(h.addressesOf("web")) == 1 })
	for _, l2 := range []*v1alpha1.L2Spec{
		{Interfaces: []string{"eth1"}, NodeSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"edge": "a"}}},
		{NodeSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"edge": "b"}}},
		nil,
	} {
		pool, err := h.onelb.AddressPools().Get(t.Context(), "private", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		pool.Spec.L2 = l2
		if _, err := h.onelb.AddressPools().Update(t.Context(), pool, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		want, err := viewOf(pool)
		if err != nil {
			t.Fatal(err)
		}
		h.eventually("the VirtualIP follows", func() bool {
			v, err := h.onelb.VirtualIPs().Get(t.Context(), h.addressesOf("web")[0], metav1.GetOptions{})
			return err == nil && v.Spec.NodeSelector == want.NodeSelector && slices.Equal(v.Spec.Interfaces, want.Interfaces) && len(v.Spec.Services) == 1
		})
	}
}

// TestFindingsOfAPool: conditions that are there only while there is something
// to say, and no reservation where there is none.
func TestFindingsOfAPool(t *testing.T) {
	pool := l2Pool("p")
	pool.Spec.Reservation = v1alpha1.ReservationNone
	if s, err := specOf(pool); err != nil || !s.Direct {
		t.Errorf("%+v, %v", s, err)
	}
	st := ipam.PoolStatus{
		Name: "p", Ready: true, Reason: ipam.ReasonOnHold, NetworkID: 3, ReservationID: ipam.NoNetwork,
		IPv4:    ipam.Counts{Total: 9, Used: 2, Ahead: 4, SetAside: 1},
		Overlap: ipam.Finding{Reason: ipam.ReasonSameNetwork, Message: "both"}, Stranded: ipam.Finding{Reason: ipam.ReasonRangeRemoved, Message: "gone"},
	}
	pool.Status = poolStatus(pool, st, nil)
	for kind, reason := range map[string]string{v1alpha1.PoolOverlapping: "SameNetwork", v1alpha1.PoolStranded: "RangeRemoved", v1alpha1.PoolReady: "OnHold"} {
		c := apimeta.FindStatusCondition(pool.Status.Conditions, kind)
		if c == nil || c.Status != metav1.ConditionTrue || c.Reason != reason {
			t.Errorf("%s: %+v", kind, c)
		}
	}
	if s := pool.Status; s.ReservationID != nil || *s.NetworkID != 3 || s.IPv4.Ahead != 4 || s.IPv4.SetAside != 1 {
		t.Errorf("%+v", s)
	}
	st.Overlap, st.Stranded = ipam.Finding{}, ipam.Finding{}
	if got := poolStatus(pool, st, nil); len(got.Conditions) != 1 {
		t.Errorf("%+v", got.Conditions)
	}
}

func TestStatusOfADrainingPool(t *testing.T) {
	pool := l2Pool("p")
	st := ipam.PoolStatus{Name: "p", Reason: ipam.ReasonDraining, Message: "why", NetworkID: 3, ReservationID: 7, IPv4: ipam.Counts{Total: 9, Used: 2}}
	got := poolStatus(pool, st, nil)
	c := apimeta.FindStatusCondition(got.Conditions, v1alpha1.PoolReady)
	if c == nil || c.Status != metav1.ConditionFalse || c.Reason != "Draining" || got.IPv4 == nil || got.IPv4.Used != 2 || *got.ReservationID != 7 {
		t.Errorf("%+v", got)
	}
}
