// Package sample is a small cluster as the API server shows it when all is well,
// for tests of what reads it: three nodes with agents, a cloud-controller-manager
// that leads, a pool on the nodes' network and one behind a router, and a Service
// with an address of each. A test changes what it wants to see noticed. The same
// call gives the same objects, but for the times, which are counted from now.
package sample

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"

	onelbfake "github.com/onelb/onelb/api/client/fake"
	"github.com/onelb/onelb/api/v1alpha1"
)

// The names that tests need.
const (
	Namespace = "onelb-system"
	L2Address = "10.20.0.107"
	Public    = "203.0.113.105"
)

// Cluster is the objects.
type Cluster struct {
	Nodes      []*corev1.Node
	Pools      []*v1alpha1.AddressPool // main, edge
	VirtualIPs []*v1alpha1.VirtualIP   // L2Address, Public
	// BGP are BGPConfigurations, BGPPeers and BGPNodes; none in New, see WithBGP.
	BGP        []runtime.Object
	Services   []*corev1.Service // default/web, default/shop
	Slices     []*discoveryv1.EndpointSlice
	Namespaces []*corev1.Namespace
	Manager    *appsv1.Deployment
	Agents     *appsv1.DaemonSet
	Pods       []*corev1.Pod // the agents, then the managers
	Leader     *coordinationv1.Lease
	// Others are further objects of Kubernetes.
	Others []runtime.Object
}

// New makes the cluster.
func New() *Cluster {
	c := &Cluster{
		Pools:      []*v1alpha1.AddressPool{pool("main", v1alpha1.ExposureL2), pool("edge", v1alpha1.ExposureRouter)},
		Namespaces: []*corev1.Namespace{namespace("default"), namespace("kube-system"), namespace(Namespace)},
		Manager: &appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: "opennebula-cloud-controller-manager"},
			Spec:       appsv1.DeploymentSpec{Replicas: ptr.To[int32](2), Template: template("onelb/opennebula-cloud-controller-manager:v1")},
			Status:     appsv1.DeploymentStatus{ReadyReplicas: 2},
		},
		Agents: &appsv1.DaemonSet{
			ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: "onelb-node"},
			Spec:       appsv1.DaemonSetSpec{Template: template("onelb/onelb-node:v1")},
			Status:     appsv1.DaemonSetStatus{DesiredNumberScheduled: 3, NumberReady: 3},
		},
		Leader: &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: "cloud-controller-manager"},
			Spec: coordinationv1.LeaseSpec{
				HolderIdentity: ptr.To("node-1_5d8c"), LeaseDurationSeconds: ptr.To[int32](15), RenewTime: ptr.To(metav1.NewMicroTime(time.Now())),
			},
		},
		Others: []runtime.Object{
			&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: "onelb-gossip"}, Data: map[string][]byte{"key": make([]byte, 32)}},
			&corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "kube-proxy"},
				Data:       map[string]string{"config.conf": "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: iptables\n"},
			},
		},
	}
	for i := 1; i <= 3; i++ {
		name := fmt.Sprintf("node-%d", i)
		c.Nodes = append(c.Nodes, node(name, i))
		c.Pods = append(c.Pods, pod("onelb-node", name, "onelb/onelb-node:v1"))
	}
	for i := 1; i <= 2; i++ {
		c.Pods = append(c.Pods, pod("opennebula-cloud-controller-manager", fmt.Sprintf("node-%d", i), "onelb/opennebula-cloud-controller-manager:v1"))
	}
	web, shop := Service("default", "web", L2Address), Service("default", "shop", Public)
	c.Services = []*corev1.Service{web, shop}
	for _, s := range c.Services {
		c.Slices = append(c.Slices, slice(s))
	}
	held, routed := VirtualIP(L2Address, "main", web), VirtualIP(Public, "edge", shop)
	held.Status.Holder = &v1alpha1.Holder{Name: "node-1", Interface: "eth0", Since: metav1.NewMicroTime(time.Now().Add(-time.Hour)), Epoch: 3}
	routed.Spec.Role, routed.Spec.Router = v1alpha1.RoleRouter, &v1alpha1.VirtualIPRouter{Name: "edge", Forward: v1alpha1.ForwardNodePort}
	routed.Status.Router = &v1alpha1.RouterState{Generation: 12}
	c.VirtualIPs = []*v1alpha1.VirtualIP{held, routed}
	return c
}

