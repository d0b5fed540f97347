package loadbalancer

import (
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/onelb/onelb/api/v1alpha1"
)

// errNotSelected marks a refusal by a pool's selectors.
var errNotSelected = fmt.Errorf("%w: not for this Service", errRefusedNow)

// selectors say which Services may use a pool; nil selects all.
type selectors struct {
	namespaces, services labels.Selector
}

func selectorsOf(s v1alpha1.AddressPoolSpec) (selectors, error) {
	var out selectors
	var err1, err2 error
	if out.namespaces, err1 = selectorOf("namespaceSelector", s.NamespaceSelector); err1 != nil {
		out.namespaces = labels.Nothing()
	}
	if out.services, err2 = selectorOf("serviceSelector", s.ServiceSelector); err2 != nil {
		out.services = labels.Nothing()
	}
	return out, errors.Join(err1, err2)
}

func selectorOf(field string, s *metav1.LabelSelector) (labels.Selector, error) {
	if s == nil {
		return nil, nil
	}
	out, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return nil, fmt.Errorf("spec.%s: %w", field, err)
	}
	return out, nil
}

func nodeSelector(field string, l *metav1.LabelSelector) (string, error) {
	s, err := selectorOf(field, l)
	if s == nil {
		return "", err
	}
	return s.String(), nil
}

// nodesOf writes the selectors of nodes in one line each, which the node agents
// read back. One that cannot be used is left out, and the pool gives no addresses
// then.
func nodesOf(spec v1alpha1.AddressPoolSpec) (selector string, preferences []v1alpha1.NodeWeight, err error) {
	if spec.BGP != nil {
		selector, err = nodeSelector("bgp.nodeSelector", spec.BGP.NodeSelector)
		return selector, nil, err
	}
	l2 := spec.L2
	if l2 == nil {
		return "", nil, nil
	}
	selector, err = nodeSelector("l2.nodeSelector", l2.NodeSelector)
	errs := []error{err}
	for i, p := range l2.NodePreferences {
		s, err := selectorOf(fmt.Sprintf("l2.nodePreferences[%d].selector", i), &p.Selector)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		preferences = append(preferences, v1alpha1.NodeWeight{Weight: p.Weight, Selector: s.String()})
	}
	return selector, preferences, errors.Join(errs...)
}

// admit says why a Service may not use the pool; nil if it may. ns are the
// labels of its namespace, nil while they are not known.
func (p *poolView) admit(svc *corev1.Service, ns labels.Set) error {
	if s := p.namespaces; s != nil && !s.Empty() {
		if ns == nil {
			return fmt.Errorf("AddressPool %s has a namespaceSelector, and the labels of namespace %s are not known yet", p.Name, svc.Namespace)
		}
		if !s.Matches(ns) {
			return fmt.Errorf("%w: AddressPool %s is for namespaces with labels %q, and namespace %s has %q", errNotSelected, p.Name, s, svc.Namespace, ns)
		}
	}
	if s := p.services; s != nil && !s.Matches(labels.Set(svc.Labels)) {
		return fmt.Errorf("%w: AddressPool %s is for Services with labels %q, and this one has %q", errNotSelected, p.Name, s, labels.Set(svc.Labels))
	}
	return nil
}

// namespaceLabels returns the labels of a namespace, never nil if it is known.
func (c *Controller) namespaceLabels(name string) labels.Set {
	obj, ok, err := c.o.Namespaces.GetStore().GetByKey(name)
	if err != nil || !ok {
		return nil
	}
	ns, ok := obj.(*corev1.Namespace)
	if !ok {
		return nil
	}
	if ns.Labels == nil {
		return labels.Set{}
	}
	return ns.Labels
}
