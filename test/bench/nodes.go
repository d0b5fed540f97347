package bench

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	cloudprovider "k8s.io/cloud-provider"
	cloudproviderapi "k8s.io/cloud-provider/api"
	cloudnode "k8s.io/cloud-provider/controllers/node"
	"k8s.io/cloud-provider/controllers/nodelifecycle"
	"k8s.io/cloud-provider/options"
	"k8s.io/component-base/metrics/prometheus/controllers"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/provider"
	"github.com/onelb/onelb/provider/config"
	"github.com/onelb/onelb/provider/instances"
	"github.com/onelb/onelb/provider/one"
	"github.com/onelb/onelb/test/onesim"
)

const (
	// poolReads is the call that lists all machines.
	poolReads = "one.vmpool.infoextended"
	// nodesWindow has one update of all addresses (every 5 min) in it, and ends
	// between two rounds of the lifecycle controller (every 5 s).
	nodesWindow = 5*time.Minute + 2500*time.Millisecond
	// In this part of the window no Node is Ready, so that each round of the
	// lifecycle controller asks about each.
	notReadyFrom = time.Minute + 2500*time.Millisecond
	notReadyTo   = 2*time.Minute + 2500*time.Millisecond
)

// measureNodes runs the node controllers of two clusters side by side, in real
// time, each with a simulated front-end of its own.
func measureNodes(ctx context.Context, b *bench) error {
	// The controllers log each Node.
	klog.LogToStderr(false)
	klog.SetOutput(io.Discard)
	defer klog.LogToStderr(true)
	rows := map[string]int{"nodes_3_pool_reads": 3, "nodes_100_pool_reads": 100}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var failed error
	for row, n := range rows {
		wg.Go(func() {
			calls, err := countCalls(ctx, n)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = firstError(failed, fmt.Errorf("%d nodes: %w", n, err))
				return
			}
			b.add(row, float64(calls[poolReads]))
			total := 0
			for _, c := range calls {
				total += c
			}
			b.note(row, "real node controllers on a fake API server, real time: start, %d Nodes initialised, 1 min in which none is Ready, one update of all addresses; %d calls of all kinds", n, total)
		})
	}
	wg.Wait()
	return failed
}

// nodeCluster is a cluster of Nodes and machines without anything else.
type nodeCluster struct {
	sim  *onesim.Sim
	kube *fake.Clientset
	n    int
}

// countCalls runs the controllers for the window and returns the calls that
// OpenNebula got.
func countCalls(ctx context.Context, n int) (map[string]int, error) {
	sim, err := onesim.New(onesim.Options{Delays: onesim.MeasuredDelays})
	if err != nil {
		return nil, err
	}
	endpoint, stop, err := sim.Start("127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer stop()
	c := &nodeCluster{sim: sim, kube: fake.NewClientset(), n: n}
	if err := c.fill(ctx); err != nil {
		return nil, err
	}
	client, err := one.New(one.Options{Endpoint: endpoint, Credentials: simUser("k8s:secret")})
	if err != nil {
		return nil, err
	}
	inst, err := instances.New(instances.Options{OpenNebula: client, Nodes: config.Instances{InternalNetworks: []string{"private"}}})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sim.ResetCalls()
	done, err := c.run(ctx, nodeCloud{instances: inst})
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	defer func() { cancel(); done() }()
	for _, step := range []struct {
		at time.Duration
		do func(context.Context) error
	}{
		{notReadyFrom, func(ctx context.Context) error {
			return firstError(c.initialised(ctx), c.ready(ctx, corev1.ConditionUnknown))
		}},
		{notReadyTo, func(ctx context.Context) error { return c.ready(ctx, corev1.ConditionTrue) }},
		{nodesWindow, c.initialised},
	} {
		if err := pause(ctx, time.Until(begin.Add(step.at))); err != nil {
			return nil, err
		}
		if err := step.do(ctx); err != nil {
			return nil, err
		}
	}
	return sim.Calls(), nil
}

type simUser string

func (s simUser) Read() (string, error) { return string(s), nil }
func (s simUser) String() string        { return "the simulated user" }

// nodeCloud offers InstancesV2 alone.
type nodeCloud struct {
	cloudprovider.Interface
	instances *instances.Instances
}

func (c nodeCloud) Instances() (cloudprovider.Instances, bool)     { return nil, false }
func (c nodeCloud) InstancesV2() (cloudprovider.InstancesV2, bool) { return c.instances, true }
func (c nodeCloud) ProviderName() string                           { return provider.Name }

func (c *nodeCluster) name(i int) string { return fmt.Sprintf("node-%d", i) }

// fill makes the machines and their Nodes, which are not initialised.
func (c *nodeCluster) fill(ctx context.Context) error {
	_, err1 := c.sim.AddUser("k8s", "secret", "")
	_, err2 := c.sim.AddHost("host-1")
	private, err3 := c.sim.AddVNet("", "NAME=private\nBRIDGE=b\nAR=[TYPE=IP4,IP=10.20.0.11,SIZE=200]")
	if err := firstError(err1, err2, err3); err != nil {
		return err
	}
	first := netip.MustParseAddr("10.20.0.11")
	for i := range c.n {
		_, err := c.sim.AddVM(onesim.VMSpec{Name: c.name(i), Owner: "k8s", Template: "VCPU=2\nMEMORY=2048", NICs: []onesim.NICSpec{{Network: private, IP: first}}})
		if err != nil {
			return err
		}
		node := &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: c.name(i), Annotations: map[string]string{cloudproviderapi.AnnotationAlphaProvidedIPAddr: first.String()}},
			Spec:       corev1.NodeSpec{Taints: []corev1.Taint{{Key: cloudproviderapi.TaintExternalCloudProvider, Value: "true", Effect: corev1.TaintEffectNoSchedule}}},
			Status: corev1.NodeStatus{
				Addresses:  []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: c.name(i)}},
				Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
			},
		}
		if _, err := c.kube.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil {
			return err
		}
		first = first.Next()
	}
	return nil
}

