package loadbalancer

import (
	"context"
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/api/v1alpha1"
)

// earlyAtOnce bounds the allocations that are under way ahead of EnsureLoadBalancer.
const earlyAtOnce = 64

// early allocates the addresses of a new Service as soon as it is seen, while the
// service controller still writes its finalizer: one write to the API server less
// that the Service waits for. EnsureLoadBalancer finds them there, or waits for the
// lock of the Service.
//
// Without its finalizer a Service may vanish without a word to the service
// controller. So whatever a Service that is gone still has is taken from it: when
// its end is seen, when an allocation finds that it came too late, and, after a
// crash in between, by the sweep.
type early struct {
	c     *Controller
	slots chan struct{}

	mu    sync.Mutex // guards ended, and Go of wg against its Wait
	ended bool
	wg    sync.WaitGroup
}

// watchEarly looks at Services from now until ctx ends; wait then returns when
// nothing of it is left.
func (c *Controller) watchEarly(ctx context.Context) (wait func(), err error) {
	e := &early{c: c, slots: make(chan struct{}, earlyAtOnce)}
	reg, err := c.o.Services.AddEventHandler(cache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(o any, initial bool) {
			// Those from before our start have their addresses, or had their events.
			if svc, ok := o.(*corev1.Service); ok && !initial {
				e.added(ctx, svc)
			}
		},
		DeleteFunc: func(o any) {
			if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = gone.Obj
			}
			if svc, ok := o.(*corev1.Service); ok {
				e.deleted(ctx, svc)
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("watch Services: %w", err)
	}
	return func() {
		<-ctx.Done()
		_ = c.o.Services.RemoveEventHandler(reg) // it was added above
		e.mu.Lock()
		e.ended = true // a handler may still be at work
		e.mu.Unlock()
		e.wg.Wait()
	}, nil
}

func (e *early) start(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.ended {
		e.wg.Go(f)
	}
}

func (e *early) added(ctx context.Context, svc *corev1.Service) {
	if !e.c.wantsAddress(svc) || len(svc.Status.LoadBalancer.Ingress) > 0 {
		return
	}
	if e.c.namespaceLabels(svc.Namespace) == nil || e.c.pools.pending() {
		return // a moment later the choice may be another
	}
	select {
	case e.slots <- struct{}{}:
	default:
		return // EnsureLoadBalancer comes to it by itself
	}
	e.start(func() {
		defer func() { <-e.slots }()
		if err := e.allocate(ctx, svc); err != nil {
			// EnsureLoadBalancer meets the same and tells the Service.
			klog.FromContext(ctx).V(4).Info("No address for a new Service yet", "service", klog.KObj(svc), "err", err)
		}
		if now := e.c.service(reference(svc)); now == nil {
			e.drop(ctx, svc)
		}
	})
}

func (e *early) allocate(ctx context.Context, svc *corev1.Service) error {
	c := e.c
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	defer c.locks.lock(svc.UID)()
	have := c.o.Store.OwnedBy(svc.UID)
	wants, err := planWants(svc, c.namespaceLabels(svc.Namespace), c.pools.Views(), currentPools(slices.Concat(c.o.Store.Retained(svc.Namespace, svc.Name), have)))
	if err != nil {
		return err
	}
	_, err = c.addresses(ctx, svc, wants, have)
	return err
}

func (e *early) deleted(ctx context.Context, svc *corev1.Service) {
	if len(e.c.o.Store.OwnedBy(svc.UID)) > 0 {
		e.start(func() { e.drop(ctx, svc) })
	}
}

// drop takes from a Service that seems to be gone what it has.
func (e *early) drop(ctx context.Context, svc *corev1.Service) {
	ref := reference(svc)
	has := func(v *v1alpha1.VirtualIP) bool {
		return slices.ContainsFunc(v.Spec.Services, func(r v1alpha1.ServiceReference) bool { return r.UID == svc.UID })
	}
	for _, v := range e.c.o.Store.Objects(has) {
		e.c.dropIfGone(ctx, v, ref)
	}
}

func reference(svc *corev1.Service) v1alpha1.ServiceReference {
	return v1alpha1.ServiceReference{Namespace: svc.Namespace, Name: svc.Name, UID: svc.UID}
}
