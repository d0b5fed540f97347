package loadbalancer

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/annotation"
	"github.com/onelb/onelb/loadbalancer/router"
)

// kubeProxyHealthz is where kube-proxy says whether its node may get new traffic.
var kubeProxyHealthz = router.Check{Port: 10256, Path: "/healthz"}

// documentInput is all that a router's document is made from.
type documentInput struct {
	// VIPs with role Router on this router, with Services behind them.
	VIPs []*v1alpha1.VirtualIP
	// Service returns the very object of a reference; nil if it is gone.
	Service func(v1alpha1.ServiceReference) *corev1.Service
	// Inner returns the inner address of a Service; invalid if there is none.
	Inner func(ref v1alpha1.ServiceReference, is4 bool) netip.Addr
	Nodes []*corev1.Node
	// Endpoints returns a Service's endpoints.
	Endpoints func(v1alpha1.ServiceReference) []*endpoints
	// SNAT is what a pool says.
	SNAT func(pool string) v1alpha1.SNAT
	// Routes are the ones to pods that the router is to have.
	Routes []podRoute
	// Routed reports whether the router reaches a pod.
	Routed func(netip.Addr) bool
	// Lacks says why the router cannot do what a frontend needs; nil: it can.
	Lacks func(needs ...router.Feature) error
}

// makeDocument builds the desired state of one router. It is pure: the same
// input gives the same document. What cannot be expressed is left out and
// returned as an error for each Service; Ensure has refused such Services. What
// goes another way than it should is a detour.
func makeDocument(in documentInput) (router.Document, []detour, []error) {
	b := documentBuilder{in: in, groups: map[string]router.Group{}, taken: map[router.Key]string{}}
	for _, v := range in.VIPs {
		b.add(v)
	}
	d := router.Document{Frontends: b.frontends}
	for _, g := range b.groups {
		d.Groups = append(d.Groups, g)
	}
	for _, r := range in.Routes {
		d.Routes = append(d.Routes, r.Route)
	}
	return d.Normalize(), b.detours, b.problems
}

type documentBuilder struct {
	in        documentInput
	groups    map[string]router.Group
	frontends []router.Frontend
	problems  []error
	detours   []detour
	nodes     map[string]*corev1.Node // by name, once it is needed
	taken     map[router.Key]string   // frontends, by their Services
}

func (b *documentBuilder) add(v *v1alpha1.VirtualIP) {
	a, err := netip.ParseAddr(v.Spec.Address)
	if err != nil {
		b.problems = append(b.problems, fmt.Errorf("VirtualIP %s: %w", v.Name, err))
		return
	}
	for _, ref := range v.Spec.Services {
		svc := b.in.Service(ref)
		if svc == nil {
			continue
		}
		if err := b.addService(a, v, ref, svc); err != nil {
			b.problems = append(b.problems, &leftOut{service: svc, err: err})
		}
	}
}

// addService adds a Service's frontends. Of a shared address, it has the ports
// that stand in the VirtualIP: an edit to a port that another Service has must
// not disturb that one, nor the whole document.
func (b *documentBuilder) addService(a netip.Addr, v *v1alpha1.VirtualIP, ref v1alpha1.ServiceReference, svc *corev1.Service) error {
	ports := slices.DeleteFunc(slices.Clone(svc.Spec.Ports), func(p corev1.ServicePort) bool {
		return v.Spec.Share != "" && !slices.Contains(ref.Ports, portName(p)) // Ensure has not claimed it, or has refused the Service
	})
	ranges, err := sourceRanges(svc, a.Is4())
	if err != nil {
		return err
	}
	// A limit that cannot be read is reported by Ensure, and must not take a
	// Service away that works.
	limit, _ := annotation.ParseConnectionLimit(svc.Annotations) //nolint:errcheck // see above
	forward := v.Spec.Router.Forward
	var targets map[string]podTargets
	if forward == v1alpha1.ForwardPod {
		targets, forward = b.podsOr(a, ref, svc, ports)
	}
	group := ""
	if forward != v1alpha1.ForwardPod {
		if group, err = b.group(a, forward, ref, svc); err != nil {
			return err
		}
	}
	for _, p := range ports {
		f := router.Frontend{
			Address: a, Protocol: router.Protocol(cmp.Or(p.Protocol, corev1.ProtocolTCP)), Port: uint16(p.Port), //nolint:gosec // 1..65535 by the API
			Service: ref.Namespace + "/" + ref.Name, Group: group, SourceRanges: ranges,
			Affinity: affinity(svc, forward), MaxConnections: limit, SNAT: router.SNAT(b.in.SNAT(v.Spec.Pool)),
		}
		if forward == v1alpha1.ForwardRoute {
			f.Routed, f.SNAT = true, router.SNATNever
		}
		f.BackendPort = f.Port
		switch {
		case forward == v1alpha1.ForwardPod:
			t := targets[portName(p)]
			f.Group = b.podGroup(a.Is4(), ref, p, t)
			f.BackendPort = cmp.Or(t.port, f.Port) // without pods, connections are refused
		case forward == v1alpha1.ForwardNodePort && p.NodePort == 0:
			return fmt.Errorf("port %s has no NodePort", portName(p))
		case forward == v1alpha1.ForwardNodePort:
			f.BackendPort = uint16(p.NodePort) //nolint:gosec // 1..65535 by the API
		}
		if err := b.frontend(f); err != nil {
			return err
		}
	}
	return nil
}