// run starts both controllers at the pace that the program has by default. They
// have ended when done returns, after ctx has ended.
func (c *nodeCluster) run(ctx context.Context, cloud nodeCloud) (done func(), err error) {
	o, err := options.NewCloudControllerManagerOptions()
	if err != nil {
		return nil, err
	}
	provider.SetDefaults(o)
	factory := informers.NewSharedInformerFactory(c.kube, 0)
	nodes := factory.Core().V1().Nodes()
	workers := o.NodeController.ConcurrentNodeSyncs
	initialiser, err := cloudnode.NewCloudNodeController(nodes, c.kube, cloud, o.NodeStatusUpdateFrequency.Duration, workers, workers)
	if err != nil {
		return nil, err
	}
	lifecycle, err := nodelifecycle.NewCloudNodeLifecycleController(nodes, c.kube, cloud,
		o.NodeLifecycleController.NodeMonitorPeriod.Duration, int(o.NodeLifecycleController.ConcurrentNodeLifecycleSyncs))
	if err != nil {
		return nil, err
	}
	factory.StartWithContext(ctx)
	factory.WaitForCacheSync(ctx.Done())
	var wg sync.WaitGroup
	m := controllers.NewControllerManagerMetrics("onelb-bench")
	wg.Go(func() { initialiser.RunWithContext(ctx, m) })
	wg.Go(func() { lifecycle.Run(ctx, m) })
	return func() { wg.Wait(); factory.Shutdown() }, nil
}

// ready sets the condition Ready of all Nodes.
func (c *nodeCluster) ready(ctx context.Context, status corev1.ConditionStatus) error {
	for i := range c.n {
		n, err := c.kube.CoreV1().Nodes().Get(ctx, c.name(i), metav1.GetOptions{})
		if err != nil {
			return err
		}
		n.Status.Conditions[0].Status = status
		if _, err := c.kube.CoreV1().Nodes().UpdateStatus(ctx, n, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// initialised: a figure counts only if the work was done.
func (c *nodeCluster) initialised(ctx context.Context) error {
	for i := range c.n {
		n, err := c.kube.CoreV1().Nodes().Get(ctx, c.name(i), metav1.GetOptions{})
		if err != nil {
			return err
		}
		if n.Spec.ProviderID == "" || len(n.Spec.Taints) > 0 || len(n.Status.Addresses) < 2 {
			return fmt.Errorf("node %s is not initialised", n.Name)
		}
	}
	return nil
}
