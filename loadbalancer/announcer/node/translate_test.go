package node

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/announcer"
)

func TestTranslate(t *testing.T) {
	node := func(name string, change func(*corev1.Node)) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeHostName, Address: name}, {Type: corev1.NodeInternalIP, Address: "10.0.0.9"}}}}
		change(n)
		return n
	}
	since := time.Unix(7, 0)
	services := []v1alpha1.ServiceReference{{Namespace: "d", Name: "a", UID: "1"}, {Namespace: "d", Name: "b", UID: "2"}}
	vips := []*v1alpha1.VirtualIP{
		{Spec: v1alpha1.VirtualIPSpec{Address: "203.0.113.9", Role: v1alpha1.RoleRouter, Services: services}},
		{Spec: v1alpha1.VirtualIPSpec{Address: "203.0.113.10", Role: v1alpha1.RoleL2, NodeSelector: "a b"}},
		{Spec: v1alpha1.VirtualIPSpec{Address: "203.0.113.11", Role: v1alpha1.RoleL2, Guard: &v1alpha1.Guard{Candidates: []v1alpha1.Candidate{
			{Node: "n9", Machine: 9, State: v1alpha1.CandidateAttached}, {Node: "n1", Machine: 1, State: v1alpha1.CandidateAttached},
			{Node: "n2", Machine: 2, State: v1alpha1.CandidateAttaching}, {Node: "n3", Machine: 3, State: v1alpha1.CandidateDetaching}}}}},
		{Spec: v1alpha1.VirtualIPSpec{Address: "203.0.113.12", Role: v1alpha1.RoleRouter, Services: services[:1], Router: &v1alpha1.VirtualIPRouter{Forward: v1alpha1.ForwardRoute}}},
		{
			Spec:   v1alpha1.VirtualIPSpec{Address: "203.0.113.13", Role: v1alpha1.RoleRouter, Services: services, Router: &v1alpha1.VirtualIPRouter{Forward: v1alpha1.ForwardNodePort}},
			Status: v1alpha1.VirtualIPStatus{Holder: &v1alpha1.Holder{Name: "n1", Interface: "eth0", Epoch: 4, Since: metav1.NewMicroTime(since)}},
		},
		{Spec: v1alpha1.VirtualIPSpec{Address: "nonsense", Role: v1alpha1.RoleL2}},
		{Spec: v1alpha1.VirtualIPSpec{Address: "203.0.113.8", Role: v1alpha1.RoleL2, Services: services,
			TrafficPolicy: v1alpha1.TrafficPolicyLocal}},
		{Spec: v1alpha1.VirtualIPSpec{Address: "203.0.113.7", Role: v1alpha1.RoleInner, Interfaces: []string{"eth1"},
			NodeSelector: "edge in (a,b),!old", NodePreferences: []v1alpha1.NodeWeight{{Weight: 3, Selector: "edge=a"}, {Weight: 2, Selector: "edge"}}},
			Status: v1alpha1.VirtualIPStatus{Holder: &v1alpha1.Holder{Name: "n1", Interface: "eth0", Epoch: 4, Since: metav1.NewMicroTime(since)}}},
	}
	yes, no := true, false
	endpoint := func(n string, ready, serving *bool) discoveryv1.Endpoint {
		return discoveryv1.Endpoint{NodeName: &n, Conditions: discoveryv1.EndpointConditions{Ready: ready, Serving: serving}}
	}
	endpoints := func(_, service string) []*discoveryv1.EndpointSlice {
		if service == "a" {
			return []*discoveryv1.EndpointSlice{{Endpoints: []discoveryv1.Endpoint{endpoint("n3", &yes, &yes), endpoint("n1", nil, nil), endpoint("n2", &no, &yes)}}}
		}
		return []*discoveryv1.EndpointSlice{{Endpoints: []discoveryv1.Endpoint{endpoint("n3", &no, &yes), endpoint("n4", &no, &no), {}}}}
	}
	got := translate(klog.Background(), true, []*corev1.Node{
		node("n2", func(n *corev1.Node) { n.Labels = map[string]string{corev1.LabelNodeExcludeBalancers: ""} }),
		node("n1", func(n *corev1.Node) { n.Labels = map[string]string{"edge": "a"} }),
		node("n4", func(n *corev1.Node) { n.DeletionTimestamp = &metav1.Time{Time: since} }),
		node("n3", func(n *corev1.Node) {
			n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionTrue}}
		}),
		node("n5", func(n *corev1.Node) { n.Spec.Unschedulable, n.Labels = true, map[string]string{"edge": "b"} }),
		node("n6", func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: taintAutoscaler}} }),
	}, vips, endpoints)
	addresses := []netip.Addr{netip.MustParseAddr("10.0.0.9")}
	want := &announcer.Cluster{
		Nodes: []announcer.Node{
			{Name: "n1", Addresses: addresses},
			{Name: "n2", Addresses: addresses, Excluded: true},
			{Name: "n3", Addresses: addresses, Unavailable: true},
			{Name: "n4", Addresses: addresses, Excluded: true},
			{Name: "n5", Addresses: addresses, Draining: true},
			{Name: "n6", Addresses: addresses, Draining: true},
		},
		Addresses: []announcer.Address{
			{Address: netip.MustParseAddr("203.0.113.7"), Interfaces: []string{"eth1"},
				Selected: true, Nodes: []string{"n1", "n5"}, Weights: map[string]int{"n1": 5, "n5": 2},
				Holder: &announcer.Holding{Node: "n1", Interface: "eth0", Epoch: 4, Since: since}},
			{Address: netip.MustParseAddr("203.0.113.8"), Local: true, Endpoints: []string{"n3"},
				Services: []announcer.Service{{Namespace: "d", Name: "a", UID: "1"}, {Namespace: "d", Name: "b", UID: "2"}}},
			{Address: netip.MustParseAddr("203.0.113.10"), Selected: true}, // it cannot be read
			{Address: netip.MustParseAddr("203.0.113.11"), Local: true, Endpoints: []string{"n1", "n9"}},
			{Address: netip.MustParseAddr("203.0.113.12"), Routed: true, Services: []announcer.Service{{Namespace: "d", Name: "a", UID: "1"}}},
			// The router translates now; the node is to let go.
			{Address: netip.MustParseAddr("203.0.113.13"), Routed: true, Holder: &announcer.Holding{Node: "n1", Interface: "eth0", Epoch: 4, Since: since}},
		},
	}
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Error(d)
	}
}

