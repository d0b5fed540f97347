package node

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"

	onelbfake "github.com/onelb/onelb/api/client/fake"
	"github.com/onelb/onelb/api/v1alpha1"
)

func trimmed(t *testing.T, trim func(any) (any, error), obj any) any {
	t.Helper()
	out, err := trim(obj)
	must(t, err)
	return out
}

func heartbeat(at int64) *corev1.Node {
	beat := metav1.Unix(at, 0)
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "u", Labels: map[string]string{"edge": "yes"}, Annotations: map[string]string{"at": beat.String()}},
		Status: corev1.NodeStatus{
			Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.1"}},
			Conditions: []corev1.NodeCondition{
				{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: beat, Message: "ready"},
				{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionFalse, LastHeartbeatTime: beat},
			},
		},
	}
}

func TestSameNode(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*corev1.Node)
		want   bool
	}{
		"a heartbeat":        {func(*corev1.Node) {}, true},
		"memory is short":    {func(n *corev1.Node) { n.Status.Conditions[1].Status = corev1.ConditionTrue }, true},
		"cordoned":           {func(n *corev1.Node) { n.Spec.Unschedulable = true }, false},
		"a taint":            {func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: taintAutoscaler}} }, false},
		"a label":            {func(n *corev1.Node) { n.Labels[corev1.LabelNodeExcludeBalancers] = "" }, false},
		"an address":         {func(n *corev1.Node) { n.Status.Addresses[0].Address = "10.0.0.2" }, false},
		"being deleted":      {func(n *corev1.Node) { n.DeletionTimestamp = &metav1.Time{Time: time.Unix(9, 0)} }, false},
		"another one":        {func(n *corev1.Node) { n.UID = "v" }, false},
		"no network":         {func(n *corev1.Node) { n.Status.Conditions[1].Type = corev1.NodeNetworkUnavailable }, false},
		"is shutting down":   {func(n *corev1.Node) { n.Status.Conditions[0].Message = shuttingDown }, false},
		"is no longer ready": {func(n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionUnknown }, false},
	} {
		after := heartbeat(2000)
		c.change(after)
		if got := same(trimmed(t, trimNode, heartbeat(1000)), trimmed(t, trimNode, after)); got != c.want {
			t.Errorf("%s: same: %v", name, got)
		}
	}
}

func TestSameVirtualIP(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*v1alpha1.VirtualIP)
		want   bool
	}{
		"on hold": {func(v *v1alpha1.VirtualIP) {
			v.ResourceVersion = "7"
			apimeta.SetStatusCondition(&v.Status.Conditions, metav1.Condition{Type: v1alpha1.VirtualIPOnHold, Status: metav1.ConditionTrue})
		}, true},
		"another port": {func(v *v1alpha1.VirtualIP) { v.Spec.Services[0].Ports = []string{"TCP/81"} }, true},
		"a holder":     {func(v *v1alpha1.VirtualIP) { v.Status.Holder = &v1alpha1.Holder{Name: "n", Epoch: 1} }, false},
		"a conflict": {func(v *v1alpha1.VirtualIP) {
			apimeta.SetStatusCondition(&v.Status.Conditions, metav1.Condition{Type: v1alpha1.VirtualIPAddressConflict, Status: metav1.ConditionTrue})
		}, false},
		"no Services":  {func(v *v1alpha1.VirtualIP) { v.Spec.Services = nil }, false},
		"Local":        {func(v *v1alpha1.VirtualIP) { v.Spec.TrafficPolicy = v1alpha1.TrafficPolicyLocal }, false},
		"another one":  {func(v *v1alpha1.VirtualIP) { v.UID = "v" }, false},
		"an interface": {func(v *v1alpha1.VirtualIP) { v.Spec.Interfaces = []string{"eth7"} }, false},
	} {
		after := virtualIP()
		c.change(after)
		if got := same(trimmed(t, trimVirtualIP, virtualIP()), trimmed(t, trimVirtualIP, after)); got != c.want {
			t.Errorf("%s: same: %v", name, got)
		}
	}
}

// EndpointSlices count only where a Service with policy Local has an address.
func TestEndpointSlicesThatMatter(t *testing.T) {
	s, err := newSource(fakeKube{fake.NewClientset()}, onelbfake.New(), false)
	must(t, err)
	woken := func() bool {
		select {
		case <-s.changed:
			return true
		default:
			return false
		}
	}
	slice := func(service string, ready bool) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: service + "-1", Labels: map[string]string{discoveryv1.LabelServiceName: service}},
			Endpoints:  []discoveryv1.Endpoint{{NodeName: ptr.To("n"), Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
		}
	}
	local := virtualIP()
	local.Spec.TrafficPolicy, local.Spec.Services = v1alpha1.TrafficPolicyLocal, []v1alpha1.ServiceReference{{Namespace: "d", Name: "local"}}
	s.local = localServices([]*v1alpha1.VirtualIP{local, virtualIP()})
	s.heard(nil, slice("web", true))
	s.heard(slice("web", true), slice("web", false))
	s.heard(slice("local", true), slice("local", true))
	if woken() {
		t.Error("by slices that decide nothing")
	}
	for name, hear := range map[string]func(){
		"new":              func() { s.heard(nil, slice("local", true)) },
		"changed":          func() { s.heard(slice("local", true), slice("local", false)) },
		"no longer of it":  func() { s.heard(slice("local", true), slice("web", true)) },
		"a node":           func() { s.heard(nil, heartbeat(1)) },
		"something missed": func() { s.heard(nil, struct{}{}) },
	} {
		if hear(); !woken() {
			t.Errorf("%s: not woken", name)
		}
	}
}
