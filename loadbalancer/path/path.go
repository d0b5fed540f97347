// Package path follows a packet from outside to the pods, hop by hop, through
// what the API server shows of an address. It is a reading of objects and sends
// nothing; what no object tells (what a router's checks say of a node, for
// example) is not in it. A result depends on its input alone.
package path

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/inventory"
)

// State is how a hop is.
type State string

// The states, from good to bad.
const (
	OK      State = "ok"
	Unknown State = "unknown" // what it would be told from cannot be read
	Warning State = "warning" // it works, or will soon, but is not as it should be
	Down    State = "down"    // no packet gets past it
)

var order = []State{OK, Unknown, Warning, Down}

// Worse reports whether a is worse than b.
func (s State) Worse(b State) bool { return slices.Index(order, s) > slices.Index(order, b) }

// Hop is one stage of the way.
type Hop struct {
	// Kind: address, router, inner, holder, announcers, nodes, service or endpoints.
	Kind   string     `json:"kind"`
	Name   string     `json:"name,omitempty"`
	State  State      `json:"state"`
	Detail string     `json:"detail"`
	Remedy string     `json:"remedy,omitempty"`
	Since  *time.Time `json:"since,omitempty"`
}

// Worst returns the first of the worst hops; the zero Hop with state OK if there is none.
func Worst(hops []Hop) Hop {
	worst := Hop{State: OK}
	for _, h := range hops {
		if h.State.Worse(worst.State) {
			worst = h
		}
	}
	return worst
}

// Of follows a packet to an address of a Service. Inner addresses are no way of
// their own: they are hops of the public one.
func Of(inv *inventory.Inventory, svc *corev1.Service, v *v1alpha1.VirtualIP) []Hop {
	w := way{inv: inv, svc: svc, v: v}
	w.add(w.address())
	switch {
	case v.Spec.Role == v1alpha1.RoleBGP:
		w.add(w.announcers())
	case v.Spec.Router == nil:
		if v.Spec.HeldByNode() {
			w.add(w.holder(v))
		}
	case v.Spec.Router.Forward == v1alpha1.ForwardRoute:
		w.add(w.router())
		w.add(w.holder(v))
	case v.Spec.Router.Forward == v1alpha1.ForwardVIP:
		w.add(w.router())
		w.inner()
	case v.Spec.Router.Forward == v1alpha1.ForwardPod:
		w.add(w.router()) // which goes to the pods by itself
	default:
		w.add(w.router())
		w.add(w.nodes())
	}
	w.add(w.service())
	w.add(w.endpoints())
	return w.hops
}

type way struct {
	inv  *inventory.Inventory
	svc  *corev1.Service
	v    *v1alpha1.VirtualIP
	hops []Hop
}

func (w *way) add(h Hop) { w.hops = append(w.hops, h) }

func (w *way) ipv6() bool { return IPv6(w.v) }

// IPv6 reports whether an address is one.
func IPv6(v *v1alpha1.VirtualIP) bool {
	a, err := netip.ParseAddr(v.Spec.Address)
	return err == nil && a.Is6()
}

// address: it is given, and on hold in OpenNebula.
func (w *way) address() Hop {
	v := w.v
	h := Hop{Kind: "address", Name: v.Spec.Address, State: OK, Since: &v.CreationTimestamp.Time}
	h.Detail = fmt.Sprintf("%s, of AddressPool %s", v.Status.Phase, v.Spec.Pool)
	if p := w.inv.Pool(v.Spec.Pool); p != nil && p.Status.NetworkName != "" {
		h.Detail += fmt.Sprintf(" (network %s)", p.Status.NetworkName)
	}
	if v.Status.Phase == "" {
		h.Detail = "new" + strings.TrimPrefix(h.Detail, string(v.Status.Phase))
	}
	switch c := apimeta.FindStatusCondition(v.Status.Conditions, v1alpha1.VirtualIPOnHold); {
	case c != nil && c.Status == metav1.ConditionTrue:
		h.Detail += ", on hold in OpenNebula"
	default:
		h.State, h.Detail = Warning, h.Detail+", not on hold in OpenNebula"
		if c != nil && c.Message != "" {
			h.Detail += ": " + c.Message
		}
		h.Remedy = "nothing: the hold is tried again until OpenNebula answers, and the address serves meanwhile; if it stays so, look at the condition Ready of the AddressPool"
	}
	if c := apimeta.FindStatusCondition(v.Status.Conditions, v1alpha1.VirtualIPAddressConflict); c != nil && c.Status == metav1.ConditionTrue {
		h.State, h.Detail, h.Since = Warning, h.Detail+"; another host claims it too: "+c.Message, &c.LastTransitionTime.Time
		h.Remedy = "find the host with that hardware address and take the address off it: clients may reach either"
	}
	if p := w.inv.Pool(v.Spec.Pool); p != nil {
		if c := apimeta.FindStatusCondition(p.Status.Conditions, v1alpha1.PoolSpoofingFilter); c != nil && c.Status == metav1.ConditionTrue {
			h.State, h.Detail = Down, h.Detail+"; "+c.Message
			h.Remedy = "turn FILTER_IP_SPOOFING off for the network, or use a pool with guard: alias (docs/how-to/spoofing-filter.md)"
		}
	}
	return h
}

