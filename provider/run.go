package provider

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/api/client"
	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/loadbalancer"
	"github.com/onelb/onelb/loadbalancer/appliance"
	"github.com/onelb/onelb/loadbalancer/class"
	"github.com/onelb/onelb/loadbalancer/guard"
	"github.com/onelb/onelb/loadbalancer/offer"
	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/virtualip"
	"github.com/onelb/onelb/provider/config"
	"github.com/onelb/onelb/provider/identity"
)

const userAgent = "onelb"

// rememberedEvents is of how many events it is known that they were sent, so that
// another one only counts. We send them on transitions; client-go's default of
// 4,096, three times over, is for those who send one at each try.
const rememberedEvents = 512

// parts are the running pieces of one leadership.
type parts struct {
	kube     *kubernetes.Clientset
	onelb    *client.Clientset
	recorder record.EventRecorder
	pools    cache.SharedIndexInformer
	vips     cache.SharedIndexInformer
	shared   informers.SharedInformerFactory
	balancer *loadbalancer.Controller
	class    *class.Controller
	offers   *offer.Controller // nil: pools are made by people only
	guard    *guard.Controller
	store    *virtualip.Store
	manager  *ipam.Manager
	routers  map[string]routerClient
	identity string // of the cluster
	token    uint64 // of this leadership
}

// routerClient is the client of a router, of whatever driver.
type routerClient interface {
	loadbalancer.RouterClient
	Run(ctx context.Context) error
}

// run makes the parts, hands out the load balancer, and keeps everything going
// until ctx ends or a part ends without being asked to.
func (c *Cloud) run(ctx context.Context, cfg *rest.Config) error {
	p, stopEvents, err := newParts(cfg)
	if err != nil {
		return err
	}
	defer stopEvents()
	if err := trimWith("VirtualIPs", p.vips, trimVirtualIP); err != nil {
		return err
	}
	select {
	case p.shared = <-c.informers:
	case <-ctx.Done():
		return nil
	}
	id, token, err := c.join(ctx, p.kube)
	if err != nil {
		return err
	}
	p.identity, p.token = id, token
	if err := c.connect(p, id, token); err != nil {
		return err
	}
	c.balancer.set(p.balancer)
	klog.FromContext(ctx).Info("The load balancer runs", "cluster", c.config.Cluster, "identity", id, "routers", len(p.routers))
	return c.supervise(ctx, p, cfg.Host)
}

// join fetches what the parts need of the cluster.
func (c *Cloud) join(ctx context.Context, kube kubernetes.Interface) (id string, token uint64, err error) {
	host, err := os.Hostname()
	if err != nil {
		host = userAgent
	}
	err = retry(ctx, "the cluster's identity", func(ctx context.Context) (err error) {
		id, err = identity.Of(ctx, kube, c.config.IdentityFile)
		return err
	})
	if err != nil {
		return "", 0, err
	}
	err = retry(ctx, "a fencing token", func(ctx context.Context) (err error) {
		token, err = nextToken(ctx, kube, host)
		return err
	})
	return id, token, err
}

func newParts(cfg *rest.Config) (*parts, func(), error) {
	kube, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, nil, fmt.Errorf("Kubernetes client: %w", err)
	}
	onelb, err := client.New(cfg)
	if err != nil {
		return nil, nil, err
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, nil, fmt.Errorf("register types: %w", err)
	}
	events := record.NewBroadcasterWithCorrelatorOptions(record.CorrelatorOptions{LRUCacheSize: rememberedEvents})
	events.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: kube.CoreV1().Events("")})
	return &parts{
		kube: kube, onelb: onelb,
		recorder: events.NewRecorder(scheme, corev1.EventSource{Component: userAgent}),
		pools:    client.NewAddressPoolInformer(onelb, 0),
		vips:     client.NewVirtualIPInformer(onelb, 0),
		routers:  map[string]routerClient{},
	}, events.Shutdown, nil
}

