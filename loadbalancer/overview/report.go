// Package overview is what there is and how it is, in one value: pools,
// addresses, Services that wait, agents and routers. It is made of an inventory
// and depends on that alone; what no object tells is left out.
package overview

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer"
	"github.com/onelb/onelb/loadbalancer/inventory"
	"github.com/onelb/onelb/loadbalancer/path"
)

// Report is what is shown, and what -o json and -o yaml give.
type Report struct {
	Time      time.Time       `json:"time"`
	Pools     []Pool          `json:"pools"`
	Addresses []Address       `json:"addresses"`
	Pending   []Pending       `json:"pending,omitempty"`
	Manager   *Manager        `json:"manager,omitempty"`
	Agents    []Agent         `json:"agents,omitempty"`
	Routers   []Router        `json:"routers,omitempty"`
	Gaps      []inventory.Gap `json:"gaps,omitempty"`
}

// Pool is an AddressPool.
type Pool struct {
	Name     string  `json:"name"`
	Network  string  `json:"network,omitempty"`
	Exposure string  `json:"exposure"`
	Router   string  `json:"router,omitempty"`
	Ready    bool    `json:"ready"`
	Reason   string  `json:"reason,omitempty"`
	Message  string  `json:"message,omitempty"`
	IPv4     *Counts `json:"ipv4,omitempty"`
	IPv6     *Counts `json:"ipv6,omitempty"`
}

// Counts are numbers of addresses of one family.
type Counts struct {
	Used  int64 `json:"used"`
	Free  int64 `json:"free"`
	Total int64 `json:"total"`
	Held  int64 `json:"held"`
}

// Address is a VirtualIP.
type Address struct {
	Address  string   `json:"address"`
	Pool     string   `json:"pool"`
	Role     string   `json:"role"`
	Phase    string   `json:"phase"`
	Services []string `json:"services,omitempty"`
	// KeptFor is the Service that a retained address waits for.
	KeptFor string     `json:"keptFor,omitempty"`
	Holder  string     `json:"holder,omitempty"`
	Router  string     `json:"router,omitempty"`
	Since   *time.Time `json:"since,omitempty"` // when the holder took it
	// Announcers are the nodes that announce it with BGP.
	Announcers []string `json:"announcers,omitempty"`
	// Forward is how the router forwards, and Inner the address that it forwards
	// to if that is one.
	Forward string `json:"forward,omitempty"`
	Inner   string `json:"inner,omitempty"`
	// Pods counts the ready endpoints of all its Services by node.
	Pods map[string]int `json:"pods,omitempty"`
	// Health is the state of the worst hop of the way to the pods; empty where
	// nobody is to be reached.
	Health path.State `json:"health,omitempty"`
	Why    string     `json:"why,omitempty"`
}

// Pending is a Service without address.
type Pending struct {
	Service string        `json:"service"`
	Since   time.Time     `json:"since"`
	Reasons []path.Reason `json:"reasons,omitempty"`
}

// Manager is the cloud-controller-manager.
type Manager struct {
	Leader  string `json:"leader,omitempty"`
	Leads   bool   `json:"leads"`
	Version string `json:"version,omitempty"`
	Ready   int32  `json:"ready"`
	Wanted  int32  `json:"wanted"`
}

// Agent is the node agent of one node.
type Agent struct {
	Node    string `json:"node"`
	Ready   bool   `json:"ready"`
	State   string `json:"state"`
	Version string `json:"version,omitempty"`
	// Behind: it runs another image than its DaemonSet asks for.
	Behind    bool `json:"behind,omitempty"`
	Addresses int  `json:"addresses"`
	// BGP is how many of its BGP sessions stand; nil: it has no BGP peers.
	BGP *Sessions `json:"bgp,omitempty"`
}

// Sessions counts BGP sessions.
type Sessions struct {
	Established int32 `json:"established"`
	Peers       int32 `json:"peers"`
}

// Router is a virtual router as the addresses tell of it.
type Router struct {
	Name      string `json:"name"`
	Addresses int    `json:"addresses"`
	// Waiting are the addresses that it has not acknowledged.
	Waiting int `json:"waiting"`
	// Generation is the newest in which an address was acknowledged.
	Generation int64 `json:"generation,omitempty"`
}

// New makes the report of an inventory.
func New(inv *inventory.Inventory) *Report {
	r := &Report{Time: inv.Time, Pools: []Pool{}, Addresses: []Address{}, Gaps: inv.Gaps}
	for i := range inv.Pools {
		r.Pools = append(r.Pools, pool(&inv.Pools[i]))
	}
	for i := range inv.VirtualIPs {
		r.Addresses = append(r.Addresses, address(inv, &inv.VirtualIPs[i]))
	}
	for i := range inv.Services {
		if p, ok := pending(inv, &inv.Services[i]); ok {
			r.Pending = append(r.Pending, p)
		}
	}
	r.Manager, r.Agents, r.Routers = manager(inv), agents(inv), routers(inv)
	return r
}

func pool(p *v1alpha1.AddressPool) Pool {
	out := Pool{
		Name: p.Name, Network: p.Status.NetworkName, Exposure: string(p.Spec.Exposure),
		IPv4: counts(p.Status.IPv4), IPv6: counts(p.Status.IPv6),
	}
	if p.Spec.Router != nil {
		out.Router = p.Spec.Router.Name
	}
	out.Ready, out.Reason, out.Message = inventory.Ready(p)
	return out
}

