package inventory

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer"
)

func compareAddresses(a, b *v1alpha1.VirtualIP) int {
	x, _ := netip.ParseAddr(a.Spec.Address) // what is none comes first
	y, _ := netip.ParseAddr(b.Spec.Address)
	return cmp.Or(x.Compare(y), cmp.Compare(a.Name, b.Name))
}

// index finds things by name: there may be ten thousand Services.
type index struct {
	pools    map[string]*v1alpha1.AddressPool
	nodes    map[string]*corev1.Node
	services map[string]*corev1.Service // by namespace/name
	owned    map[types.UID][]*v1alpha1.VirtualIP
	slices   map[string][]*discoveryv1.EndpointSlice // by namespace/name of the Service
	agents   map[string]*corev1.Pod                  // by node
}

func newIndex(inv *Inventory) index {
	x := index{
		pools: map[string]*v1alpha1.AddressPool{}, nodes: map[string]*corev1.Node{}, services: map[string]*corev1.Service{},
		owned: map[types.UID][]*v1alpha1.VirtualIP{}, slices: map[string][]*discoveryv1.EndpointSlice{}, agents: map[string]*corev1.Pod{},
	}
	for i := range inv.Pools {
		x.pools[inv.Pools[i].Name] = &inv.Pools[i]
	}
	for i := range inv.Nodes {
		x.nodes[inv.Nodes[i].Name] = &inv.Nodes[i]
	}
	for i := range inv.Services {
		s := &inv.Services[i]
		x.services[s.Namespace+"/"+s.Name] = s
	}
	for i := range inv.VirtualIPs {
		for _, r := range inv.VirtualIPs[i].Spec.Services {
			x.owned[r.UID] = append(x.owned[r.UID], &inv.VirtualIPs[i])
		}
	}
	for i := range inv.Slices {
		s := &inv.Slices[i]
		key := s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName]
		x.slices[key] = append(x.slices[key], s)
	}
	for i := range inv.Pods {
		if p := &inv.Pods[i]; p.Labels[nameLabel] == Agents && p.DeletionTimestamp == nil {
			x.agents[p.Spec.NodeName] = p
		}
	}
	return x
}

// Pool returns the pool of a name, or nil.
func (inv *Inventory) Pool(name string) *v1alpha1.AddressPool { return inv.index.pools[name] }

// Node returns the node of a name, or nil.
func (inv *Inventory) Node(name string) *corev1.Node { return inv.index.nodes[name] }

// Service returns the Service of type LoadBalancer of a name, or nil.
func (inv *Inventory) Service(namespace, name string) *corev1.Service {
	return inv.index.services[namespace+"/"+name]
}

// Owned lists the VirtualIPs of a Service, sorted by address.
func (inv *Inventory) Owned(svc *corev1.Service) []*v1alpha1.VirtualIP {
	return inv.index.owned[svc.UID]
}

// Owns reports whether a VirtualIP gives an address to a Service.
func (inv *Inventory) Owns(svc *corev1.Service, a netip.Addr) bool {
	return slices.ContainsFunc(inv.Owned(svc), func(v *v1alpha1.VirtualIP) bool { return v.Spec.Address == a.String() })
}

// AgentPod returns the pod of the node agent on a node, or nil.
func (inv *Inventory) AgentPod(node string) *corev1.Pod { return inv.index.agents[node] }

// NamespaceLabels are those of a namespace, nil if they are not known.
func (inv *Inventory) NamespaceLabels(name string) labels.Set {
	i := slices.IndexFunc(inv.Namespaces, func(n corev1.Namespace) bool { return n.Name == name })
	if i < 0 {
		return nil
	}
	return labels.Merge(labels.Set{}, inv.Namespaces[i].Labels)
}

// DefaultClass reports whether Services without a class are onelb's, as the
// Deployment's arguments say, or the program itself.
func (inv *Inventory) DefaultClass() bool {
	return !inv.NoDefaultClass && !inv.managerSays("--default-class=false")
}

// Elects reports whether the cloud-controller-managers elect a leader.
func (inv *Inventory) Elects() bool { return !inv.managerSays("--leader-elect=false") }

// managerSays reports whether the Deployment has an argument.
func (inv *Inventory) managerSays(arg string) bool {
	return inv.Manager != nil && slices.ContainsFunc(inv.Manager.Spec.Template.Spec.Containers, func(c corev1.Container) bool { return slices.Contains(c.Args, arg) })
}

