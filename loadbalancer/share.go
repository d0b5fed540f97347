package loadbalancer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	servicehelper "k8s.io/cloud-provider/service/helpers"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/loadbalancer/annotation"
	"github.com/onelb/onelb/loadbalancer/virtualip"
)

// Services with the same key share an address. The VirtualIP itself is the
// arbiter of who has which port of it: a Service joins, or changes its ports, by
// compare-and-swap on the object, and routers forward only what stands there.

// errClash marks a Service that cannot be on an address with those that are.
var errClash = fmt.Errorf("%w: cannot share", errRefusedNow)

// sharedPorts lists the ports that a Service claims of a shared address.
func sharedPorts(svc *corev1.Service, key string) []string {
	if key == "" {
		return nil
	}
	ports := make([]string, 0, len(svc.Spec.Ports))
	for _, p := range svc.Spec.Ports {
		ports = append(ports, portName(p))
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// sameShare: the address is what the Service has to have as it is.
func sameShare(r ipam.Record, w want) bool {
	return virtualip.DetailOf(r).Share == w.Share
}

// alone: nobody else minds if the key changes.
func alone(r ipam.Record, _ want) bool { return len(r.Owners) == 1 }

// joinable returns the address of other Services that have the same key.
func (c *Controller) joinable(svc *corev1.Service, w want) (ipam.Record, *poolView) {
	if w.Share == "" {
		return ipam.Record{}, nil
	}
	for _, p := range w.Pools {
		for _, r := range c.o.Store.Shared(w.Share) {
			mine := p.ShareAcross || !slices.ContainsFunc(r.Owners, func(o ipam.Owner) bool { return o.Namespace != svc.Namespace })
			if mine && p.Barred == nil && len(r.Owners) > 0 && fits(r, w, p, false) {
				return r, p
			}
		}
	}
	return ipam.Record{}, nil
}

// join puts the Service on an address of others.
func (c *Controller) join(ctx context.Context, svc *corev1.Service, w want, r ipam.Record, p *poolView) (ipam.Record, *poolView, error) {
	if err := checkServable(svc, p); err != nil {
		return r, p, err
	}
	n, err := c.own(ctx, svc, w, r, p, false)
	if err == nil {
		c.events.Joined(svc, n)
	}
	return n, p, err
}

// own writes into the VirtualIP what the Service has of it, if those who share
// it permit that.
func (c *Controller) own(ctx context.Context, svc *corev1.Service, w want, r ipam.Record, p *poolView, inner bool) (ipam.Record, error) {
	d := detailFor(svc, w, p, inner)
	ref := v1alpha1.ServiceReference{Namespace: svc.Namespace, Name: svc.Name, UID: svc.UID}
	return c.o.Store.Own(ctx, r.Address, ref, d, func(v *v1alpha1.VirtualIP) error {
		return c.admitSharing(ctx, svc, d, v)
	})
}

// admitSharing says why a Service cannot be on an address as it is now.
func (c *Controller) admitSharing(ctx context.Context, svc *corev1.Service, d virtualip.Detail, v *v1alpha1.VirtualIP) error {
	others := slices.DeleteFunc(slices.Clone(v.Spec.Services), func(r v1alpha1.ServiceReference) bool { return r.UID == svc.UID })
	way := fmt.Sprintf("; change this Service, or give it another value of annotation %s, or none", annotation.Share.Name)
	switch {
	case len(others) == 0:
		return nil
	case v.Spec.Share != d.Share:
		return fmt.Errorf("%s is shared with key %q now", v.Spec.Address, v.Spec.Share)
	case len(others) >= v1alpha1.MaxSharing:
		return fmt.Errorf("%w %s: %d Services have it already, which is the most%s", errClash, v.Spec.Address, len(others), way)
	case v.Spec.TrafficPolicy != d.TrafficPolicy:
		return fmt.Errorf("%w %s: externalTrafficPolicy is %s, and that of %s is %s%s", errClash, v.Spec.Address, d.TrafficPolicy, names(others), v.Spec.TrafficPolicy, way)
	}
	for _, o := range others {
		for _, port := range d.Ports {
			if slices.Contains(o.Ports, port) {
				return fmt.Errorf("%w %s: Service %s/%s has port %s%s", errClash, v.Spec.Address, o.Namespace, o.Name, port, way)
			}
		}
	}
	joins := len(others) == len(v.Spec.Services)
	if d.TrafficPolicy != v1alpha1.TrafficPolicyLocal || !joins {
		return nil
	}
	for _, o := range others {
		if err := c.sameSelector(ctx, svc, o); err != nil {
			return fmt.Errorf("%w%s", err, way)
		}
	}
	return nil
}

// sameSelector: with Local, only a node with pods of all Services can hold the
// address, which different selectors do not promise.
func (c *Controller) sameSelector(ctx context.Context, svc *corev1.Service, ref v1alpha1.ServiceReference) error {
	other := c.service(ref)
	if other == nil {
		var err error
		other, err = c.o.Kube.CoreV1().Services(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err) || err == nil && other.UID != ref.UID:
			return nil // it is about to leave
		case err != nil:
			return fmt.Errorf("read Service %s/%s: %w", ref.Namespace, ref.Name, err)
		}
	}
	if len(svc.Spec.Selector) == 0 || svc.Namespace != ref.Namespace || !maps.Equal(svc.Spec.Selector, other.Spec.Selector) {
		return fmt.Errorf("%w: externalTrafficPolicy is Local, and Service %s/%s does not select the same pods", errClash, ref.Namespace, ref.Name)
	}
	return nil
}

func names(refs []v1alpha1.ServiceReference) string {
	out := make([]string, len(refs))
	for i, r := range refs {
		out[i] = r.Namespace + "/" + r.Name
	}
	return strings.Join(out, ", ")
}

// withdraw takes a Service off a shared address because it was edited so that
// it clashes with another: kube-proxy would have to choose between the two.
// Status and VirtualIP are written here, since an Ensure that fails changes
// neither.
func (c *Controller) withdraw(ctx context.Context, svc *corev1.Service, r ipam.Record, why error) error {
	next := svc.DeepCopy()
	next.Status.LoadBalancer.Ingress = slices.DeleteFunc(next.Status.LoadBalancer.Ingress, func(i corev1.LoadBalancerIngress) bool {
		return i.IP == r.Address.String()
	})
	if len(next.Status.LoadBalancer.Ingress) != len(svc.Status.LoadBalancer.Ingress) {
		if _, err := servicehelper.PatchService(c.o.Kube.CoreV1(), svc.DeepCopy(), next); err != nil && !apierrors.IsNotFound(err) {
			return errors.Join(why, fmt.Errorf("take %s out of the status: %w", r.Address, err))
		}
	}
	if err := c.release(ctx, svc, r.Address, false); err != nil {
		return errors.Join(why, err)
	}
	return why
}
