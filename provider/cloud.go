package provider

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/loadbalancer"
	"github.com/onelb/onelb/provider/config"
	"github.com/onelb/onelb/provider/instances"
	"github.com/onelb/onelb/provider/one"
)

// Name is the value of --cloud-provider.
const Name = "opennebula"

func init() {
	cloudprovider.RegisterCloudProvider(Name, func(r io.Reader) (cloudprovider.Interface, error) { return New(r) })
}

// Cloud implements cloudprovider.Interface.
type Cloud struct {
	config    *config.Config
	options   Options
	one       *one.Client
	instances *instances.Instances
	balancer  *lateBalancer
	timing    Timing
	informers chan informers.SharedInformerFactory
}

var (
	_ cloudprovider.Interface    = (*Cloud)(nil)
	_ cloudprovider.InformerUser = (*Cloud)(nil)
)

// New reads the cloud-config and makes the provider. It makes no calls.
func New(r io.Reader) (*Cloud, error) {
	if r == nil {
		return nil, fmt.Errorf("cloud provider %s: --cloud-config is required", Name)
	}
	cfg, err := config.Parse(r)
	if err != nil {
		name := "the cloud-config"
		if f, ok := r.(*os.File); ok {
			name = f.Name()
		}
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	client, err := one.New(one.Options{
		Endpoint: cfg.Endpoint, Credentials: one.CredentialsIn(cfg.Credentials.File, cfg.Credentials.Env), CAFile: cfg.CAFile, RequestTimeout: cfg.RequestTimeout,
	})
	if err != nil {
		return nil, err
	}
	inst, err := instances.New(instances.Options{OpenNebula: client, Nodes: cfg.Instances})
	if err != nil {
		return nil, err
	}
	return &Cloud{
		config: cfg, one: client, instances: inst,
		options:   Options{DefaultClass: true},
		balancer:  newLateBalancer(),
		informers: make(chan informers.SharedInformerFactory, 1),
	}, nil
}

// Configure sets the options. Call it before Initialize.
func (c *Cloud) Configure(o Options) { c.options = o }

// Initialize starts the parts of the provider. They end when stop closes.
func (c *Cloud) Initialize(b cloudprovider.ControllerClientBuilder, stop <-chan struct{}) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-stop; cancel() }()
	go func() {
		if err := c.run(ctx, b.ConfigOrDie(userAgent)); err != nil && ctx.Err() == nil {
			klog.ErrorS(err, "The cloud provider has ended; exiting to be started again")
			klog.FlushAndExit(klog.ExitFlushTimeout, 1)
		}
	}()
}

// SetInformers takes the informers that the library's controllers use too.
func (c *Cloud) SetInformers(f informers.SharedInformerFactory) {
	// They have to be asked for before the library starts the factory.
	f.Core().V1().Services().Informer()
	f.Core().V1().Namespaces().Informer()
	f.Core().V1().Nodes().Informer()
	if err := loadbalancer.KeepEndpoints(f.Discovery().V1().EndpointSlices().Informer()); err != nil {
		klog.ErrorS(err, "Cannot watch EndpointSlices")
	}
	if err := trimShared(f); err != nil {
		klog.ErrorS(err, "Informers keep whole objects: more memory is used")
	}
	c.informers <- f
}

// LoadBalancer is supported.
func (c *Cloud) LoadBalancer() (cloudprovider.LoadBalancer, bool) { return c.balancer, true }

// InstancesV2 is supported.
func (c *Cloud) InstancesV2() (cloudprovider.InstancesV2, bool) { return c.instances, true }

// Instances is the old interface; InstancesV2 replaces it.
func (c *Cloud) Instances() (cloudprovider.Instances, bool) { return nil, false }

// Zones is the old interface; InstancesV2 replaces it.
func (c *Cloud) Zones() (cloudprovider.Zones, bool) { return nil, false }

// Clusters is not supported.
func (c *Cloud) Clusters() (cloudprovider.Clusters, bool) { return nil, false }

// ProviderName is "opennebula".
func (c *Cloud) ProviderName() string { return Name }

// HasClusterID is true: the cluster's name is a required setting.
func (c *Cloud) HasClusterID() bool { return true }

// lateBalancer stands for the load balancer until it is made: the library asks
// for it before the cluster could be asked for its identity.
type lateBalancer struct {
	once  sync.Once
	made  chan struct{}
	inner *loadbalancer.Controller // written before made closes
}

var _ cloudprovider.LoadBalancer = (*lateBalancer)(nil)

func newLateBalancer() *lateBalancer { return &lateBalancer{made: make(chan struct{})} }

func (l *lateBalancer) set(c *loadbalancer.Controller) {
	l.once.Do(func() { l.inner = c; close(l.made) })
}

func (l *lateBalancer) get(ctx context.Context) (*loadbalancer.Controller, error) {
	ctx, cancel := context.WithTimeout(ctx, startupWait)
	defer cancel()
	select {
	case <-l.made:
		return l.inner, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("the load balancer is still starting, see the log for what it waits for: %w", ctx.Err())
	}
}

// GetLoadBalancer implements cloudprovider.LoadBalancer.
func (l *lateBalancer) GetLoadBalancer(ctx context.Context, cluster string, s *corev1.Service) (*corev1.LoadBalancerStatus, bool, error) {
	c, err := l.get(ctx)
	if err != nil {
		return nil, false, err
	}
	return c.GetLoadBalancer(ctx, cluster, s)
}

// GetLoadBalancerName implements cloudprovider.LoadBalancer.
func (l *lateBalancer) GetLoadBalancerName(_ context.Context, _ string, s *corev1.Service) string {
	return s.Namespace + "/" + s.Name
}

// EnsureLoadBalancer implements cloudprovider.LoadBalancer.
func (l *lateBalancer) EnsureLoadBalancer(ctx context.Context, cluster string, s *corev1.Service, n []*corev1.Node) (*corev1.LoadBalancerStatus, error) {
	c, err := l.get(ctx)
	if err != nil {
		return nil, err
	}
	return c.EnsureLoadBalancer(ctx, cluster, s, n)
}

// UpdateLoadBalancer implements cloudprovider.LoadBalancer.
func (l *lateBalancer) UpdateLoadBalancer(ctx context.Context, cluster string, s *corev1.Service, n []*corev1.Node) error {
	c, err := l.get(ctx)
	if err != nil {
		return err
	}
	return c.UpdateLoadBalancer(ctx, cluster, s, n)
}

// EnsureLoadBalancerDeleted implements cloudprovider.LoadBalancer.
func (l *lateBalancer) EnsureLoadBalancerDeleted(ctx context.Context, cluster string, s *corev1.Service) error {
	c, err := l.get(ctx)
	if err != nil {
		return err
	}
	return c.EnsureLoadBalancerDeleted(ctx, cluster, s)
}
