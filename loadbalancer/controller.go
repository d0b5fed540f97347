package loadbalancer

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/onelb/onelb/api/client"
	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/virtualip"
)

// Class is the loadBalancerClass of Services that are ours in any case.
const Class = "onelb.io/lb"

// Allocator is what the load balancer needs of IPAM.
type Allocator interface {
	// Allocate gives an owner one more address.
	Allocate(ctx context.Context, r ipam.Request) (ipam.Record, error)
	// SetPools replaces the set of pools.
	SetPools(pools []ipam.PoolSpec)
	// PoolStatus returns what is known of a pool.
	PoolStatus(name string) (ipam.PoolStatus, bool)
	// Notify says that records have changed.
	Notify()
	Memory
}

// Memory is what IPAM knows of addresses from OpenNebula alone.
type Memory interface {
	// Formers lists addresses without record that were an owner's.
	Formers(o ipam.Owner) []ipam.Former
	// Unread names new pools of which it is not known yet whether there are such.
	Unread() []string
	// Reserved reports whether an address is in the reservation of a pool.
	Reserved(pool string, a netip.Addr) bool
}

// RouterClient programs one router.
type RouterClient interface {
	// Set replaces the desired document and returns its generation.
	Set(d router.Document) (generation uint64)
	// Wait blocks until the router runs a generation.
	Wait(ctx context.Context, generation uint64) error
	// State tells what each instance of the router runs.
	State() router.State
}

// Refuser is a RouterClient that may leave out a Service's ports of an address,
// though it has the document, and programs all others.
type Refuser interface {
	// Refusal says why; nil: they are not left out. service is namespace/name.
	Refusal(a netip.Addr, service string) error
}

// Options configures a Controller.
type Options struct {
	Kube     kubernetes.Interface
	OneLB    client.Interface
	Recorder record.EventRecorder
	// Routers by name, as in the cloud-config file. Their Run is the caller's.
	Routers map[string]RouterClient
	// Appliances names the routers that are stock appliances, which can do less.
	Appliances []string
	// PodRoutes names the routers that get routes to the nodes' pods.
	PodRoutes []string
	// Services, Namespaces, Nodes, EndpointSlices and Pools are informers that the caller runs.
	Services, Namespaces, Nodes, EndpointSlices, Pools cache.SharedIndexInformer
	Store                                              *virtualip.Store
	// Allocator is IPAM. Its OnStatus and OnEvent go to PoolStatusChanged and PoolEvent.
	Allocator Allocator
	// RetryAfter is the pace at which Services are tried again that wait for
	// something that may come; with hundreds of them it is slower. Default 5s.
	RetryAfter time.Duration
	// NoDefaultClass leaves Services without a class to others; those that have
	// addresses of ours keep them until they go.
	NoDefaultClass bool
	// Timeout is the longest that one Ensure takes. Default 25s.
	Timeout time.Duration
	// SweepInterval is how often the objects are checked against each other. Default 1m.
	SweepInterval time.Duration
}

// Controller implements cloudprovider.LoadBalancer and keeps pools, routers
// and VirtualIPs in step with what people ask for.
type Controller struct {
	o       Options
	events  *events
	pools   *poolSet
	routers map[string]*routerSync
	locks   keyedLocks
	retries pacer
	early   *early
	ready   chan struct{} // closed once everything has synced
}

// New makes a Controller. It does nothing before Run.
func New(o Options) (*Controller, error) {
	if o.Kube == nil || o.OneLB == nil || o.Recorder == nil || o.Store == nil || o.Allocator == nil {
		return nil, errors.New("loadbalancer: Kube, OneLB, Recorder, Store and Allocator are required")
	}
	if o.RetryAfter == 0 {
		o.RetryAfter = 5 * time.Second
	}
	if o.Timeout == 0 {
		o.Timeout = 25 * time.Second
	}
	if o.SweepInterval == 0 {
		o.SweepInterval = time.Minute
	}
	c := &Controller{
		o:       o,
		events:  newEvents(o.Recorder),
		routers: map[string]*routerSync{},
		early:   newEarly(),
		ready:   make(chan struct{}),
	}
	c.pools = newPoolSet(o.OneLB.AddressPools(), o.Pools, o.Allocator, c.events, routerNames(o.Routers), o.Appliances)
	c.pools.placer, c.pools.loaded = o.Store, c.kickRouters
	for name, rc := range o.Routers {
		c.routers[name] = newRouterSync(name, rc, c.buildDocument, o.Allocator.Notify)
	}
	return c, c.watch()
}

func routerNames(m map[string]RouterClient) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	return names
}