// router: it has acknowledged a document with the address.
func (w *way) router() Hop {
	r := w.v.Spec.Router
	h := Hop{Kind: "router", Name: r.Name, State: OK}
	if w.v.Status.Router == nil {
		h.State, h.Detail = Down, "has not acknowledged the address yet"
		h.Remedy = "onelbctl doctor --cloud-config FILE asks the router's instances; the last Warning of the Service says what they refused"
		return h
	}
	h.Detail = fmt.Sprintf("forwards it (%s) since its generation %d", r.Forward, w.v.Status.Router.Generation)
	return h
}

// inner: the private address that the router forwards to, and its holder.
func (w *way) inner() {
	if v := Inner(w.inv, w.svc, w.v); v != nil {
		w.add(Hop{Kind: "inner", Name: v.Spec.Address, State: OK, Since: &v.CreationTimestamp.Time, Detail: fmt.Sprintf("the router forwards to it; of AddressPool %s", v.Spec.Pool)})
		w.add(w.holder(v))
		return
	}
	w.add(Hop{Kind: "inner", State: Down, Detail: "the router has no address to forward to", Remedy: "see the innerPool of AddressPool " + w.v.Spec.Pool})
}

// Inner is the private address that a router forwards a public one of a Service
// to, or nil.
func Inner(inv *inventory.Inventory, svc *corev1.Service, public *v1alpha1.VirtualIP) *v1alpha1.VirtualIP {
	for _, v := range inv.Owned(svc) {
		if v.Spec.Role == v1alpha1.RoleInner && IPv6(v) == IPv6(public) {
			return v
		}
	}
	return nil
}

// Way is that of a packet to one address.
type Way struct {
	Address string `json:"address"`
	Role    string `json:"role"`
	State   State  `json:"state"`
	Hops    []Hop  `json:"hops"`
}

// Ways are those to all addresses of a Service, sorted by address. Inner
// addresses have none of their own: they are hops of the public ones.
func Ways(inv *inventory.Inventory, svc *corev1.Service) []Way {
	var out []Way
	for _, v := range inv.Owned(svc) {
		if v.Spec.Role == v1alpha1.RoleInner {
			continue
		}
		hops := Of(inv, svc, v)
		out = append(out, Way{Address: v.Spec.Address, Role: string(v.Spec.Role), State: Worst(hops).State, Hops: hops})
	}
	return out
}

// holder: the node that answers for an address.
func (w *way) holder(v *v1alpha1.VirtualIP) Hop {
	h := Hop{Kind: "holder", State: OK}
	if v.Status.Holder == nil {
		return w.noHolder(v, h)
	}
	hold := v.Status.Holder
	h.Name, h.Since = hold.Name, &hold.Since.Time
	h.Detail = fmt.Sprintf("answers for %s on %s, takeover %d", v.Spec.Address, hold.Interface, hold.Epoch)
	n, pod := w.inv.Node(hold.Name), w.inv.AgentPod(hold.Name)
	switch {
	case w.inv.Unread("Nodes"):
		h.State, h.Detail = Unknown, h.Detail+"; the node's state cannot be read"
	case n == nil:
		h.State, h.Detail = Down, h.Detail+"; but there is no such node any more"
		h.Remedy = "other nodes take the address within seconds, if there is one that may; else see onelbctl doctor"
	case !inventory.NodeReady(n):
		h.State, h.Detail = Warning, h.Detail+"; the node is not Ready"
		h.Remedy = "kubectl describe node " + hold.Name
	case w.inv.AgentsArePods() && (pod == nil || !inventory.PodReady(pod)):
		h.State, h.Detail = Warning, h.Detail+"; the agent there is not ready"
		h.Remedy = "kubectl -n " + inventory.Namespace + " get pods -o wide --field-selector spec.nodeName=" + hold.Name
	case v.Spec.TrafficPolicy == v1alpha1.TrafficPolicyLocal && w.inv.Endpoints(w.svc, w.ipv6()).Nodes[hold.Name] == 0:
		h.State, h.Detail = Down, h.Detail+"; it has no ready endpoint, and externalTrafficPolicy is Local"
		h.Remedy = "wait for the address to move to a node with a ready pod, or set externalTrafficPolicy to Cluster"
	}
	return h
}