// connect makes store, IPAM, router clients and load balancer. They refer to
// each other: the callbacks are used only once everything runs.
func (c *Cloud) connect(p *parts, id string, token uint64) error {
	var err error
	p.store, err = virtualip.New(virtualip.Options{
		Client: p.onelb.VirtualIPs(), Informer: p.vips,
		Announced: func(v *v1alpha1.VirtualIP) bool { return p.balancer.Announced(v) },
		OnChange:  func() { p.balancer.VirtualIPsChanged(); p.guard.Notify() },
	})
	if err != nil {
		return err
	}
	p.manager, err = ipam.New(ipam.Options{
		Networks: c.one, Records: p.store, Claims: p.store, Inventory: c.one, ReportOrphans: c.options.Orphans == OrphansReport, Cluster: c.config.Cluster, Identity: id,
		Interval: c.timing.Compare, OrphanGrace: c.timing.OrphanGrace, Fence: c.timing.Fence, Adopt: c.timing.Adopt,
		FormerGrace: c.timing.FormerGrace, OwnersDelay: c.timing.OwnersDelay,
		OnStatus: func(s ipam.PoolStatus) { p.balancer.PoolStatusChanged(s); p.guard.Notify() },
		OnEvent:  func(e ipam.Event) { p.balancer.PoolEvent(e) },
	})
	if err != nil {
		return err
	}
	clients := map[string]loadbalancer.RouterClient{}
	var podRoutes, appliances []string
	for _, r := range c.config.Routers {
		rc, err := c.newRouter(r, id, token)
		if err != nil {
			return err
		}
		p.routers[r.Name], clients[r.Name] = rc, rc
		if r.Driver == config.DriverAppliance {
			appliances = append(appliances, r.Name)
		}
		if r.PodRoutes {
			podRoutes = append(podRoutes, r.Name)
		}
	}
	p.balancer, err = loadbalancer.New(loadbalancer.Options{
		Kube: p.kube, OneLB: p.onelb, Recorder: p.recorder, Routers: clients, Appliances: appliances, PodRoutes: podRoutes, Store: p.store, Allocator: p.manager,
		Services:       p.shared.Core().V1().Services().Informer(),
		Namespaces:     p.shared.Core().V1().Namespaces().Informer(),
		Nodes:          p.shared.Core().V1().Nodes().Informer(),
		EndpointSlices: p.shared.Discovery().V1().EndpointSlices().Informer(),
		Pools:          p.pools,
		SweepInterval:  c.timing.Sweep, RetryAfter: c.timing.Retry,
		NoDefaultClass: !c.options.DefaultClass,
	})
	if err != nil {
		return err
	}
	if c.config.OfferedPools {
		p.offers, err = offer.New(offer.Options{
			Source: offers{c.one}, Cluster: c.config.Cluster, Pools: p.onelb.AddressPools(), Informer: p.pools, Recorder: p.recorder,
			Interval: c.timing.Offers,
		})
		if err != nil {
			return err
		}
	}
	p.class, err = class.New(class.Options{
		Class: loadbalancer.Class, Kube: p.kube, Services: p.shared.Core().V1().Services().Informer(), Balancer: p.balancer,
	})
	if err != nil {
		return err
	}
	p.guard, err = newGuard(c.one, p, c.timing)
	return err
}

// newRouter makes the client of a router.
func (c *Cloud) newRouter(r config.Router, id string, token uint64) (routerClient, error) {
	if r.Driver == config.DriverAppliance {
		return appliance.New(c.appliance(r.Name, r.VirtualRouter, id, token))
	}
	return router.NewClient(router.ClientOptions{
		Router: r.Name, Endpoints: r.Endpoints, CAFile: r.CAFile, CertFile: r.CertFile, KeyFile: r.KeyFile,
		Cluster: c.config.Cluster, Identity: id, Token: token,
	})
}

// supervise runs the parts. One that ends by itself ends all.
func (c *Cloud) supervise(ctx context.Context, p *parts, apiServer string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	loadbalancer.RegisterMetrics()
	guard.RegisterMetrics()
	appliance.RegisterMetrics()
	var wg sync.WaitGroup
	start := func(name string, run func(context.Context) error) {
		wg.Go(func() {
			err := run(ctx)
			if ctx.Err() == nil {
				cancel(fmt.Errorf("%s has ended: %w", name, errors.Join(err, errEnded)))
			}
		})
	}
	wg.Go(func() { p.pools.RunWithContext(ctx) })
	wg.Go(func() { p.vips.RunWithContext(ctx) })
	wg.Go(func() { c.checkOpenNebula(ctx) })
	wg.Go(func() { c.watchAccess(ctx, p) })
	wg.Go(func() { c.watchRouters(ctx, p) })
	if c.options.PagePort != 0 {
		wg.Go(func() { logPage(ctx, c.servePage(ctx, p, apiServer)) })
	}
	wg.Go(func() { c.withdrawLeftovers(ctx, p) })
	wg.Go(func() {
		// An error only says that ctx has ended.
		_ = retry(ctx, "the node agents' key", func(ctx context.Context) error { return ensureGossipSecret(ctx, p.kube) })
	})
	for name, rc := range p.routers {
		start("the client of router "+name, rc.Run)
	}
	start("the load balancer", p.balancer.Run)
	start("the controller of class "+loadbalancer.Class, p.class.Run)
	if p.offers != nil {
		start("the controller of offered pools", p.offers.Run)
	}
	if cache.WaitForCacheSync(ctx.Done(), p.vips.HasSynced) {
		start("IPAM", p.manager.Run) // it takes a missing record for a free address
		start("the guard", p.guard.Run)
	}
	<-ctx.Done()
	wg.Wait()
	if cause := context.Cause(ctx); errors.Is(cause, errEnded) {
		return cause
	}
	return nil
}

var errEnded = errors.New("a part that runs for ever has ended")

// checkOpenNebula says at the start whether OpenNebula can be used; everything
// that needs it tries by itself.
func (c *Cloud) checkOpenNebula(ctx context.Context) {
	_ = retry(ctx, "OpenNebula", func(ctx context.Context) error {
		version, err := c.one.Check(ctx)
		if err == nil {
			klog.FromContext(ctx).Info("OpenNebula answers", "version", version)
		}
		return err
	})
}
