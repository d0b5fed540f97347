// Package inventory reads, once, what onelb's objects and those around it say in
// the API server. Reading changes nothing. What the user may not read is a gap
// and no failure: whoever looks at the inventory says what is unknown.
package inventory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/onelb/onelb/api/client"
	"github.com/onelb/onelb/api/v1alpha1"
)

// The names that the manifests give.
const (
	Namespace = "onelb-system"
	Manager   = "opennebula-cloud-controller-manager" // Deployment
	Agents    = "onelb-node"                          // DaemonSet

	nameLabel = "app.kubernetes.io/name"
	// LeaderLease says which cloud-controller-manager leads.
	LeaderLease = "cloud-controller-manager"
	// FencingLease counts leaders, and says where the page is of the one that leads.
	FencingLease = "onelb-fencing"
	// pageSize bounds one answer of the API server.
	pageSize = 500
)

// Timeout is for all calls of one reading.
const Timeout = time.Minute

// ErrNotInstalled: the API server does not know onelb's objects.
var ErrNotInstalled = errors.New("onelb is not installed in this cluster: it has no AddressPools (apply the manifests or the chart)")

// Clients are what is read with.
type Clients struct {
	Kube  kubernetes.Interface
	OneLB client.Interface
}

// Gap is something that could not be read.
type Gap struct {
	What string `json:"what"`
	Why  string `json:"why"`
}

// Inventory is what was read. Lists are sorted by namespace and name.
type Inventory struct {
	Time       time.Time
	Pools      []v1alpha1.AddressPool
	VirtualIPs []v1alpha1.VirtualIP
	// BGPConfig is nil if it is not there or cannot be read.
	BGPConfig *v1alpha1.BGPConfiguration
	BGPPeers  []v1alpha1.BGPPeer
	BGPNodes  []v1alpha1.BGPNode
	// Services are those of type LoadBalancer.
	Services   []corev1.Service
	Namespaces []corev1.Namespace
	Nodes      []corev1.Node
	Slices     []discoveryv1.EndpointSlice
	// Manager and Agents are nil if they are not there or cannot be read.
	Manager *appsv1.Deployment
	Agents  *appsv1.DaemonSet
	// Pods are those of namespace onelb-system.
	Pods []corev1.Pod
	// Leader is the lease of the cloud-controller-manager, or nil.
	Leader *coordinationv1.Lease
	Gaps   []Gap

	// What a program says that has watched all this itself, and sees neither
	// EndpointSlices nor the Deployment. Count, if it is not nil, counts the
	// endpoints of a Service; NoDefaultClass is its --default-class=false.
	Count          func(namespace, name string, ipv6 bool) Endpoints
	NoDefaultClass bool

	index index
}

// Read reads it all. Its error is that of the API server as a whole, or that
// pools or VirtualIPs cannot be read. With ErrNotInstalled comes what else there is.
func Read(ctx context.Context, c Clients) (*Inventory, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	inv := &Inventory{Time: time.Now()}
	missing := inv.readOurs(ctx, c.OneLB)
	if missing != nil && !errors.Is(missing, ErrNotInstalled) {
		return nil, missing
	}
	for _, r := range []struct {
		what string
		read func() error
	}{
		{"BGPConfigurations, BGPPeers and BGPNodes", func() error { return inv.readBGP(ctx, c.OneLB) }},
		{"Services", func() error { return inv.readServices(ctx, c.Kube) }},
		{"Namespaces", func() error { return inv.readNamespaces(ctx, c.Kube) }},
		{"Nodes", func() error { return inv.readNodes(ctx, c.Kube) }},
		{"EndpointSlices", func() error { return inv.readSlices(ctx, c.Kube) }},
		{"the Deployment " + Namespace + "/" + Manager, func() error { return inv.readManager(ctx, c.Kube) }},
		{"the DaemonSet " + Namespace + "/" + Agents, func() error { return inv.readAgents(ctx, c.Kube) }},
		{"Pods of " + Namespace, func() error { return inv.readPods(ctx, c.Kube) }},
		{"the Lease " + Namespace + "/" + LeaderLease, func() error { return inv.readLeader(ctx, c.Kube) }},
	} {
		if err := r.read(); err != nil {
			if ctx.Err() != nil {
				return nil, fmt.Errorf("read %s: %w", r.what, err)
			}
			inv.Gaps = append(inv.Gaps, Gap{What: r.what, Why: err.Error()})
		}
	}
	inv.Complete()
	return inv, missing
}

// ReadManager reads only what says who leads: the Deployment and the Lease. An error
// is that of either; what is not there is none.
func ReadManager(ctx context.Context, c kubernetes.Interface) (*Inventory, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	inv := &Inventory{Time: time.Now()}
	if err := inv.readManager(ctx, c); err != nil {
		return nil, fmt.Errorf("read the Deployment %s/%s: %w", Namespace, Manager, err)
	}
	if err := inv.readLeader(ctx, c); err != nil {
		return nil, fmt.Errorf("read the Lease %s/%s: %w", Namespace, LeaderLease, err)
	}
	return inv, nil
}

// Complete sorts the lists and makes things be found. Whoever fills an inventory
// without Read calls it once, when it is full.
func (inv *Inventory) Complete() {
	inv.sort()
	inv.index = newIndex(inv)
}

// Unread reports whether something was not read, by the beginning of its name.
func (inv *Inventory) Unread(what string) bool {
	return slices.ContainsFunc(inv.Gaps, func(g Gap) bool { return strings.HasPrefix(g.What, what) })
}