// Kube is a fake client with the objects of Kubernetes.
func (c *Cluster) Kube() *fake.Clientset {
	objects := c.Others
	for _, n := range c.Nodes {
		objects = append(objects, n)
	}
	for _, s := range c.Services {
		objects = append(objects, s)
	}
	for _, s := range c.Slices {
		objects = append(objects, s)
	}
	for _, n := range c.Namespaces {
		objects = append(objects, n)
	}
	for _, p := range c.Pods {
		objects = append(objects, p)
	}
	if c.Manager != nil {
		objects = append(objects, c.Manager)
	}
	if c.Agents != nil {
		objects = append(objects, c.Agents)
	}
	if c.Leader != nil {
		objects = append(objects, c.Leader)
	}
	return fake.NewClientset(objects...)
}

// OneLB is a fake client with ours.
func (c *Cluster) OneLB() *onelbfake.Clientset {
	var objects []runtime.Object
	for _, p := range c.Pools {
		objects = append(objects, p)
	}
	for _, v := range c.VirtualIPs {
		objects = append(objects, v)
	}
	return onelbfake.New(append(objects, c.BGP...)...)
}

// The names of what WithBGP adds.
const (
	RoutedAddress = "192.0.2.7"
	BGPPeerName   = "rack"
)

// WithBGP adds a pool with exposure BGP, a peer with which all nodes have a session, and
// a Service default/api whose address they announce.
func (c *Cluster) WithBGP() *Cluster {
	c.Pools = append(c.Pools, pool("routed", v1alpha1.ExposureBGP))
	s := Service("default", "api", RoutedAddress)
	c.Services, c.Slices = append(c.Services, s), append(c.Slices, slice(s))
	v := VirtualIP(RoutedAddress, "routed", s)
	v.Spec.Role = v1alpha1.RoleBGP
	c.VirtualIPs = append(c.VirtualIPs, v)
	c.BGP = []runtime.Object{
		&v1alpha1.BGPConfiguration{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.BGPConfigurationName}, Spec: v1alpha1.BGPConfigurationSpec{ASN: 65001}},
		&v1alpha1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: BGPPeerName}, Spec: v1alpha1.BGPPeerSpec{
			Address: "10.20.0.1", Port: 179, ASN: 64512, PasswordKey: "rack", BFD: &v1alpha1.BFDProfile{},
		}},
	}
	for i, n := range c.Nodes {
		since := metav1.NewTime(time.Now().Add(-time.Hour))
		c.BGP = append(c.BGP, &v1alpha1.BGPNode{ObjectMeta: metav1.ObjectMeta{Name: n.Name}, Status: v1alpha1.BGPNodeStatus{
			ASN: 65001, RouterID: fmt.Sprintf("10.20.0.1%d", i+1), Peers: 1, Established: 1, Routes: 1,
			Sessions: []v1alpha1.BGPSession{{
				Peer: BGPPeerName, Address: "10.20.0.1", State: v1alpha1.BGPEstablished, Since: &since, Announced: 1, GracefulRestart: true,
				Families: []v1alpha1.BGPFamily{v1alpha1.BGPFamilyIPv4}, HoldTime: &metav1.Duration{Duration: 90 * time.Second}, BFD: "Up",
			}},
		}})
		v.Status.Announcers = append(v.Status.Announcers, v1alpha1.Announcer{Node: n.Name, Peers: []string{BGPPeerName}})
	}
	return c
}

// Session is that of a node with the peer, to be changed.
func (c *Cluster) Session(node string) *v1alpha1.BGPSession {
	for _, o := range c.BGP {
		if n, ok := o.(*v1alpha1.BGPNode); ok && n.Name == node {
			return &n.Status.Sessions[0]
		}
	}
	return nil
}

