package provider

import (
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"github.com/onelb/onelb/api/v1alpha1"
)

// applied is what kubectl apply leaves on objects: a copy of the object.
const applied = corev1.LastAppliedConfigAnnotation

// trimShared makes the informers keep only what somebody reads, since each
// object stays in memory. The library's controllers read the same objects and
// send patches that are differences between two copies: what both lack is not
// in a patch. The one exception is in trimNode.
func trimShared(f informers.SharedInformerFactory) error {
	return errors.Join(
		trimWith("Services", f.Core().V1().Services().Informer(), trimService),
		trimWith("Namespaces", f.Core().V1().Namespaces().Informer(), trimMeta),
		trimWith("Nodes", f.Core().V1().Nodes().Informer(), trimNode),
		trimWith("EndpointSlices", f.Discovery().V1().EndpointSlices().Informer(), trimSlice))
}

func trimWith(what string, i cache.SharedIndexInformer, f cache.TransformFunc) error {
	if err := i.SetTransform(f); err != nil {
		return fmt.Errorf("keep less of %s: %w", what, err)
	}
	return nil
}

func trimMeta(obj any) (any, error) {
	if m, ok := obj.(metav1.Object); ok { // not of a DeletedFinalStateUnknown
		m.SetManagedFields(nil)
	}
	return obj, nil
}

func trimService(obj any) (any, error) {
	if s, ok := obj.(*corev1.Service); ok {
		s.ManagedFields = nil
		delete(s.Annotations, applied)
	}
	return obj, nil
}

func trimNode(obj any) (any, error) {
	if n, ok := obj.(*corev1.Node); ok {
		n.ManagedFields = nil
		// All annotations stay: the library initialises a Node with an Update of the
		// whole object, which would remove what is not here. That leaves the status alone.
		n.Status.Images, n.Status.VolumesInUse, n.Status.VolumesAttached = nil, nil, nil
	}
	return obj, nil
}

func trimSlice(obj any) (any, error) {
	if s, ok := obj.(*discoveryv1.EndpointSlice); ok {
		s.ManagedFields, s.OwnerReferences, s.Annotations = nil, nil, nil
		for i := range s.Endpoints {
			e := &s.Endpoints[i]
			kept := discoveryv1.Endpoint{Addresses: e.Addresses, Conditions: e.Conditions, NodeName: e.NodeName}
			if e.TargetRef != nil {
				kept.TargetRef = &corev1.ObjectReference{UID: e.TargetRef.UID}
			}
			*e = kept
		}
	}
	return obj, nil
}

func trimVirtualIP(obj any) (any, error) {
	if v, ok := obj.(*v1alpha1.VirtualIP); ok {
		v.ManagedFields = nil // and nothing else: the store writes whole objects
	}
	return obj, nil
}
