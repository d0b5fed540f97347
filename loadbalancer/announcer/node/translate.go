package node

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/announcer"
)

// slicesOf returns the EndpointSlices of a Service.
type slicesOf func(namespace, service string) []*discoveryv1.EndpointSlice

// translate reduces the API objects to what the engine needs. cordoned: a
// cordoned node counts as draining.
func translate(logger klog.Logger, cordoned bool, nodes []*corev1.Node, vips []*v1alpha1.VirtualIP, endpoints slicesOf) *announcer.Cluster {
	c := &announcer.Cluster{}
	for _, n := range nodes {
		c.Nodes = append(c.Nodes, translateNode(n, cordoned))
	}
	slices.SortFunc(c.Nodes, func(a, b announcer.Node) int { return cmp.Compare(a.Name, b.Name) })
	pick := picker{logger: logger, nodes: nodes, known: map[string][]string{}}
	for _, v := range vips {
		if !v.Spec.HeldByNode() && (v.Spec.Router == nil || v.Status.Holder == nil) {
			continue
		}
		if out, ok := pick.address(v, endpoints); ok {
			if !v.Spec.HeldByNode() {
				out.Services = nil // its pool no longer has forward Route: whoever holds it lets go
			}
			c.Addresses = append(c.Addresses, out)
		}
	}
	slices.SortFunc(c.Addresses, func(a, b announcer.Address) int { return a.Address.Compare(b.Address) })
	return c
}

// translatePooled does the same with the addresses that nodes announce with BGP.
func translatePooled(logger klog.Logger, nodes []*corev1.Node, vips []*v1alpha1.VirtualIP, endpoints slicesOf) []pooled {
	var all []pooled
	pick := picker{logger: logger, nodes: nodes, known: map[string][]string{}}
	for _, v := range vips {
		if v.Spec.Role != v1alpha1.RoleBGP || len(v.Spec.Services) == 0 {
			continue
		}
		if out, ok := pick.address(v, endpoints); ok {
			all = append(all, pooled{out, v.Spec.Pool})
		}
	}
	slices.SortFunc(all, func(a, b pooled) int { return a.Address.Address.Compare(b.Address.Address) })
	return all
}

// taintAutoscaler is on nodes that the cluster autoscaler is about to remove;
// Kubernetes' own service controller goes by it too.
const taintAutoscaler = "ToBeDeletedByClusterAutoscaler"

// draining reports whether the node is about to go. There is no sign of a drain
// but the cordon that it begins with.
func draining(n *corev1.Node, cordoned bool) bool {
	return cordoned && n.Spec.Unschedulable ||
		slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == taintAutoscaler })
}

func translateNode(n *corev1.Node, cordoned bool) announcer.Node {
	_, excluded := n.Labels[corev1.LabelNodeExcludeBalancers]
	out := announcer.Node{Name: n.Name, Excluded: excluded || n.DeletionTimestamp != nil, Draining: draining(n, cordoned)}
	for _, a := range n.Status.Addresses {
		if a.Type != corev1.NodeInternalIP {
			continue
		}
		if parsed, err := netip.ParseAddr(a.Address); err == nil {
			out.Addresses = append(out.Addresses, parsed.Unmap())
		}
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeNetworkUnavailable && c.Status == corev1.ConditionTrue {
			out.Unavailable = true
		}
	}
	return out
}

func translateAddress(a netip.Addr, v *v1alpha1.VirtualIP, endpoints slicesOf) announcer.Address {
	out := announcer.Address{
		Address: a.Unmap(), Interfaces: v.Spec.Interfaces, Local: v.Spec.TrafficPolicy == v1alpha1.TrafficPolicyLocal,
		Created: v.CreationTimestamp.Time,
	}
	for _, s := range v.Spec.Services {
		out.Services = append(out.Services, announcer.Service{Namespace: s.Namespace, Name: s.Name, UID: string(s.UID)})
	}
	out.Conflict, out.Routed = conflict(v), v.Spec.Router != nil
	if h := v.Status.Holder; h != nil {
		out.Holder = &announcer.Holding{Node: h.Name, Interface: h.Interface, Since: h.Since.Time, Epoch: h.Epoch}
	}
	if out.Local {
		out.Endpoints = endpointNodes(out.Services, endpoints)
	}
	if g := v.Spec.Guard; g != nil {
		out.Local, out.Endpoints = true, attachedNodes(g, out)
	}
	return out
}

