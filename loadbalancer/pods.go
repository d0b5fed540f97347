package loadbalancer

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/router"
)

// podTargets are where a port of a Service is served.
type podTargets struct {
	port    uint16
	members []router.Member
}

// detour says that a Service with forward Pod is not forwarded as it should be.
type detour struct {
	service *corev1.Service
	message string
}

// podsOr chooses for a Service with forward Pod: its pods, or its NodePorts where
// the router cannot reach them. A Service without NodePorts has no such choice.
func (b *documentBuilder) podsOr(a netip.Addr, ref v1alpha1.ServiceReference, svc *corev1.Service, ports []corev1.ServicePort) (map[string]podTargets, v1alpha1.Forward) {
	targets, problem := b.podTargets(a.Is4(), ref, ports)
	if problem == "" {
		return targets, v1alpha1.ForwardPod
	}
	if slices.ContainsFunc(ports, func(p corev1.ServicePort) bool { return p.NodePort == 0 }) {
		b.detours = append(b.detours, detour{svc, problem + "; the Service has no NodePorts to be used instead"})
		return targets, v1alpha1.ForwardPod
	}
	b.detours = append(b.detours, detour{svc, problem + "; connections go to NodePorts instead"})
	return nil, v1alpha1.ForwardNodePort
}

// podTargets maps each port of a Service to its pods. A problem is what keeps the
// router from going there; the targets may be used in spite of it.
func (b *documentBuilder) podTargets(is4 bool, ref v1alpha1.ServiceReference, ports []corev1.ServicePort) (map[string]podTargets, string) {
	slicesOf := b.in.Endpoints(ref)
	ready := anyReady(slicesOf, is4)
	out := make(map[string]podTargets, len(ports))
	problem := ""
	for _, p := range ports {
		var t podTargets
		seen := map[netip.Addr]bool{}
		for _, s := range slicesOf {
			n := s.port(p)
			if n == 0 {
				continue
			}
			for _, e := range s.list {
				if e.ready != ready || e.address.Is4() != is4 || !e.address.IsValid() || seen[e.address] {
					continue
				}
				m, ok := b.podMember(e)
				if !ok {
					continue
				}
				seen[e.address] = true
				switch {
				case t.port != 0 && t.port != n:
					problem = fmt.Sprintf("port %s is %d on some pods and %d on others, and a router translates to one", portName(p), t.port, n)
					continue
				case !b.in.Routed(e.address):
					problem = fmt.Sprintf("the router has no route to pod %s on node %s: have it learn the pods' routes, or set podRoutes in the cloud-config", e.address, m.Node)
				}
				t.port, t.members = n, append(t.members, m)
			}
		}
		if len(t.members) > router.MaxMembers {
			problem = fmt.Sprintf("port %s has %d pods, and a router spreads over %d at most", portName(p), len(t.members), router.MaxMembers)
			t.members = t.members[:router.MaxMembers]
		}
		out[portName(p)] = t
	}
	return out, problem
}

// podMember is a pod whose node takes part in load balancing. It is as healthy as
// its node: of the pod itself, the endpoint tells.
func (b *documentBuilder) podMember(e endpoint) (router.Member, bool) {
	n := b.node(e.node.Value())
	if n == nil || !mayServe(n) {
		return router.Member{}, false
	}
	check := nodeAddress(n, true)
	if !check.IsValid() {
		check = nodeAddress(n, false)
	}
	return router.Member{Address: e.address, Node: n.Name, Weight: 1, CheckAddress: check}, check.IsValid()
}

// node finds a node by its name.
func (b *documentBuilder) node(name string) *corev1.Node {
	if b.nodes == nil {
		b.nodes = make(map[string]*corev1.Node, len(b.in.Nodes))
		for _, n := range b.in.Nodes {
			b.nodes[n.Name] = n
		}
	}
	return b.nodes[name]
}