func (inv *Inventory) readOurs(ctx context.Context, c client.Interface) error {
	pools, err := c.AddressPools().List(ctx, metav1.ListOptions{})
	if apierrors.IsNotFound(err) {
		return ErrNotInstalled
	}
	if err != nil {
		return fmt.Errorf("read AddressPools: %w", err)
	}
	vips, err := c.VirtualIPs().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("read VirtualIPs: %w", err)
	}
	inv.Pools, inv.VirtualIPs = pools.Items, vips.Items
	return nil
}

// readBGP reads what there is; an installation of an earlier version has no such kinds.
func (inv *Inventory) readBGP(ctx context.Context, c client.Interface) error {
	configs, err := c.BGPConfigurations().List(ctx, metav1.ListOptions{})
	if err == nil && len(configs.Items) > 0 {
		inv.BGPConfig = &configs.Items[0] // the API server takes one only
	}
	peers, err1 := c.BGPPeers().List(ctx, metav1.ListOptions{})
	if err1 == nil {
		inv.BGPPeers = peers.Items
	}
	nodes, err2 := c.BGPNodes().List(ctx, metav1.ListOptions{})
	if err2 == nil {
		inv.BGPNodes = nodes.Items
	}
	return errors.Join(known(err), known(err1), known(err2))
}

// pages calls list until it has given all.
func pages(list func(metav1.ListOptions) (next string, err error)) error {
	o := metav1.ListOptions{Limit: pageSize}
	for {
		next, err := list(o)
		if err != nil || next == "" {
			return err
		}
		o.Continue = next
	}
}

func (inv *Inventory) readServices(ctx context.Context, c kubernetes.Interface) error {
	return pages(func(o metav1.ListOptions) (string, error) {
		l, err := c.CoreV1().Services("").List(ctx, o)
		if err != nil {
			return "", err
		}
		for i := range l.Items {
			if l.Items[i].Spec.Type == corev1.ServiceTypeLoadBalancer {
				inv.Services = append(inv.Services, l.Items[i])
			}
		}
		return l.Continue, nil
	})
}

func (inv *Inventory) readNamespaces(ctx context.Context, c kubernetes.Interface) error {
	l, err := c.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err == nil {
		inv.Namespaces = l.Items
	}
	return err
}

func (inv *Inventory) readNodes(ctx context.Context, c kubernetes.Interface) error {
	return pages(func(o metav1.ListOptions) (string, error) {
		l, err := c.CoreV1().Nodes().List(ctx, o)
		if err != nil {
			return "", err
		}
		inv.Nodes = append(inv.Nodes, l.Items...)
		return l.Continue, nil
	})
}

func (inv *Inventory) readSlices(ctx context.Context, c kubernetes.Interface) error {
	return pages(func(o metav1.ListOptions) (string, error) {
		l, err := c.DiscoveryV1().EndpointSlices("").List(ctx, o)
		if err != nil {
			return "", err
		}
		inv.Slices = append(inv.Slices, l.Items...)
		return l.Continue, nil
	})
}

func (inv *Inventory) readManager(ctx context.Context, c kubernetes.Interface) error {
	d, err := c.AppsV1().Deployments(Namespace).Get(ctx, Manager, metav1.GetOptions{})
	if err == nil {
		inv.Manager = d
	}
	return known(err)
}

func (inv *Inventory) readAgents(ctx context.Context, c kubernetes.Interface) error {
	d, err := c.AppsV1().DaemonSets(Namespace).Get(ctx, Agents, metav1.GetOptions{})
	if err == nil {
		inv.Agents = d
	}
	return known(err)
}

func (inv *Inventory) readPods(ctx context.Context, c kubernetes.Interface) error {
	l, err := c.CoreV1().Pods(Namespace).List(ctx, metav1.ListOptions{})
	if err == nil {
		inv.Pods = l.Items
	}
	return err
}

func (inv *Inventory) readLeader(ctx context.Context, c kubernetes.Interface) error {
	l, err := c.CoordinationV1().Leases(Namespace).Get(ctx, LeaderLease, metav1.GetOptions{})
	if err == nil {
		inv.Leader = l
	}
	return known(err)
}

// known: that something is not there is knowledge and no gap.
func known(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func (inv *Inventory) sort() {
	byName := func(a, b metav1.Object) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	}
	slices.SortFunc(inv.Pools, func(a, b v1alpha1.AddressPool) int { return byName(&a, &b) })
	slices.SortFunc(inv.VirtualIPs, func(a, b v1alpha1.VirtualIP) int { return compareAddresses(&a, &b) })
	slices.SortFunc(inv.BGPPeers, func(a, b v1alpha1.BGPPeer) int { return byName(&a, &b) })
	slices.SortFunc(inv.BGPNodes, func(a, b v1alpha1.BGPNode) int { return byName(&a, &b) })
	slices.SortFunc(inv.Services, func(a, b corev1.Service) int { return byName(&a, &b) })
	slices.SortFunc(inv.Namespaces, func(a, b corev1.Namespace) int { return byName(&a, &b) })
	slices.SortFunc(inv.Nodes, func(a, b corev1.Node) int { return byName(&a, &b) })
	slices.SortFunc(inv.Slices, func(a, b discoveryv1.EndpointSlice) int { return byName(&a, &b) })
	slices.SortFunc(inv.Pods, func(a, b corev1.Pod) int { return byName(&a, &b) })
}
