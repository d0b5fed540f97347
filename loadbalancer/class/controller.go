package class

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/cloud-provider/api"
	servicehelper "k8s.io/cloud-provider/service/helpers"
	"k8s.io/klog/v2"
)

// The library's pace of retries, and more workers than its one: Services are
// serialised where it matters.
const (
	minRetry       = 5 * time.Second
	maxRetry       = 5 * time.Minute
	defaultWorkers = 16
)

// Balancer gives Services their addresses and takes them back, as
// cloudprovider.LoadBalancer says. Safe for concurrent use.
type Balancer interface {
	GetLoadBalancer(ctx context.Context, cluster string, s *corev1.Service) (*corev1.LoadBalancerStatus, bool, error)
	EnsureLoadBalancer(ctx context.Context, cluster string, s *corev1.Service, nodes []*corev1.Node) (*corev1.LoadBalancerStatus, error)
	EnsureLoadBalancerDeleted(ctx context.Context, cluster string, s *corev1.Service) error
}

// Options configures a Controller.
type Options struct {
	// Class is the loadBalancerClass of the Services to serve.
	Class    string
	Kube     kubernetes.Interface
	Services cache.SharedIndexInformer // run by the caller
	Balancer Balancer
	// Workers is how many Services are worked on at once. Default 16.
	Workers int
}

// Controller serves the Services of one class.
type Controller struct {
	o     Options
	queue workqueue.TypedRateLimitingInterface[string]
}

// New makes a Controller. It does nothing before Run.
func New(o Options) (*Controller, error) {
	if o.Class == "" || o.Kube == nil || o.Services == nil || o.Balancer == nil {
		return nil, errors.New("class: Class, Kube, Services and Balancer are required")
	}
	if o.Workers == 0 {
		o.Workers = defaultWorkers
	}
	return &Controller{o: o}, nil
}

// Run serves until ctx ends, and returns when all workers have.
func (c *Controller) Run(ctx context.Context) error {
	c.queue = workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](minRetry, maxRetry))
	defer c.queue.ShutDown()
	reg, err := c.o.Services.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { c.changed(nil, o) },
		UpdateFunc: func(old, o any) { c.changed(old, o) },
	})
	if err != nil {
		return fmt.Errorf("watch Services: %w", err)
	}
	defer func() { _ = c.o.Services.RemoveEventHandler(reg) }()
	if !cache.WaitForCacheSync(ctx.Done(), reg.HasSynced) {
		return ctx.Err()
	}
	var wg sync.WaitGroup
	for range c.o.Workers {
		wg.Go(func() {
			for c.next(ctx) {
			}
		})
	}
	<-ctx.Done()
	c.queue.ShutDown()
	wg.Wait()
	return nil
}

// changed asks for a look at a Service if there may be something to do.
func (c *Controller) changed(old, obj any) {
	svc, ok := obj.(*corev1.Service)
	if !ok || !c.wanted(svc) && !ended(svc) {
		return
	}
	if o, ok := old.(*corev1.Service); ok && same(o, svc) {
		return
	}
	c.queue.Add(svc.Namespace + "/" + svc.Name)
}

// same: nothing changed that matters. The status does not, it is written here.
func same(a, b *corev1.Service) bool {
	return a.UID == b.UID && a.DeletionTimestamp.IsZero() == b.DeletionTimestamp.IsZero() &&
		equality.Semantic.DeepEqual(a.Spec, b.Spec) &&
		equality.Semantic.DeepEqual(a.Annotations, b.Annotations) &&
		equality.Semantic.DeepEqual(a.Labels, b.Labels) &&
		(servicehelper.HasLBFinalizer(b) || !servicehelper.HasLBFinalizer(a)) // we add it ourselves
}

func (c *Controller) next(ctx context.Context) bool {
	key, quit := c.queue.Get()
	if quit {
		return false
	}
	defer c.queue.Done(key)
	err := c.sync(ctx, key)
	if re := (*api.RetryError)(nil); errors.As(err, &re) {
		c.queue.Forget(key)
		c.queue.AddAfter(key, re.RetryAfter())
		return true
	}
	if err != nil && ctx.Err() == nil {
		klog.FromContext(ctx).Error(err, "Service is not served; trying again", "service", key)
		c.queue.AddRateLimited(key)
		return true
	}
	c.queue.Forget(key)
	return true
}

// sync brings one Service to what it has to be.
func (c *Controller) sync(ctx context.Context, key string) error {
	obj, ok, err := c.o.Services.GetStore().GetByKey(key)
	if err != nil {
		return fmt.Errorf("Service %s: %w", key, err)
	}
	svc, isService := obj.(*corev1.Service)
	switch {
	case !ok || !isService:
		return nil // gone, with its finalizer gone before
	case c.wanted(svc):
		return c.ensure(ctx, svc)
	case ended(svc):
		return c.end(ctx, svc)
	}
	return nil
}

// wanted: the Service is to have addresses from us.
func (c *Controller) wanted(svc *corev1.Service) bool {
	return c.ofClass(svc) && svc.Spec.Type == corev1.ServiceTypeLoadBalancer && svc.DeletionTimestamp.IsZero()
}

func (c *Controller) ofClass(svc *corev1.Service) bool {
	return svc.Spec.LoadBalancerClass != nil && *svc.Spec.LoadBalancerClass == c.o.Class
}

// ended: the Service, whoever's it was, waits for the end of its load balancer.
func ended(svc *corev1.Service) bool {
	return servicehelper.HasLBFinalizer(svc) && (!svc.DeletionTimestamp.IsZero() || svc.Spec.Type != corev1.ServiceTypeLoadBalancer)
}

// ensure: the finalizer comes first, so that the Service cannot go without its
// addresses being given back.
func (c *Controller) ensure(ctx context.Context, svc *corev1.Service) error {
	if !servicehelper.HasLBFinalizer(svc) {
		if err := c.addFinalizer(ctx, svc); err != nil {
			return gone(err)
		}
	}
	st, err := c.o.Balancer.EnsureLoadBalancer(ctx, "", svc, nil)
	if err != nil {
		return fmt.Errorf("give Service %s/%s its addresses: %w", svc.Namespace, svc.Name, err)
	}
	return gone(c.setStatus(ctx, svc, st))
}

// end gives back what the Service has of us, then lets it go. A Service that
// was never ours, and has nothing of ours, is left to whoever serves it.
func (c *Controller) end(ctx context.Context, svc *corev1.Service) error {
	_, exists, err := c.o.Balancer.GetLoadBalancer(ctx, "", svc)
	if err != nil {
		return fmt.Errorf("look for what Service %s/%s has: %w", svc.Namespace, svc.Name, err)
	}
	if !exists && !c.ofClass(svc) {
		return nil
	}
	if exists {
		if err := c.o.Balancer.EnsureLoadBalancerDeleted(ctx, "", svc); err != nil {
			return fmt.Errorf("take back what Service %s/%s has: %w", svc.Namespace, svc.Name, err)
		}
	}
	// The status first: with the finalizer, the Service may be gone at once.
	if err := c.setStatus(ctx, svc, &corev1.LoadBalancerStatus{}); err != nil {
		return gone(err)
	}
	return gone(c.removeFinalizer(ctx, svc))
}

// gone: a Service that is no longer there needs nothing.
func gone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
