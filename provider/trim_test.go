package provider

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"github.com/onelb/onelb/api/v1alpha1"
)

// TestTrim: what the load balancer and the library read is still there.
func TestTrim(t *testing.T) {
	meta := metav1.ObjectMeta{
		Name: "x", Labels: map[string]string{"a": "b"}, Finalizers: []string{"f"},
		Annotations:   map[string]string{applied: "{}", "onelb.io/pool": "p"},
		ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m"}},
	}
	check := func(name string, f cache.TransformFunc, obj metav1.Object, annotations int) {
		t.Helper()
		out, err := f(obj)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := out.(metav1.Object)
		if got.GetManagedFields() != nil || got.GetName() != "x" || got.GetLabels()["a"] != "b" || len(got.GetAnnotations()) != annotations {
			t.Errorf("%s: %+v", name, got)
		}
	}
	check("Service", trimService, &corev1.Service{ObjectMeta: *meta.DeepCopy()}, 1)
	check("Namespace", trimMeta, &corev1.Namespace{ObjectMeta: *meta.DeepCopy()}, 2)
	check("VirtualIP", trimVirtualIP, &v1alpha1.VirtualIP{ObjectMeta: *meta.DeepCopy()}, 2)

	node := &corev1.Node{
		ObjectMeta: *meta.DeepCopy(), Spec: corev1.NodeSpec{ProviderID: "id", Taints: []corev1.Taint{{Key: "k"}}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Address: "10.0.0.1"}}, Images: []corev1.ContainerImage{{}}},
	}
	check("Node", trimNode, node, 2) // the library updates the whole object
	if node.Spec.ProviderID != "id" || len(node.Spec.Taints) != 1 || len(node.Status.Addresses) != 1 || node.Status.Images != nil {
		t.Errorf("Node: %+v", node)
	}

	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: *meta.DeepCopy(), AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Port: ptr.To[int32](80)}},
		Endpoints: []discoveryv1.Endpoint{{
			Addresses: []string{"10.244.1.5"}, NodeName: new("node-1"), Zone: new("z"),
			Conditions: discoveryv1.EndpointConditions{Ready: new(true)},
			TargetRef:  &corev1.ObjectReference{Kind: "Pod", Name: "p", UID: "u"},
		}},
	}
	check("EndpointSlice", trimSlice, slice, 0)
	e := slice.Endpoints[0]
	if len(e.Addresses) != 1 || *e.NodeName != "node-1" || !*e.Conditions.Ready || e.TargetRef.UID != "u" || e.Zone != nil || len(slice.Ports) != 1 {
		t.Errorf("EndpointSlice: %+v", slice)
	}

	// A watch that was interrupted delivers these.
	gone := cache.DeletedFinalStateUnknown{Key: "x"}
	for _, f := range []cache.TransformFunc{trimMeta, trimService, trimNode, trimSlice, trimVirtualIP} {
		if out, err := f(gone); err != nil || out != any(gone) {
			t.Errorf("of an object that is gone: %v, %v", out, err)
		}
	}
}