// frontend adds one, unless the router would refuse the whole document because of
// it: one Service must not take the others' changes away.
func (b *documentBuilder) frontend(f router.Frontend) error {
	if err := f.Normalize().Validate(); err != nil {
		return fmt.Errorf("frontend %s: %w", f.Key(), err)
	}
	if err := b.in.Lacks(f.Needs()...); err != nil {
		return err
	}
	if other, taken := b.taken[f.Key()]; taken {
		return fmt.Errorf("frontend %s: Service %s has it", f.Key(), other)
	}
	b.taken[f.Key()] = f.Service
	b.frontends = append(b.frontends, f)
	return nil
}

// affinity is for how long the router has a client keep its backend. With forward
// VIP and Route there is one, and kube-proxy behind it keeps the client's pod.
func affinity(svc *corev1.Service, forward v1alpha1.Forward) time.Duration {
	if svc.Spec.SessionAffinity != corev1.ServiceAffinityClientIP || forward == v1alpha1.ForwardVIP || forward == v1alpha1.ForwardRoute {
		return 0
	}
	seconds := int32(corev1.DefaultClientIPServiceAffinitySeconds)
	if c := svc.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		seconds = *c.ClientIP.TimeoutSeconds
	}
	return min(time.Duration(seconds)*time.Second, router.MaxAffinity)
}

// group returns the name of the backends of a Service, made if need be. All
// Services that spread over all nodes share one group.
func (b *documentBuilder) group(a netip.Addr, forward v1alpha1.Forward, ref v1alpha1.ServiceReference, svc *corev1.Service) (string, error) {
	family := "ipv6"
	if a.Is4() {
		family = "ipv4"
	}
	if forward == v1alpha1.ForwardRoute {
		return b.holders(a.Is4()), nil
	}
	if forward == v1alpha1.ForwardVIP {
		inner := b.in.Inner(ref, a.Is4())
		if !inner.IsValid() {
			return "", fmt.Errorf("no inner address for %s yet", a)
		}
		name := "vip-" + inner.String()
		b.groups[name] = router.Group{Name: name, Members: []router.Member{{Address: inner}}}
		return name, nil
	}
	if svc.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal {
		name := "nodes-" + family
		if _, ok := b.groups[name]; !ok {
			check := kubeProxyHealthz
			b.groups[name] = router.Group{Name: name, Members: b.members(a.Is4(), nil), Check: &check}
		}
		return name, nil
	}
	name := fmt.Sprintf("local-%s/%s-%s", ref.Namespace, ref.Name, family)
	g := router.Group{Name: name, Members: b.members(a.Is4(), endpointNodes(b.in.Endpoints(ref)))}
	if p := svc.Spec.HealthCheckNodePort; p != 0 {
		g.Check = &router.Check{Port: uint16(p), Path: "/healthz"} //nolint:gosec // 1..65535 by the API
	}
	b.groups[name] = g
	return name, nil
}

// members lists the nodes that may get traffic; only those in the set, unless it is nil.
func (b *documentBuilder) members(is4 bool, only map[string]int) []router.Member {
	var out []router.Member
	for _, n := range b.in.Nodes {
		weight := 1
		if only != nil {
			weight = only[n.Name]
		}
		if weight == 0 || !mayServe(n) {
			continue
		}
		if a := nodeAddress(n, is4); a.IsValid() {
			m := router.Member{Address: a, Node: n.Name, Weight: min(weight, router.MaxWeight)}
			// kube-proxy tells its health on one family only unless it is told otherwise.
			if ip4 := nodeAddress(n, true); !is4 && ip4.IsValid() {
				m.CheckAddress = ip4
			}
			out = append(out, m)
		}
	}
	if n := len(out); n > router.MaxMembers {
		b.problems = append(b.problems, fmt.Errorf("of %d nodes, the first %d get connections: a router spreads over no more", n, router.MaxMembers))
		out = out[:router.MaxMembers]
	}
	return out
}

