package provider

import (
	"strconv"
	"strings"
	"testing"
	"unsafe"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/annotation"
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

	// A watch that was interrupted delivers these.
	gone := cache.DeletedFinalStateUnknown{Key: "x"}
	for _, f := range []cache.TransformFunc{trimMeta, trimService, trimNode, trimVirtualIP} {
		if out, err := f(gone); err != nil || out != any(gone) {
			t.Errorf("of an object that is gone: %v, %v", out, err)
		}
	}
}

// TestTrimKeepsValues: texts are shared, and none is another one afterwards.
func TestTrimKeepsValues(t *testing.T) {
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "n", Name: "x", UID: "u", ResourceVersion: "7", Finalizers: []string{"f"},
			Labels: map[string]string{"a": "b", "c": "b"}, Annotations: map[string]string{annotation.Share.Name: "key"},
		},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, Selector: map[string]string{"app": "x"}, ClusterIP: "10.96.0.7", ClusterIPs: []string{"10.96.0.7", "fd00::7"},
			IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}, IPFamilyPolicy: ptr.To(corev1.IPFamilyPolicyPreferDualStack),
			SessionAffinity: corev1.ServiceAffinityNone, ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal, InternalTrafficPolicy: ptr.To(corev1.ServiceInternalTrafficPolicyCluster),
			Ports: []corev1.ServicePort{{Name: "a", Protocol: corev1.ProtocolTCP, Port: 80, NodePort: 30080}, {Name: "b", Protocol: corev1.ProtocolUDP, Port: 53}},
		},
	}
	vip := &v1alpha1.VirtualIP{
		TypeMeta:   metav1.TypeMeta{APIVersion: "onelb.io/v1alpha1", Kind: "VirtualIP"},
		ObjectMeta: metav1.ObjectMeta{Name: "10.20.0.7", UID: "u", ResourceVersion: "7", Labels: map[string]string{"a": "b"}, Finalizers: []string{v1alpha1.AddressFinalizer}},
		Spec: v1alpha1.VirtualIPSpec{
			Address: "10.20.0.7", Pool: "p", Role: v1alpha1.RoleL2, TrafficPolicy: v1alpha1.TrafficPolicyLocal, Interfaces: []string{"eth0", "eth1"}, NodeSelector: "a=b",
			Services: []v1alpha1.ServiceReference{{Namespace: "n", Name: "x", UID: "s", Ports: []string{"80/TCP"}}, {Namespace: "n", Name: "y", UID: "r"}},
		},
		Status: v1alpha1.VirtualIPStatus{Phase: v1alpha1.PhaseActive, Conditions: []metav1.Condition{{Type: "OnHold", Status: metav1.ConditionTrue, Reason: "Held", Message: "It is."}}},
	}
	for _, c := range []struct {
		obj  any
		copy any
		trim cache.TransformFunc
	}{{svc, svc.DeepCopy(), trimService}, {vip, vip.DeepCopy(), trimVirtualIP}, {&v1alpha1.VirtualIP{}, &v1alpha1.VirtualIP{}, trimVirtualIP}, {&corev1.Service{}, &corev1.Service{}, trimService}} {
		got, err := c.trim(c.obj)
		if err != nil || !equality.Semantic.DeepEqual(got, c.copy) {
			t.Errorf("%v\n%+v\nwas\n%+v", err, got, c.copy)
		}
	}
	if len(vip.Status.Conditions) != cap(vip.Status.Conditions) || unsafe.StringData(vip.Name) != unsafe.StringData(vip.Spec.Address) {
		t.Error("nothing is saved")
	}
	svc.Annotations = nil
	if _, err := trimService(svc); err != nil || svc.Spec.Selector != nil {
		t.Errorf("a selector that nobody reads: %v %v", svc.Spec.Selector, err)
	}
}

func TestInterner(t *testing.T) {
	var i interner
	a, b := i.of(strings.Clone("text")), i.of(strings.Clone("text"))
	if a != "text" || unsafe.StringData(a) != unsafe.StringData(b) {
		t.Error("two copies")
	}
	m := i.ofMap(map[string]string{strings.Clone("text"): strings.Clone("text")})
	for k, v := range m {
		if unsafe.StringData(k) != unsafe.StringData(a) || unsafe.StringData(v) != unsafe.StringData(a) {
			t.Error("the map has its own")
		}
	}
	for n := range 3 * maxKnown {
		if got, want := i.of(strconv.Itoa(n)), strconv.Itoa(n); got != want || len(i.texts) > maxKnown {
			t.Fatalf("%q for %q, %d remembered", got, want, len(i.texts))
		}
	}
}
