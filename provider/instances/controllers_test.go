package instances

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	kubefake "k8s.io/client-go/kubernetes/fake"
	cloudprovider "k8s.io/cloud-provider"
	cloudproviderapi "k8s.io/cloud-provider/api"
	cloudnode "k8s.io/cloud-provider/controllers/node"
	"k8s.io/cloud-provider/controllers/nodelifecycle"
	"k8s.io/component-base/metrics/prometheus/controllers"

	"github.com/onelb/onelb/provider/config"
	"github.com/onelb/onelb/provider/one"
	"github.com/onelb/onelb/test/onesim"
)

// cloud offers InstancesV2 to the real controllers.
type cloud struct {
	cloudprovider.Interface
	instances *Instances
}

func (c cloud) Instances() (cloudprovider.Instances, bool)     { return nil, false }
func (c cloud) InstancesV2() (cloudprovider.InstancesV2, bool) { return c.instances, true }
func (c cloud) ProviderName() string                           { return "opennebula" }

type credentials string

func (c credentials) Read() (string, error) { return string(c), nil }
func (c credentials) String() string        { return "the test's credentials" }

// cluster is a simulated front-end with one VM for each node, and the node
// controllers of k8s.io/cloud-provider on a fake API server.
type cluster struct {
	t    *testing.T
	sim  *onesim.Sim
	kube *kubefake.Clientset
	vms  map[string]int
}

func newCluster(t *testing.T, nodes ...string) *cluster {
	t.Helper()
	sim, err := onesim.New(onesim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	endpoint, stop, err := sim.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	c := &cluster{t: t, sim: sim, kube: kubefake.NewClientset(), vms: map[string]int{}}
	c.machines(nodes)
	client, err := one.New(one.Options{Endpoint: endpoint, Credentials: credentials("k8s:secret"), RequestTimeout: 500 * time.Millisecond, CacheTTL: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	inst, err := New(Options{OpenNebula: client, Nodes: config.Instances{InternalNetworks: []string{"private"}, ExternalNetworks: []string{"public"}}})
	if err != nil {
		t.Fatal(err)
	}
	c.run(cloud{instances: inst})
	return c
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (c *cluster) machines(nodes []string) {
	c.t.Helper()
	id := must[int](c.t)
	id(c.sim.AddUser("k8s", "secret", ""))
	id(c.sim.AddHost("host-1"))
	private := id(c.sim.AddVNet("", "NAME=private\nBRIDGE=b\nAR=[TYPE=IP4_6_STATIC,IP=10.20.0.11,IP6=\"fd00:20::11\",PREFIX_LENGTH=64,SIZE=64]"))
	public := id(c.sim.AddVNet("", "NAME=public\nBRIDGE=b\nAR=[TYPE=IP4,IP=203.0.113.100,SIZE=64]"))
	for i, name := range nodes {
		first := netip.AddrFrom4([4]byte{10, 20, 0, byte(11 + i)})
		c.vms[name] = id(c.sim.AddVM(onesim.VMSpec{
			Name: name, Owner: "k8s", Template: "VCPU=2\nMEMORY=2048",
			NICs: []onesim.NICSpec{{Network: private, IP: first}, {Network: public, Alias: true}},
		}))
		node := &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{
				cloudproviderapi.AnnotationAlphaProvidedIPAddr: fmt.Sprintf("%s,fd00:20::%d", first, 11+i),
			}},
			Spec:   corev1.NodeSpec{Taints: []corev1.Taint{{Key: cloudproviderapi.TaintExternalCloudProvider, Value: "true", Effect: corev1.TaintEffectNoSchedule}}},
			Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}}},
		}
		node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		must[*corev1.Node](c.t)(c.kube.CoreV1().Nodes().Create(c.t.Context(), node, metav1.CreateOptions{}))
	}
}

// run starts both controllers; they end with the test.
func (c *cluster) run(cl cloud) {
	c.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	factory := informers.NewSharedInformerFactory(c.kube, 0)
	nodes := factory.Core().V1().Nodes()
	initialiser := must[*cloudnode.CloudNodeController](c.t)(cloudnode.NewCloudNodeController(nodes, c.kube, cl, 50*time.Millisecond, 1, 1))
	lifecycle := must[*nodelifecycle.CloudNodeLifecycleController](c.t)(
		nodelifecycle.NewCloudNodeLifecycleController(nodes, c.kube, cl, 50*time.Millisecond, 1))
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	done := make(chan struct{}, 2)
	m := controllers.NewControllerManagerMetrics("onelb-test")
	go func() { initialiser.RunWithContext(ctx, m); done <- struct{}{} }()
	go func() { lifecycle.Run(ctx, m); done <- struct{}{} }()
	c.t.Cleanup(func() {
		cancel()
		<-done
		<-done
		factory.Shutdown()
	})
}