func counts(c *v1alpha1.AddressCounts) *Counts {
	if c == nil {
		return nil
	}
	return &Counts{Used: c.Used, Free: c.Free, Total: c.Total, Held: c.Held}
}

func address(inv *inventory.Inventory, v *v1alpha1.VirtualIP) Address {
	a := Address{Address: v.Spec.Address, Pool: v.Spec.Pool, Role: string(v.Spec.Role), Phase: string(v.Status.Phase)}
	if v.Status.Holder != nil {
		a.Holder, a.Since = v.Status.Holder.Name, &v.Status.Holder.Since.Time
	}
	for _, n := range v.Status.Announcers {
		a.Announcers = append(a.Announcers, n.Node)
	}
	if v.Spec.Router != nil {
		a.Router, a.Forward = v.Spec.Router.Name, string(v.Spec.Router.Forward)
	}
	if k := v.Spec.Retain; k != nil {
		a.KeptFor = fmt.Sprintf("%s/%s until %s", k.Namespace, k.Name, k.Until.UTC().Format(time.RFC3339))
	}
	for _, s := range v.Spec.Services {
		name := s.Namespace + "/" + s.Name
		a.Services = append(a.Services, name)
		worst := path.Hop{State: path.Unknown, Kind: "service", Detail: "cannot be read"}
		if svc := inv.Service(s.Namespace, s.Name); svc != nil && svc.UID == s.UID {
			worst = path.Worst(path.Of(inv, svc, v))
			a.reach(inv, svc, v)
		} else if !inv.Unread("Services") {
			worst.State, worst.Detail = path.Warning, "is gone; the address is about to be released"
		}
		if a.Health == "" || worst.State.Worse(a.Health) {
			a.Health, a.Why = worst.State, ""
			if worst.State != path.OK {
				a.Why = worst.Kind + ": " + worst.Detail
			}
		}
	}
	return a
}

// reach adds what stands behind the address for one of its Services.
func (a *Address) reach(inv *inventory.Inventory, svc *corev1.Service, v *v1alpha1.VirtualIP) {
	for node, n := range inv.Endpoints(svc, path.IPv6(v)).Nodes {
		if a.Pods == nil {
			a.Pods = map[string]int{}
		}
		a.Pods[node] += n
	}
	if a.Forward != string(v1alpha1.ForwardVIP) {
		return
	}
	if inner := path.Inner(inv, svc, v); inner != nil {
		a.Inner = inner.Spec.Address
	}
}

// pending: the Service is ours, or nobody's, and shows no address.
func pending(inv *inventory.Inventory, svc *corev1.Service) (Pending, bool) {
	if !loadbalancer.Ours(svc, inv.DefaultClass()) || len(svc.Status.LoadBalancer.Ingress) > 0 || svc.DeletionTimestamp != nil {
		return Pending{}, false
	}
	return Pending{Service: svc.Namespace + "/" + svc.Name, Since: svc.CreationTimestamp.Time, Reasons: path.Pending(inv, svc)}, true
}

func manager(inv *inventory.Inventory) *Manager {
	if inv.Manager == nil && inv.Leader == nil {
		return nil
	}
	m := &Manager{}
	m.Leader, m.Leads = inv.Leads()
	if d := inv.Manager; d != nil {
		m.Version, m.Ready, m.Wanted = inventory.Version(inventory.Image(d.Spec.Template.Spec)), d.Status.ReadyReplicas, 1
		if d.Spec.Replicas != nil {
			m.Wanted = *d.Spec.Replicas
		}
	}
	return m
}

func agents(inv *inventory.Inventory) []Agent {
	held := map[string]int{}
	for i := range inv.VirtualIPs {
		if h := inv.VirtualIPs[i].Status.Holder; h != nil {
			held[h.Name]++
		}
	}
	sessions := map[string]*Sessions{}
	for i := range inv.BGPNodes {
		if st := inv.BGPNodes[i].Status; st.Peers > 0 {
			sessions[inv.BGPNodes[i].Name] = &Sessions{Established: st.Established, Peers: st.Peers}
		}
	}
	var out []Agent
	for i := range inv.Nodes {
		name := inv.Nodes[i].Name
		a := Agent{Node: name, Addresses: held[name], State: "none", BGP: sessions[name]}
		if p := inv.AgentPod(name); p != nil {
			a.Ready, a.State, a.Version, a.Behind = inventory.PodReady(p), string(p.Status.Phase), inventory.Version(inventory.Image(p.Spec)), inventory.Behind(p, inv.Agents)
		} else if !inv.AgentsArePods() {
			continue // they do not run as pods here, and publish no more than what they hold
		}
		out = append(out, a)
	}
	return out
}

func routers(inv *inventory.Inventory) []Router {
	var out []Router
	find := func(name string) *Router {
		i := slices.IndexFunc(out, func(r Router) bool { return r.Name == name })
		if i < 0 {
			out, i = append(out, Router{Name: name}), len(out)
		}
		return &out[i]
	}
	for i := range inv.Pools {
		if r := inv.Pools[i].Spec.Router; r != nil {
			find(r.Name)
		}
	}
	for i := range inv.VirtualIPs {
		v := &inv.VirtualIPs[i]
		if v.Spec.Router == nil {
			continue
		}
		r := find(v.Spec.Router.Name)
		r.Addresses++
		if v.Status.Router == nil {
			r.Waiting++
		} else {
			r.Generation = max(r.Generation, v.Status.Router.Generation)
		}
	}
	slices.SortFunc(out, func(a, b Router) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return out
}