// Judge plans for a Service as the cloud-controller-manager does.
func (inv *Inventory) Judge(svc *corev1.Service) loadbalancer.Verdict {
	return loadbalancer.Judge(loadbalancer.Inquiry{
		Service: svc, NamespaceLabels: inv.NamespaceLabels(svc.Namespace), Pools: inv.Pools, VirtualIPs: inv.VirtualIPs,
	})
}

// Leads names who leads and says whether the lease is fresh; empty: nobody ever did.
// That is by this machine's clock: whoever must not be wrong looks again whether
// the lease is renewed.
func (inv *Inventory) Leads() (name string, fresh bool) {
	if inv.Leader == nil || inv.Leader.Spec.HolderIdentity == nil {
		return "", false
	}
	name, _, _ = strings.Cut(*inv.Leader.Spec.HolderIdentity, "_")
	renewed, lasts := inv.Leader.Spec.RenewTime, inv.Leader.Spec.LeaseDurationSeconds
	if renewed == nil || lasts == nil {
		return name, false
	}
	// Twice: the clocks of this machine and of the leader differ.
	return name, *inv.Leader.Spec.HolderIdentity != "" && inv.Time.Sub(renewed.Time) < 2*time.Duration(*lasts)*time.Second
}

// AgentsArePods reports whether the node agents run as their DaemonSet's pods, and
// not, as units of the nodes' init system may, beside it.
func (inv *Inventory) AgentsArePods() bool {
	return inv.Agents != nil && inv.Agents.Status.DesiredNumberScheduled > 0 && !inv.Unread("Pods")
}

// ManagerPods are those of the cloud-controller-manager.
func (inv *Inventory) ManagerPods() []*corev1.Pod {
	var out []*corev1.Pod
	for i := range inv.Pods {
		if inv.Pods[i].Labels[nameLabel] == Manager {
			out = append(out, &inv.Pods[i])
		}
	}
	return out
}

// PodReady reports whether a pod's condition Ready is true.
func PodReady(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// NodeReady reports whether a node's condition Ready is true.
func NodeReady(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// Image is what the first container runs.
func Image(s corev1.PodSpec) string {
	if len(s.Containers) == 0 {
		return ""
	}
	return s.Containers[0].Image
}

// Version is the tag, or the digest, of an image; empty if it has none.
func Version(image string) string {
	if _, digest, ok := strings.Cut(image, "@"); ok {
		return digest
	}
	name := image[strings.LastIndex(image, "/")+1:]
	_, tag, _ := strings.Cut(name, ":")
	return tag
}

// Behind reports whether a pod of the agents runs another image than the
// DaemonSet asks for.
func Behind(p *corev1.Pod, d *appsv1.DaemonSet) bool {
	return d != nil && Image(p.Spec) != Image(d.Spec.Template.Spec)
}

// Endpoints of a Service.
type Endpoints struct {
	Ready, Total int
	// Nodes counts the ready ones by node; "" is the key of those without node.
	Nodes map[string]int
}

// Endpoints counts those of a Service in one family: each address once.
func (inv *Inventory) Endpoints(svc *corev1.Service, ipv6 bool) Endpoints {
	if inv.Count != nil {
		return inv.Count(svc.Namespace, svc.Name, ipv6)
	}
	out := Endpoints{Nodes: map[string]int{}}
	family := discoveryv1.AddressTypeIPv4
	if ipv6 {
		family = discoveryv1.AddressTypeIPv6
	}
	seen := map[string]bool{}
	for _, s := range inv.index.slices[svc.Namespace+"/"+svc.Name] {
		if s.AddressType != family {
			continue
		}
		for _, e := range s.Endpoints {
			if len(e.Addresses) == 0 || seen[e.Addresses[0]] {
				continue
			}
			seen[e.Addresses[0]] = true
			out.Total++
			if e.Conditions.Ready == nil || *e.Conditions.Ready {
				out.Ready++
				node := ""
				if e.NodeName != nil {
					node = *e.NodeName
				}
				out.Nodes[node]++
			}
		}
	}
	return out
}

// Ready is the condition Ready of a pool: whether it is true, reason, message.
func Ready(p *v1alpha1.AddressPool) (ok bool, reason, message string) {
	c := apimeta.FindStatusCondition(p.Status.Conditions, v1alpha1.PoolReady)
	if c == nil {
		return false, "", "no cloud-controller-manager has looked at it yet"
	}
	return c.Status == "True", c.Reason, c.Message
}