// Peer is the BGPPeer, to be changed.
func (c *Cluster) Peer() *v1alpha1.BGPPeerSpec {
	for _, o := range c.BGP {
		if p, ok := o.(*v1alpha1.BGPPeer); ok {
			return &p.Spec
		}
	}
	return nil
}

// Service makes a Service of type LoadBalancer; without address it waits.
func Service(namespace, name, address string) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(namespace + "-" + name), CreationTimestamp: metav1.NewTime(time.Now().Add(-time.Hour))},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}, ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyCluster,
			Selector: map[string]string{"app": name},
			Ports:    []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(8080), NodePort: 31080}},
		},
	}
	if address != "" {
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: address}}
	}
	return s
}

// VirtualIP makes an address on hold that a Service has; role L2, no holder.
func VirtualIP(address, pool string, s *corev1.Service) *v1alpha1.VirtualIP {
	return &v1alpha1.VirtualIP{
		ObjectMeta: metav1.ObjectMeta{Name: address, CreationTimestamp: metav1.NewTime(time.Now().Add(-2 * time.Hour)), Finalizers: []string{v1alpha1.AddressFinalizer}},
		Spec: v1alpha1.VirtualIPSpec{
			Address: address, Pool: pool, Role: v1alpha1.RoleL2, TrafficPolicy: v1alpha1.TrafficPolicyCluster,
			Services: []v1alpha1.ServiceReference{{Namespace: s.Namespace, Name: s.Name, UID: s.UID}},
		},
		Status: v1alpha1.VirtualIPStatus{
			Phase:      v1alpha1.PhaseActive,
			Conditions: []metav1.Condition{{Type: v1alpha1.VirtualIPOnHold, Status: metav1.ConditionTrue, Reason: "Held"}},
		},
	}
}

func pool(name string, e v1alpha1.Exposure) *v1alpha1.AddressPool {
	p := &v1alpha1.AddressPool{
		ObjectMeta: metav1.ObjectMeta{Name: name, Generation: 1, Finalizers: []string{v1alpha1.PoolFinalizer}},
		Spec:       v1alpha1.AddressPoolSpec{Network: v1alpha1.NetworkReference{Name: "private"}, Exposure: e},
		Status: v1alpha1.AddressPoolStatus{
			NetworkName: "private", ObservedGeneration: 1,
			IPv4:       &v1alpha1.AddressCounts{Total: 100, Reserved: 8, Used: 1, Free: 99, Held: 1, Ahead: 4},
			Conditions: []metav1.Condition{{Type: v1alpha1.PoolReady, Status: metav1.ConditionTrue, Reason: "Reserved"}},
		},
	}
	if e == v1alpha1.ExposureRouter {
		p.Spec.Network.Name, p.Status.NetworkName = "public", "public"
		p.Spec.Router = &v1alpha1.RouterSpec{Name: "edge", Forward: v1alpha1.ForwardNodePort}
		p.Spec.Priority = 10
	}
	return p
}

func namespace(name string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-" + name)}}
}

func node(name string, i int) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.NodeSpec{ProviderID: fmt.Sprintf("one://%d", i)},
		Status: corev1.NodeStatus{
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now()}},
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("10.20.0.%d", 10+i)}},
		},
	}
}

func template(image string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "program", Image: image}}}}
}

func pod(app, node, image string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: app + "-" + node, Labels: map[string]string{"app.kubernetes.io/name": app}},
		Spec:       corev1.PodSpec{NodeName: node, Containers: template(image).Spec.Containers},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}
}

func slice(s *corev1.Service) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name + "-x", Labels: map[string]string{discoveryv1.LabelServiceName: s.Name}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{"10.244.1.5"}, NodeName: ptr.To("node-1"), Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}},
			{Addresses: []string{"10.244.2.5"}, NodeName: ptr.To("node-2"), Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}},
		},
	}
}