// podGroup returns the name of the group of a port's pods. Ports that have the
// same pods, which is the rule, share one.
func (b *documentBuilder) podGroup(is4 bool, ref v1alpha1.ServiceReference, p corev1.ServicePort, t podTargets) string {
	family := "ipv6"
	if is4 {
		family = "ipv4"
	}
	check := kubeProxyHealthz
	g := router.Group{Name: fmt.Sprintf("pods-%s/%s-%s", ref.Namespace, ref.Name, family), Members: t.members, Check: &check}
	if have, is := b.groups[g.Name]; is && !slices.Equal(have.Members, g.Members) {
		g.Name += "-" + portName(p)
	}
	b.groups[g.Name] = g
	return g.Name
}

func anyReady(all []*endpoints, is4 bool) bool {
	for _, s := range all {
		for _, e := range s.list {
			if e.ready && e.address.IsValid() && e.address.Is4() == is4 {
				return true
			}
		}
	}
	return false
}

// port is the number that a Service's port has on these endpoints; 0: none.
func (e *endpoints) port(p corev1.ServicePort) uint16 {
	for _, have := range e.ports {
		if have.name.Value() == p.Name && have.protocol == protocolOf(p.Protocol) {
			return have.number
		}
	}
	return 0
}

// podRoute leads to the pods of a node.
type podRoute struct {
	router.Route
	node string
}

// podRoutes lists the routes to all nodes' pods, one for each network. What is
// no network, or has no way to it, is an error of its node.
func podRoutes(nodes []*corev1.Node) ([]podRoute, []error) {
	var out []podRoute
	var problems []error
	taken := map[netip.Prefix]string{}
	for _, n := range nodes {
		for _, text := range n.Spec.PodCIDRs {
			to, err := netip.ParsePrefix(text)
			if err != nil {
				problems = append(problems, fmt.Errorf("node %s: spec.podCIDRs: %w", n.Name, err))
				continue
			}
			r := podRoute{router.Route{Destination: to.Masked(), Gateway: nodeAddress(n, to.Addr().Is4())}, n.Name}
			if err := r.Validate(); err != nil {
				problems = append(problems, fmt.Errorf("node %s: route to %s: %w", n.Name, to, err))
				continue
			}
			if other, is := taken[r.Destination]; is {
				problems = append(problems, fmt.Errorf("node %s: node %s has %s too", n.Name, other, to))
				continue
			}
			taken[r.Destination] = n.Name
			out = append(out, r)
		}
	}
	return out, problems
}

// networks is a set of networks that is asked for single addresses.
type networks struct {
	all  map[netip.Prefix]struct{}
	bits []int // lengths that occur
}

func networksOf(prefixes []netip.Prefix) networks {
	n := networks{all: make(map[netip.Prefix]struct{}, len(prefixes))}
	for _, p := range prefixes {
		n.all[p] = struct{}{}
		n.bits = append(n.bits, p.Bits())
	}
	slices.Sort(n.bits)
	n.bits = slices.Compact(n.bits)
	return n
}

func (n networks) has(a netip.Addr) bool {
	for _, bits := range n.bits {
		if p, err := a.Prefix(bits); err == nil {
			if _, is := n.all[p]; is {
				return true
			}
		}
	}
	return false
}

// routed returns who can be reached: over the routes of the document itself, or
// those that all instances have. An instance that cannot be asked does not count.
func routed(s router.State, own []podRoute) func(netip.Addr) bool {
	var mine []netip.Prefix
	for _, r := range own {
		mine = append(mine, r.Destination)
	}
	ours := networksOf(mine)
	var theirs []networks
	for _, i := range s.Instances {
		if i.Reachable {
			theirs = append(theirs, networksOf(i.Routes))
		}
	}
	return func(a netip.Addr) bool {
		if ours.has(a) {
			return true
		}
		for _, n := range theirs {
			if !n.has(a) {
				return false
			}
		}
		return len(theirs) > 0
	}
}

// detoursOf keys detours by Service.
func detoursOf(all []detour) map[types.UID]detour {
	out := make(map[types.UID]detour, len(all))
	for _, d := range all {
		out[d.service.UID] = d
	}
	return out
}
