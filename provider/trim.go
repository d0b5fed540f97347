package provider

import (
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/annotation"
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
		trimWith("Nodes", f.Core().V1().Nodes().Informer(), trimNode))
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
	s, ok := obj.(*corev1.Service)
	if !ok {
		return obj, nil
	}
	s.ManagedFields, s.OwnerReferences = nil, nil
	delete(s.Annotations, applied)
	if s.Annotations[annotation.Share.Name] == "" {
		s.Spec.Selector = nil // compared only with that of a Service that shares an address
	}
	s.Namespace = known.of(s.Namespace)
	s.Labels, s.Annotations = known.ofMap(s.Labels), known.ofMap(s.Annotations)
	known.ofAll(s.Finalizers)
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		p.Name, p.Protocol = known.of(p.Name), corev1.Protocol(known.of(string(p.Protocol)))
	}
	for i := range s.Spec.IPFamilies {
		s.Spec.IPFamilies[i] = corev1.IPFamily(known.of(string(s.Spec.IPFamilies[i])))
	}
	if len(s.Spec.ClusterIPs) > 0 && s.Spec.ClusterIPs[0] == s.Spec.ClusterIP {
		s.Spec.ClusterIPs[0] = s.Spec.ClusterIP
	}
	s.Spec.Type = corev1.ServiceType(known.of(string(s.Spec.Type)))
	s.Spec.SessionAffinity = corev1.ServiceAffinity(known.of(string(s.Spec.SessionAffinity)))
	s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicy(known.of(string(s.Spec.ExternalTrafficPolicy)))
	if p := s.Spec.IPFamilyPolicy; p != nil {
		*p = corev1.IPFamilyPolicy(known.of(string(*p)))
	}
	if p := s.Spec.InternalTrafficPolicy; p != nil {
		*p = corev1.ServiceInternalTrafficPolicy(known.of(string(*p)))
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

func trimVirtualIP(obj any) (any, error) {
	v, ok := obj.(*v1alpha1.VirtualIP)
	if !ok {
		return obj, nil
	}
	v.ManagedFields = nil // and nothing else: the store makes one anew from what it has
	// The decoder leaves room for four elements in each list.
	v.Finalizers, v.Status.Conditions = slices.Clip(slices.Clone(v.Finalizers)), slices.Clip(slices.Clone(v.Status.Conditions))
	v.Spec.Services, v.Spec.Interfaces = slices.Clip(slices.Clone(v.Spec.Services)), slices.Clip(slices.Clone(v.Spec.Interfaces))
	known.ofAll(v.Finalizers)
	known.ofAll(v.Spec.Interfaces)
	v.APIVersion, v.Kind = known.of(v.APIVersion), known.of(v.Kind)
	v.Spec.Pool, v.Spec.NodeSelector = known.of(v.Spec.Pool), known.of(v.Spec.NodeSelector)
	v.Spec.Role, v.Spec.TrafficPolicy = v1alpha1.Role(known.of(string(v.Spec.Role))), v1alpha1.TrafficPolicy(known.of(string(v.Spec.TrafficPolicy)))
	v.Status.Phase = v1alpha1.Phase(known.of(string(v.Status.Phase)))
	if v.Spec.Address == v.Name { // IPv4
		v.Spec.Address = v.Name
	}
	for i := range v.Spec.Services {
		v.Spec.Services[i].Namespace = known.of(v.Spec.Services[i].Namespace)
	}
	for i := range v.Status.Conditions {
		c := &v.Status.Conditions[i]
		c.Type, c.Reason, c.Message = known.of(c.Type), known.of(c.Reason), known.of(c.Message)
		c.Status = metav1.ConditionStatus(known.of(string(c.Status)))
	}
	if h := v.Status.Holder; h != nil {
		h.Name = known.of(h.Name)
	}
	return obj, nil
}
