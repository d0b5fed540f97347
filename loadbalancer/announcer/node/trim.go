package node

import (
	"maps"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"

	"github.com/onelb/onelb/api/v1alpha1"
)

// The informers keep only what translate and leave look at.

func trimNode(obj any) (any, error) {
	if n, ok := obj.(*corev1.Node); ok {
		n.ManagedFields, n.Annotations = nil, nil
		n.Spec = corev1.NodeSpec{Unschedulable: n.Spec.Unschedulable, Taints: n.Spec.Taints}
		n.Status = corev1.NodeStatus{Addresses: n.Status.Addresses, Conditions: trimConditions(n.Status.Conditions)}
	}
	return obj, nil
}

// trimConditions leaves out when a kubelet said so last: it does so all the time.
func trimConditions(all []corev1.NodeCondition) []corev1.NodeCondition {
	var out []corev1.NodeCondition
	for _, c := range all {
		if c.Type == corev1.NodeReady || c.Type == corev1.NodeNetworkUnavailable {
			out = append(out, corev1.NodeCondition{Type: c.Type, Status: c.Status, Message: c.Message})
		}
	}
	return out
}

func trimSlice(obj any) (any, error) {
	if s, ok := obj.(*discoveryv1.EndpointSlice); ok {
		s.ManagedFields, s.Annotations, s.OwnerReferences, s.Ports = nil, nil, nil, nil
		s.Labels = map[string]string{discoveryv1.LabelServiceName: s.Labels[discoveryv1.LabelServiceName]}
		for i := range s.Endpoints {
			e := &s.Endpoints[i]
			*e = discoveryv1.Endpoint{NodeName: e.NodeName, Conditions: e.Conditions}
		}
	}
	return obj, nil
}

func trimVirtualIP(obj any) (any, error) {
	if v, ok := obj.(*v1alpha1.VirtualIP); ok {
		v.ManagedFields, v.Labels, v.Annotations, v.Finalizers = nil, nil, nil, nil
		for i := range v.Spec.Services {
			v.Spec.Services[i].Ports = nil
		}
	}
	return obj, nil
}

// same reports whether translate makes the same of both versions of an object.
func same(before, after any) bool {
	switch b := after.(type) {
	case *corev1.Node:
		a, ok := before.(*corev1.Node)
		return ok && a.UID == b.UID && a.DeletionTimestamp.Equal(b.DeletionTimestamp) && maps.Equal(a.Labels, b.Labels) &&
			reflect.DeepEqual(a.Spec, b.Spec) && reflect.DeepEqual(a.Status, b.Status)
	case *v1alpha1.VirtualIP:
		a, ok := before.(*v1alpha1.VirtualIP)
		return ok && a.UID == b.UID && conflict(a) == conflict(b) &&
			reflect.DeepEqual(a.Status.Holder, b.Status.Holder) && reflect.DeepEqual(a.Spec, b.Spec)
	case *discoveryv1.EndpointSlice:
		a, ok := before.(*discoveryv1.EndpointSlice)
		return ok && a.UID == b.UID && maps.Equal(a.Labels, b.Labels) && reflect.DeepEqual(a.Endpoints, b.Endpoints)
	}
	return false
}

func conflict(v *v1alpha1.VirtualIP) bool {
	return apimeta.IsStatusConditionTrue(v.Status.Conditions, v1alpha1.VirtualIPAddressConflict)
}