func TestCordonMayBeIgnored(t *testing.T) {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Spec: corev1.NodeSpec{Unschedulable: true}}
	if translateNode(n, false).Draining || !translateNode(n, true).Draining {
		t.Error("a cordoned node drains if it is to count, and only then")
	}
}

func TestTrimKeepsWhatIsUsed(t *testing.T) {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"big": "thing"}},
		Spec:   corev1.NodeSpec{Unschedulable: true, Taints: []corev1.Taint{{Key: "a"}}, PodCIDR: "10.0.0.0/24"},
		Status: corev1.NodeStatus{Images: []corev1.ContainerImage{{}}, Addresses: []corev1.NodeAddress{{Address: "1.2.3.4"}}}}
	_, err := trimNode(n)
	must(t, err)
	if n.Annotations != nil || !n.Spec.Unschedulable || len(n.Spec.Taints) != 1 || n.Spec.PodCIDR != "" || n.Status.Images != nil || len(n.Status.Addresses) != 1 || n.Labels["a"] != "b" {
		t.Errorf("got %+v", n)
	}
	name := "n"
	s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{discoveryv1.LabelServiceName: "s"}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.1.1.1"}, NodeName: &name}}}
	_, err = trimSlice(s)
	must(t, err)
	if s.Endpoints[0].Addresses != nil || *s.Endpoints[0].NodeName != "n" || s.Labels[discoveryv1.LabelServiceName] != "s" {
		t.Errorf("got %+v", s)
	}
}