func (w *way) noHolder(v *v1alpha1.VirtualIP, h Hop) Hop {
	h.State, h.Detail = Down, "no node answers for "+v.Spec.Address
	attached := func(c v1alpha1.Candidate) bool { return c.State == v1alpha1.CandidateAttached }
	switch {
	case v.Spec.Guard != nil && !slices.ContainsFunc(v.Spec.Guard.Candidates, attached):
		h.Detail += ": it is attached to none of its candidates (guard: alias)"
		h.Remedy = "the condition Guarded of AddressPool " + v.Spec.Pool + " says what OpenNebula is at"
	case v.Spec.TrafficPolicy == v1alpha1.TrafficPolicyLocal && len(w.inv.Endpoints(w.svc, w.ipv6()).Nodes) == 0:
		h.Detail += ": externalTrafficPolicy is Local, and no node has a ready endpoint"
		h.Remedy = "kubectl -n " + w.svc.Namespace + " get pods; a node with a ready pod of the Service takes the address"
	case w.inv.AgentsArePods() && w.inv.Agents.Status.NumberReady == 0:
		h.Detail += ": no node agent is ready"
		h.Remedy = "kubectl -n " + inventory.Namespace + " describe daemonset " + inventory.Agents
	case v.Spec.NodeSelector != "":
		h.Detail += fmt.Sprintf("; AddressPool %s lets nodes with %q hold it", v.Spec.Pool, v.Spec.NodeSelector)
		h.Remedy = fmt.Sprintf("kubectl get nodes -l '%s' has to show a node with an interface in the pool's network", v.Spec.NodeSelector)
	case v.Spec.Router != nil:
		h.Remedy = "a node needs a ready agent, an interface with one of the InternalIPs of its Node object, and no label " + corev1.LabelNodeExcludeBalancers
	default:
		h.Remedy = "a node needs a ready agent, an interface in the pool's network (or one of spec.l2.interfaces), and no label " + corev1.LabelNodeExcludeBalancers
	}
	return h
}

// nodes: those that the router spreads over, by their NodePorts.
func (w *way) nodes() Hop {
	var ports []string
	for _, p := range w.svc.Spec.Ports {
		ports = append(ports, fmt.Sprintf("%d/%s → %d", p.Port, p.Protocol, p.NodePort))
	}
	h := Hop{Kind: "nodes", State: OK, Detail: "NodePorts " + strings.Join(ports, ", ")}
	if w.inv.Unread("Nodes") {
		h.State, h.Detail = Unknown, h.Detail+"; the nodes cannot be read"
		return h
	}
	local := w.svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
	with := w.inv.Endpoints(w.svc, w.ipv6()).Nodes
	total, ready := 0, 0
	for i := range w.inv.Nodes {
		n := &w.inv.Nodes[i]
		if _, excluded := n.Labels[corev1.LabelNodeExcludeBalancers]; excluded || local && with[n.Name] == 0 {
			continue
		}
		total++
		if inventory.NodeReady(n) {
			ready++
		}
	}
	h.Detail += fmt.Sprintf("; %d of %d nodes are Ready (the router checks each by itself)", ready, total)
	if ready == 0 {
		h.State, h.Remedy = Down, "the router needs a node that is Ready and not labelled "+corev1.LabelNodeExcludeBalancers
		if local {
			h.Remedy += ", with a ready endpoint (externalTrafficPolicy Local)"
		}
	}
	return h
}

// service: kube-proxy takes packets for an address only if the status has it.
func (w *way) service() Hop {
	h := Hop{Kind: "service", Name: w.svc.Namespace + "/" + w.svc.Name, State: OK}
	shown := func(i corev1.LoadBalancerIngress) bool { return i.IP == w.v.Spec.Address }
	if !slices.ContainsFunc(w.svc.Status.LoadBalancer.Ingress, shown) {
		h.State, h.Detail = Down, "its status does not show the address, so kube-proxy does not take packets for it"
		h.Remedy = "onelbctl explain service " + h.Name + " shows the last events; the cloud-controller-manager has to run and lead"
		return h
	}
	var ports []string
	for _, p := range w.svc.Spec.Ports {
		ports = append(ports, fmt.Sprintf("%d/%s → %s", p.Port, p.Protocol, p.TargetPort.String()))
	}
	h.Detail = "its status shows the address; ports " + strings.Join(ports, ", ")
	if r := w.svc.Spec.LoadBalancerSourceRanges; len(r) > 0 {
		h.Detail += "; only for sources in " + strings.Join(r, ", ")
	}
	return h
}

// endpoints: pods that can answer.
func (w *way) endpoints() Hop {
	h := Hop{Kind: "endpoints", State: OK}
	if w.inv.Unread("EndpointSlices") {
		h.State, h.Detail = Unknown, "cannot be read"
		return h
	}
	e := w.inv.Endpoints(w.svc, w.ipv6())
	h.Detail = fmt.Sprintf("%d of %d ready", e.Ready, e.Total)
	if e.Ready == 0 {
		h.State = Down
		h.Remedy = fmt.Sprintf("kubectl -n %s get pods: the Service's selector has to match pods that are Ready", w.svc.Namespace)
		return h
	}
	var on []string
	for n, count := range e.Nodes {
		if n == "" {
			n = "no node"
		}
		on = append(on, fmt.Sprintf("%s (%d)", n, count))
	}
	slices.Sort(on)
	const most = 6
	if more := len(on) - most; more > 0 {
		on = append(on[:most], fmt.Sprintf("%d more nodes", more))
	}
	h.Detail += ", on " + strings.Join(on, ", ")
	return h
}