// aboutToGo is the taint that the cluster autoscaler puts on a node before it
// removes it.
const aboutToGo = "ToBeDeletedByClusterAutoscaler"

// mayServe leaves out nodes that people, the autoscaler or their deletion took out
// of load balancing. Readiness is not looked at: the router asks the node itself.
// Nor are cordons, which say nothing about the pods that are there.
func mayServe(n *corev1.Node) bool {
	if slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == aboutToGo }) {
		return false
	}
	if _, excluded := n.Labels[corev1.LabelNodeExcludeBalancers]; excluded {
		return false
	}
	return n.DeletionTimestamp.IsZero()
}

func nodeAddress(n *corev1.Node, is4 bool) netip.Addr {
	for _, a := range n.Status.Addresses {
		if a.Type != corev1.NodeInternalIP {
			continue
		}
		if ip, err := netip.ParseAddr(a.Address); err == nil && ip.Unmap().Is4() == is4 && !ip.IsLinkLocalUnicast() {
			return ip.Unmap()
		}
	}
	return netip.Addr{}
}

// endpointNodes counts the endpoints on each node that may get traffic: ready
// ones, or, if there is none at all, those that still serve while they end.
func endpointNodes(all []*endpoints) map[string]int {
	ready, serving := map[string]int{}, map[string]int{}
	seen := map[types.UID]bool{} // a dual-stack endpoint stands in two slices
	for _, s := range all {
		for _, e := range s.list {
			if e.pod != "" && seen[e.pod] {
				continue
			}
			seen[e.pod] = true
			if e.ready {
				ready[e.node.Value()]++
			} else {
				serving[e.node.Value()]++
			}
		}
	}
	if len(ready) > 0 {
		return ready
	}
	return serving
}

// sourceRanges are the client networks of one family. A Service with ranges of
// the other family only lets nobody of this one in, which needs a range too.
func sourceRanges(svc *corev1.Service, is4 bool) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range svc.Spec.LoadBalancerSourceRanges {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("spec.loadBalancerSourceRanges: %w", err)
		}
		if p.Addr().Unmap().Is4() == is4 {
			out = append(out, p.Masked())
		}
	}
	if len(svc.Spec.LoadBalancerSourceRanges) > 0 && len(out) == 0 {
		none := netip.PrefixFrom(netip.IPv6Unspecified(), 128)
		if is4 {
			none = netip.PrefixFrom(netip.IPv4Unspecified(), 32)
		}
		out = append(out, none) // no packet comes from the unspecified address
	}
	return out, nil
}

// buildDocument gathers what a router's document is made from, and makes it.
func (c *Controller) buildDocument(name string) router.Document {
	vips := c.o.Store.Objects(func(v *v1alpha1.VirtualIP) bool {
		return v.Spec.Role == v1alpha1.RoleRouter && v.Spec.Router != nil && v.Spec.Router.Name == name && len(v.Spec.Services) > 0
	})
	nodes := c.nodes()
	var routes []podRoute
	var problems []error
	if slices.Contains(c.o.PodRoutes, name) {
		routes, problems = podRoutes(nodes)
	}
	state := c.o.Routers[name].State()
	if err := state.Lacks(router.FeatureRoutes); err != nil && len(routes) > 0 {
		routes, problems = nil, append(problems, err) // Services with forward Pod say what that means for them
	}
	d, detours, more := makeDocument(documentInput{
		VIPs: vips, Service: c.service, Inner: c.innerAddress, Nodes: nodes, Endpoints: c.endpoints,
		SNAT: c.pools.SNAT, Routes: routes, Routed: routed(state, routes), Lacks: state.Lacks,
	})
	c.events.Detours(name, detoursOf(detours))
	c.tellTooOld(name, more)
	problems = append(problems, more...)
	for _, err := range problems {
		klog.V(2).InfoS("Left out of a router's document", "router", name, "reason", err)
	}
	routerFrontends.WithLabelValues(name).Set(float64(len(d.Frontends)))
	return d
}

func (c *Controller) innerAddress(ref v1alpha1.ServiceReference, is4 bool) netip.Addr {
	for _, r := range c.o.Store.OwnedBy(ref.UID) {
		if role(r) == v1alpha1.RoleInner && r.Address.Is4() == is4 {
			return r.Address
		}
	}
	return netip.Addr{}
}

func (c *Controller) nodes() []*corev1.Node {
	var out []*corev1.Node
	for _, obj := range c.o.Nodes.GetStore().List() {
		if n, ok := obj.(*corev1.Node); ok {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b *corev1.Node) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