// watch connects the informers: whatever a router's document is built from
// leads to a look at it.
func (c *Controller) watch() error {
	kick := func(any) { c.kickRouters() }
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc: kick, UpdateFunc: func(_, o any) { kick(o) }, DeleteFunc: kick,
	}
	for _, inf := range []cache.SharedIndexInformer{c.o.Services, c.o.Nodes, c.o.EndpointSlices} {
		if _, err := inf.AddEventHandler(handler); err != nil {
			return fmt.Errorf("watch: %w", err)
		}
	}
	if _, err := c.o.Services.AddEventHandler(c.watchEarly()); err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	return c.pools.watch()
}

func (c *Controller) kickRouters() {
	for _, r := range c.routers {
		r.Kick()
	}
}

// VirtualIPsChanged says that a VirtualIP was changed by somebody else.
func (c *Controller) VirtualIPsChanged() {
	c.o.Allocator.Notify()
	c.kickRouters()
}

// PoolStatusChanged takes IPAM's status of a pool.
func (c *Controller) PoolStatusChanged(s ipam.PoolStatus) { c.pools.statusChanged(s.Name) }

// PoolEvent takes IPAM's event about a pool.
func (c *Controller) PoolEvent(e ipam.Event) { c.pools.Event(e) }

// Announced reports whether somebody may still answer for an address without
// Services. It is the store's Announced.
func (c *Controller) Announced(v *v1alpha1.VirtualIP) bool {
	if heldByNode(v) { // also when the pool has just ceased to have nodes hold it
		return true
	}
	if v.Spec.Role == v1alpha1.RoleBGP {
		return justWithdrawn(v)
	}
	if v.Spec.Router == nil {
		return false
	}
	r := c.routers[v.Spec.Router.Name]
	// A router that is no longer in the cloud-config file cannot be asked.
	return r != nil && r.MayHave(v.Spec.Address)
}

// Run keeps everything in step until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if !cache.WaitForCacheSync(ctx.Done(), c.o.Services.HasSynced, c.o.Namespaces.HasSynced, c.o.Nodes.HasSynced,
		c.o.EndpointSlices.HasSynced, c.o.Pools.HasSynced, c.o.Store.HasSynced) {
		return ctx.Err()
	}
	c.pools.load() // before anybody may ask for an address
	var wg sync.WaitGroup
	wg.Go(func() { c.pools.Run(ctx) })
	for _, r := range c.routers {
		wg.Go(func() { r.Run(ctx) })
	}
	wg.Go(func() { c.sweepLoop(ctx) })
	wg.Go(func() { c.publishedLoop(ctx) })
	wg.Go(func() { c.runEarly(ctx) })
	close(c.ready)
	c.kickRouters()
	<-ctx.Done()
	wg.Wait()
	return nil
}

// waitReady blocks until the informers have synced.
func (c *Controller) waitReady(ctx context.Context) error {
	select {
	case <-c.ready:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("starting up: %w", ctx.Err())
	}
}

// service returns the Service of a reference, or nil if it is not there any
// more or is another object of that name.
func (c *Controller) service(ref v1alpha1.ServiceReference) *corev1.Service {
	obj, ok, err := c.o.Services.GetStore().GetByKey(ref.Namespace + "/" + ref.Name)
	if err != nil || !ok {
		return nil
	}
	svc, ok := obj.(*corev1.Service)
	if !ok || svc.UID != ref.UID {
		return nil
	}
	return svc
}

// keyedLocks serialises work on one Service.
type keyedLocks struct {
	mu sync.Mutex
	m  map[types.UID]*keyedLock
}

type keyedLock struct {
	sync.Mutex
	users int // guarded by keyedLocks.mu
}

func (k *keyedLocks) lock(uid types.UID) (unlock func()) {
	l := k.use(uid)
	l.Lock()
	return func() { l.Unlock(); k.leave(uid, l) }
}

// tryLock locks unless somebody has the lock.
func (k *keyedLocks) tryLock(uid types.UID) (unlock func(), ok bool) {
	l := k.use(uid)
	if !l.TryLock() {
		k.leave(uid, l)
		return nil, false
	}
	return func() { l.Unlock(); k.leave(uid, l) }, true
}

func (k *keyedLocks) use(uid types.UID) *keyedLock {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.m == nil {
		k.m = map[types.UID]*keyedLock{}
	}
	l := k.m[uid]
	if l == nil {
		l = &keyedLock{}
		k.m[uid] = l
	}
	l.users++
	return l
}

func (k *keyedLocks) leave(uid types.UID, l *keyedLock) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(k.m, uid)
	}
}
