package loadbalancer

import (
	"context"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/api/v1alpha1"
)

// A new Service gets its finalizer before anybody asks us for its addresses, and
// both are writes to the API server. Nothing of the second depends on the first,
// so the addresses are allocated while the finalizer is written: by what Ensure
// itself calls, which then finds them.
//
// The finalizer was what made sure that a Service cannot go with an address. One
// that goes before it has the finalizer is noticed here, when it goes, and by the
// sweep, if we were not there then.

// earlyWorkers is how many Services are begun at once.
const earlyWorkers = 16

// early has the Services that came, or went without finalizer.
type early struct {
	queue workqueue.TypedInterface[serviceKey]
	// called: the library has asked for a Service's addresses. Its service
	// controller may be off (--controllers), and Services without a class are
	// somebody else's then. Those with a class are served by our own.
	called atomic.Bool
	// waiting: those that waited at the start, without and with a class, have begun.
	waiting [2]sync.Once
}

// serviceKey names one very Service, not another of the same name.
type serviceKey struct {
	types.NamespacedName
	UID types.UID
}

func newEarly() *early { return &early{queue: workqueue.NewTyped[serviceKey]()} }

// watchEarly notes Services that begin, and those that end without anybody
// being called.
func (c *Controller) watchEarly() cache.ResourceEventHandlerFuncs {
	came := func(svc *corev1.Service) {
		if c.begins(svc) {
			c.early.add(svc)
		}
	}
	went := func(svc *corev1.Service) {
		if svc.Spec.Type == corev1.ServiceTypeLoadBalancer {
			c.early.add(svc)
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			if svc, ok := obj.(*corev1.Service); ok {
				came(svc)
			}
		},
		UpdateFunc: func(old, obj any) {
			before, ok := old.(*corev1.Service)
			svc, ok2 := obj.(*corev1.Service)
			switch {
			case !ok || !ok2:
			case before.UID != svc.UID: // it went and another one came while nobody watched
				went(before)
				came(svc)
			case c.begins(svc) && !c.begins(before), c.begins(before) && c.over(svc):
				c.early.add(svc)
			}
		},
		DeleteFunc: func(obj any) {
			if d, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = d.Obj
			}
			if svc, ok := obj.(*corev1.Service); ok {
				went(svc)
			}
		},
	}
}

func (e *early) add(svc *corev1.Service) {
	e.queue.Add(serviceKey{types.NamespacedName{Namespace: svc.Namespace, Name: svc.Name}, svc.UID})
}

// ensured notes that somebody asks for the addresses of Services like this one.
func (e *early) ensured(svc *corev1.Service) {
	if svc.Spec.LoadBalancerClass == nil {
		e.called.Store(true)
	}
}

// beginWaiting has all Services begin that wait already, some of them since before we
// were there: a router that gathers changes gets them in one go. It does so once, when
// the pools are known, for those that are called about as the given one is.
func (c *Controller) beginWaiting(called *corev1.Service) {
	if c.pools.pending() {
		return
	}
	class := called.Spec.LoadBalancerClass != nil
	once := &c.early.waiting[0]
	if class {
		once = &c.early.waiting[1]
	}
	once.Do(func() {
		for _, obj := range c.o.Services.GetStore().List() {
			svc, ok := obj.(*corev1.Service)
			if ok && class == (svc.Spec.LoadBalancerClass != nil) && c.comes(svc) && len(c.o.Store.OwnedBy(svc.UID)) == 0 {
				c.early.add(svc)
			}
		}
	})
}

// begins: the Service is to have addresses, and nobody has worked on it yet.
func (c *Controller) begins(svc *corev1.Service) bool {
	return c.comes(svc) && !hasFinalizer(svc)
}

// comes: the Service is to have addresses, and somebody calls us about it.
func (c *Controller) comes(svc *corev1.Service) bool {
	return c.wantsAddress(svc) && (svc.Spec.LoadBalancerClass != nil || c.early.called.Load())
}

// over: the Service is to have none, and nobody will be called about it.
func (c *Controller) over(svc *corev1.Service) bool {
	return !c.wantsAddress(svc) && !hasFinalizer(svc)
}

// runEarly works until ctx ends.
func (c *Controller) runEarly(ctx context.Context) {
	var workers sync.WaitGroup
	for range earlyWorkers {
		workers.Go(func() {
			for {
				key, quit := c.early.queue.Get()
				if quit {
					return
				}
				if ctx.Err() == nil {
					c.begin(ctx, key)
				}
				c.early.queue.Done(key)
			}
		})
	}
	<-ctx.Done()
	c.early.queue.ShutDown()
	workers.Wait()
}

// begin allocates for a Service that begins, or takes back what one had that is
// over.
func (c *Controller) begin(ctx context.Context, key serviceKey) {
	ref := v1alpha1.ServiceReference{Namespace: key.Namespace, Name: key.Name, UID: key.UID}
	c.allocateEarly(ctx, ref)
	if svc := c.service(ref); svc != nil && !c.over(svc) {
		return
	}
	for _, r := range c.o.Store.OwnedBy(ref.UID) {
		c.dropIfGone(ctx, r.Address, ref)
	}
}

// allocateEarly does what Ensure would do first, but never waits: what cannot be
// had at once is Ensure's to wait for, and to report.
func (c *Controller) allocateEarly(ctx context.Context, ref v1alpha1.ServiceReference) {
	unlock, ok := c.locks.tryLock(ref.UID)
	if !ok {
		return // Ensure is at it, perhaps waiting for a router, or the Service ends
	}
	defer unlock()
	// Only now: whoever had the lock may have ended the Service, and saw it in this
	// very store.
	svc := c.service(ref)
	if svc == nil || !c.comes(svc) || len(c.o.Store.OwnedBy(ref.UID)) > 0 || c.pools.pending() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	if _, _, err := c.give(ctx, svc, true); err != nil {
		klog.FromContext(ctx).V(4).Info("Nothing to be given to a Service ahead of its finalizer", "service", klog.KObj(svc), "err", err)
		return
	}
	c.kickRouters() // Ensure may come late, and a router that gathers changes not again for long
}
