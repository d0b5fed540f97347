package loadbalancer

import (
	"context"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/api/v1alpha1"
)

// holderSilence is how long the release of an address waits for the word of a
// node that was its holder. A living agent lets go within milliseconds; a dead
// one's kernel within its address lifetime (seconds).
const holderSilence = time.Minute

// heldByNode reports whether a node may still answer for an address that is
// being released.
func heldByNode(v *v1alpha1.VirtualIP) bool {
	if g := v.Spec.Guard; g != nil && len(g.Candidates) > 0 {
		return true // it is still on NICs: the hold outlives that
	}
	return MayAnswer(v)
}

// MayAnswer reports whether a node may still answer for an address that no
// Service has any more.
func MayAnswer(v *v1alpha1.VirtualIP) bool {
	if v.Status.Holder == nil {
		return false
	}
	return v.Spec.ReleaseTime == nil || time.Since(v.Spec.ReleaseTime.Time) < holderSilence
}

// withdrawTime is how long nodes have to withdraw the routes of an address that is
// released. They say nothing about single addresses: with many nodes that would be
// many writes for each.
const withdrawTime = 10 * time.Second

// justWithdrawn reports whether a node may still announce an address that no Service
// has any more.
func justWithdrawn(v *v1alpha1.VirtualIP) bool {
	return v.Spec.ReleaseTime != nil && time.Since(v.Spec.ReleaseTime.Time) < withdrawTime
}

// sweepLoop repairs, at intervals and at the start, what no event will repair:
// VirtualIPs of Services that are gone without a word, and VirtualIPs that
// somebody deleted while Services have them.
func (c *Controller) sweepLoop(ctx context.Context) {
	handler := cache.ResourceEventHandlerFuncs{UpdateFunc: func(_, o any) {
		if v, ok := o.(*v1alpha1.VirtualIP); ok && deletedInUse(v) {
			c.restore(ctx, v)
		}
	}}
	if reg, err := c.o.Store.Informer().AddEventHandler(handler); err == nil {
		defer func() { _ = c.o.Store.Informer().RemoveEventHandler(reg) }()
	}
	tick := time.NewTicker(c.o.SweepInterval)
	defer tick.Stop()
	for {
		c.sweep(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (c *Controller) sweep(ctx context.Context) {
	for _, v := range c.o.Store.Objects(func(v *v1alpha1.VirtualIP) bool { return len(v.Spec.Services) > 0 }) {
		if ctx.Err() != nil {
			return
		}
		if deletedInUse(v) {
			c.restore(ctx, v)
			continue
		}
		a, err := netip.ParseAddr(v.Spec.Address)
		if err != nil {
			continue // not one of ours
		}
		for _, ref := range v.Spec.Services {
			c.dropIfGone(ctx, a, ref)
		}
	}
	// The end of a wait for a silent holder is not an event of anybody.
	c.o.Allocator.Notify()
}

func deletedInUse(v *v1alpha1.VirtualIP) bool {
	return !v.DeletionTimestamp.IsZero() && len(v.Spec.Services) > 0
}

func (c *Controller) restore(ctx context.Context, v *v1alpha1.VirtualIP) {
	log := klog.FromContext(ctx)
	if err := c.o.Store.Restore(ctx, v); err != nil {
		log.Error(err, "Cannot make a VirtualIP anew that was deleted while in use; trying again", "virtualIP", klog.KObj(v))
		return
	}
	c.VirtualIPsChanged()
	for _, ref := range v.Spec.Services {
		if svc := c.service(ref); svc != nil {
			c.o.Recorder.Eventf(svc, corev1.EventTypeWarning, ReasonRestored,
				"VirtualIP %s was deleted while this Service has its address, and was made anew: delete the Service to give the address back", v.Name)
		}
	}
}

// dropIfGone takes a Service off an address if there is proof, by a read from
// the API server, that it is gone or no longer a load balancer of ours.
func (c *Controller) dropIfGone(ctx context.Context, a netip.Addr, ref v1alpha1.ServiceReference) {
	if svc := c.service(ref); svc != nil && c.wantsAddress(svc) {
		return
	}
	defer c.locks.lock(ref.UID)()
	rctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	svc, err := c.o.Kube.CoreV1().Services(ref.Namespace).Get(rctx, ref.Name, metav1.GetOptions{})
	log := klog.FromContext(ctx)
	switch {
	case err == nil && svc.UID == ref.UID && (c.wantsAddress(svc) || hasFinalizer(svc)):
		return // the service controller is going to end it in order
	case err != nil && !apierrors.IsNotFound(err):
		log.Error(err, "Cannot read a Service that seems to be gone; trying again", "service", klog.KRef(ref.Namespace, ref.Name))
		return
	}
	if _, err := c.o.Store.Disown(ctx, a, ref.UID, true); err != nil {
		log.Error(err, "Cannot release the address of a Service that is gone; trying again", "address", a)
		return
	}
	log.Info("Released the address of a Service that is gone", "address", a, "service", klog.KRef(ref.Namespace, ref.Name))
	c.VirtualIPsChanged()
}

// ours reports whether the Service's class says that it is ours to serve.
func (c *Controller) ours(svc *corev1.Service) bool {
	return Ours(svc, !c.o.NoDefaultClass)
}

func (c *Controller) wantsAddress(svc *corev1.Service) bool {
	return c.ours(svc) && svc.Spec.Type == corev1.ServiceTypeLoadBalancer && svc.DeletionTimestamp.IsZero()
}

func hasFinalizer(svc *corev1.Service) bool {
	return slices.Contains(svc.Finalizers, "service.kubernetes.io/load-balancer-cleanup")
}