// picker finds the nodes that selectors match; most addresses have the same ones.
type picker struct {
	logger klog.Logger
	nodes  []*corev1.Node
	known  map[string][]string
}

// address translates a VirtualIP; false: it has no usable address.
func (p picker) address(v *v1alpha1.VirtualIP, endpoints slicesOf) (announcer.Address, bool) {
	a, err := netip.ParseAddr(v.Spec.Address)
	if err != nil {
		p.logger.Error(err, "Ignored a VirtualIP without a usable address", "virtualIP", v.Name)
		return announcer.Address{}, false
	}
	out := translateAddress(a, v, endpoints)
	p.choose(&out, v)
	return out, true
}

// choose takes in which nodes the pool names and prefers.
func (p picker) choose(out *announcer.Address, v *v1alpha1.VirtualIP) {
	if v.Spec.NodeSelector != "" {
		out.Selected, out.Nodes = true, p.matching(v.Spec.NodeSelector)
	}
	for _, w := range v.Spec.NodePreferences {
		for _, n := range p.matching(w.Selector) {
			if out.Weights == nil {
				out.Weights = map[string]int{}
			}
			out.Weights[n] += int(w.Weight)
		}
	}
}

// matching are the names of the nodes, sorted. A selector that cannot be read was
// not written by the cloud-controller-manager; it matches no node.
func (p picker) matching(selector string) []string {
	names, found := p.known[selector]
	if found {
		return names
	}
	s, err := labels.Parse(selector)
	if err != nil {
		p.logger.Error(err, "Unusable node selector", "selector", selector)
		s = labels.Nothing()
	}
	for _, n := range p.nodes {
		if s.Matches(labels.Set(n.Labels)) {
			names = append(names, n.Name)
		}
	}
	slices.Sort(names)
	p.known[selector] = names
	return names
}

// attachedNodes are the nodes that OpenNebula lets send from the address, of
// those that may have it otherwise.
func attachedNodes(g *v1alpha1.Guard, a announcer.Address) []string {
	var all []string
	for _, c := range g.Candidates {
		if c.State == v1alpha1.CandidateAttached && (!a.Local || slices.Contains(a.Endpoints, c.Node)) {
			all = append(all, c.Node)
		}
	}
	slices.Sort(all)
	return all
}

// localServices are the Services whose endpoints decide which nodes may have an address,
// as namespace/name.
func localServices(vips []*v1alpha1.VirtualIP) map[string]bool {
	out := map[string]bool{}
	for _, v := range vips {
		if v.Spec.TrafficPolicy != v1alpha1.TrafficPolicyLocal {
			continue
		}
		for _, s := range v.Spec.Services {
			out[s.Namespace+"/"+s.Name] = true
		}
	}
	return out
}

// endpointNodes are the nodes with endpoints of all the Services; if no node has
// all, those with any.
func endpointNodes(services []announcer.Service, endpoints slicesOf) []string {
	count := map[string]int{}
	for _, s := range services {
		for n := range serviceNodes(endpoints(s.Namespace, s.Name)) {
			count[n]++
		}
	}
	var all []string
	for n, c := range count {
		if c == len(services) {
			all = append(all, n)
		}
	}
	if len(all) == 0 {
		all = slices.Collect(maps.Keys(count))
	}
	slices.Sort(all)
	return all
}

// serviceNodes are the nodes with ready endpoints; if there are none, those with
// endpoints that still serve while they end, which is how kube-proxy chooses.
func serviceNodes(all []*discoveryv1.EndpointSlice) map[string]bool {
	ready, serving := map[string]bool{}, map[string]bool{}
	for _, s := range all {
		for _, e := range s.Endpoints {
			if e.NodeName == nil {
				continue
			}
			if e.Conditions.Ready == nil || *e.Conditions.Ready {
				ready[*e.NodeName] = true
			}
			if e.Conditions.Serving != nil && *e.Conditions.Serving {
				serving[*e.NodeName] = true
			}
		}
	}
	if len(ready) > 0 {
		return ready
	}
	return serving
}