func (c *cluster) node(name string) (*corev1.Node, error) {
	return c.kube.CoreV1().Nodes().Get(c.t.Context(), name, metav1.GetOptions{})
}

// notReady makes the lifecycle controller look at a node's machine.
func (c *cluster) notReady(name string) {
	c.t.Helper()
	n := must[*corev1.Node](c.t)(c.node(name))
	n.Status.Conditions[0].Status = corev1.ConditionUnknown
	must[*corev1.Node](c.t)(c.kube.CoreV1().Nodes().UpdateStatus(c.t.Context(), n, metav1.UpdateOptions{}))
}

func (c *cluster) eventually(what string, ok func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("not in time: %s", what)
		}
	}
}

func (c *cluster) initialised(name string) bool {
	n, err := c.node(name)
	return err == nil && n.Spec.ProviderID != "" && len(n.Spec.Taints) == 0 && len(n.Status.Addresses) > 1
}

func TestControllersInitialiseNodes(t *testing.T) {
	c := newCluster(t, "node-1", "node-2")
	for i, name := range []string{"node-1", "node-2"} {
		c.eventually(name+" is initialised", func() bool { return c.initialised(name) })
		n := must[*corev1.Node](t)(c.node(name))
		if want := fmt.Sprintf("one://%d", c.vms[name]); n.Spec.ProviderID != want {
			t.Errorf("%s: provider ID %s, want %s", name, n.Spec.ProviderID, want)
		}
		want := []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("10.20.0.%d", 11+i)},
			{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("fd00:20::%d", 11+i)},
			{Type: corev1.NodeExternalIP, Address: fmt.Sprintf("203.0.113.%d", 100+i)},
			{Type: corev1.NodeHostName, Address: name},
		}
		if diff := cmp.Diff(want, n.Status.Addresses); diff != "" {
			t.Error(diff)
		}
		for label, want := range map[string]string{
			corev1.LabelInstanceTypeStable: "2vcpu-2048mb", corev1.LabelTopologyRegion: "OpenNebula", corev1.LabelTopologyZone: "cluster-0",
		} {
			if got := n.Labels[label]; got != want {
				t.Errorf("%s: label %s is %q, want %q", name, label, got, want)
			}
		}
	}
}

func TestControllersTaintShutDownNodes(t *testing.T) {
	c := newCluster(t, "node-1")
	c.eventually("it is initialised", func() bool { return c.initialised("node-1") })
	if err := c.sim.SetVMState(c.vms["node-1"], "POWEROFF"); err != nil {
		t.Fatal(err)
	}
	c.notReady("node-1")
	c.eventually("the node has the shutdown taint", func() bool {
		n, err := c.node("node-1")
		return err == nil && slices.ContainsFunc(n.Spec.Taints, func(x corev1.Taint) bool { return x.Key == cloudproviderapi.TaintNodeShutdown })
	})
}

// TestControllersDeleteNodes: a Node goes when OpenNebula says that its machine is
// gone, and stays as long as it says nothing of the kind.
func TestControllersDeleteNodes(t *testing.T) {
	c := newCluster(t, "node-1", "node-2")
	for _, name := range []string{"node-1", "node-2"} {
		c.eventually(name+" is initialised", func() bool { return c.initialised(name) })
	}
	if err := c.sim.SetVMState(c.vms["node-2"], "DONE"); err != nil {
		t.Fatal(err)
	}
	// One after the other; the last one stays.
	for _, f := range []onesim.Fault{
		{Kind: onesim.FaultError, Count: 2, Code: onesim.CodeAuthentication, Message: "User couldn't be authenticated, aborting call."},
		{Kind: onesim.FaultError, Count: 2, Code: onesim.CodeAuthorization, Message: "User [2] : Not authorized to perform USE VM [1]."},
		{Kind: onesim.FaultHTTP500, Count: 2},
		{Kind: onesim.FaultMalformed, Count: 2},
		{Kind: onesim.FaultDropAfter, Count: 2},
		{Kind: onesim.FaultHang},
	} {
		f.Method = "one.vm.info"
		if err := c.sim.Inject(f); err != nil {
			t.Fatal(err)
		}
	}
	c.sim.ResetCalls()
	c.notReady("node-2")
	c.eventually("the controller has met all faults", func() bool { return c.sim.Calls()["one.vm.info"] >= 12 })
	if _, err := c.node("node-2"); err != nil {
		t.Fatalf("deleted without proof: %v", err)
	}
	c.sim.ClearFaults()
	c.eventually("the Node is deleted", func() bool { _, err := c.node("node-2"); return apierrors.IsNotFound(err) })
	if _, err := c.node("node-1"); err != nil {
		t.Error(err)
	}
}
