package migrate

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/loadbalancer/inventory"
)

// metalPlan is all that is planned from.
type metalPlan struct {
	metal
	inv       *inventory.Inventory
	workloads []inventory.Workload
	networks  []ipam.Network
	// named are the operator's choices of networks by pool; "" is for all others.
	named map[string]string
}

// make plans. It reads nothing.
func (m *metalPlan) make() Plan {
	out := Plan{From: "MetalLB"}
	class := ""
	for _, w := range m.workloads {
		if w.Wanted > 0 && w.Runs(metalController) {
			out.Running = append(out.Running, fmt.Sprintf("%s (kubectl -n %s scale %s %s --replicas=0)", w, w.Namespace, strings.ToLower(w.Kind), w.Name))
		}
		if w.Wanted > 0 && w.Runs(metalSpeaker) {
			out.Answering = append(out.Answering, fmt.Sprintf("%s (kubectl -n %s delete %s %s)", w, w.Namespace, strings.ToLower(w.Kind), w.Name))
		}
		if w.Runs(metalController) || w.Runs(metalSpeaker) {
			if c := w.Value("--lb-class="); c != "" {
				class = c
			}
		}
	}
	out.Services = m.services(m.inv, class)
	for i := range m.pools {
		p := &m.pools[i]
		out.Pools = append(out.Pools, m.pool(p, out.Services))
	}
	for i := range out.Services {
		m.check(&out, &out.Services[i])
	}
	out.Problems = append(out.Problems, takers(m.inv, &out)...)
	out.Problems = append(out.Problems, hasty(m.inv, &out)...)
	out.Afterwards = []string{
		"remove MetalLB as it was installed (helm uninstall, or kubectl delete -f of its manifest): onelb has the addresses now",
		"remove the annotations metallb.io/… and metallb.universe.tf/… from your manifests, and put those of onelb there",
	}
	out.sort()
	return out
}

// pool plans one AddressPool, with its network.
func (m *metalPlan) pool(p *metalPool, services []Service) Pool {
	if there := m.inv.Pool(p.Name); there != nil {
		return Pool{Name: p.Name, Spec: there.Spec, There: true, AutoAssign: migrating(there)}
	}
	out := m.convert(p, m.inv.Namespaces)
	out.Spec.ShareAcrossNamespaces = across(services, p.Name)
	var used []netip.Addr
	for _, s := range services {
		for _, a := range s.Addresses {
			if q := m.poolOf(a); q != nil && q.Name == p.Name {
				used = append(used, a)
			}
		}
	}
	named := m.named[p.Name]
	if named == "" {
		named = m.named[""]
	}
	n, err := locate(m.networks, named, p.ranges, used)
	if err != nil {
		out.problem("%v", err)
		return out
	}
	out.Spec.Network = reference(m.networks, n)
	for _, r := range p.ranges {
		if missing, all := n.Covers(r); !all {
			out.note("network %q has not all addresses from %s to %s, for example not %s: the pool gives those only that it has (onevnet addar adds more)", n.Name, r.Start, r.End, missing)
		}
	}
	return out
}

// reference names a network by its name, if that is enough.
func reference(all []ipam.Network, n *ipam.Network) v1alpha1.NetworkReference {
	same := 0
	for _, o := range all {
		if o.Name == n.Name {
			same++
		}
	}
	if same == 1 {
		return v1alpha1.NetworkReference{Name: n.Name}
	}
	id := int32(n.ID) //nolint:gosec // OpenNebula's IDs are small
	return v1alpha1.NetworkReference{ID: &id}
}

// check makes sure that OpenNebula can give a Service's addresses to onelb.
func (m *metalPlan) check(plan *Plan, s *Service) {
	if s.Done {
		return
	}
	for _, a := range s.Addresses {
		p := m.poolOf(a)
		if p == nil {
			continue // said
		}
		pool := plan.pool(p.Name)
		if len(pool.Problems) > 0 && s.Pool != p.Name { // it has addresses of several pools, or names another
			s.Problems = append(s.Problems, fmt.Sprintf("AddressPool %s, which has its %s, cannot be made", p.Name, a))
			continue
		}
		n := m.network(pool)
		if n == nil {
			continue // the pool says why
		}
		reservation := ipam.NoNetwork
		if there := m.inv.Pool(p.Name); there != nil && there.Status.ReservationID != nil {
			reservation = ipam.NetworkID(*there.Status.ReservationID)
		}
		if why := freeFor(n, a, reservation); why != "" {
			s.Problems = append(s.Problems, why)
		}
	}
	if s.Pool != "" && plan.pool(s.Pool) == nil && m.inv.Pool(s.Pool) == nil {
		s.Problems = append(s.Problems, fmt.Sprintf("it names the pool %s, which is not there", s.Pool))
	}
}

// network finds that of a planned pool, or nil.
func (m *metalPlan) network(p *Pool) *ipam.Network {
	for i := range m.networks {
		n := &m.networks[i]
		ref := p.Spec.Network
		if ref.ID != nil && int(*ref.ID) == int(n.ID) || ref.ID == nil && ref.Name == n.Name && (ref.Owner == "" || ref.Owner == n.Owner) {
			return n
		}
	}
	return nil
}

// takers are pools that would give Services other addresses before their turn.
func takers(inv *inventory.Inventory, plan *Plan) []string {
	open, _ := plan.Left()
	if open == 0 {
		return nil
	}
	var out []string
	for i := range inv.Pools {
		p := &inv.Pools[i]
		if (p.Spec.AutoAssign == nil || *p.Spec.AutoAssign) && !p.Spec.Draining {
			out = append(out, fmt.Sprintf("AddressPool %s gives addresses to Services that name none, and would do so to those that are to keep theirs: kubectl patch pool %[1]s --type merge -p '{\"spec\":{\"autoAssign\":false}}', until all are moved", p.Name))
		}
	}
	return out
}

// hasty are Services without address that ask in their spec for one which another
// Service shows: onelb reads that too, and does not wait for their turn.
func hasty(inv *inventory.Inventory, plan *Plan) []string {
	var out []string
	users := sharers(inv)
	for _, s := range plan.Services {
		svc := inv.Service(s.Namespace, s.Name)
		a, err := netip.ParseAddr(svc.Spec.LoadBalancerIP)
		if err != nil || len(s.Addresses) > 0 || svc.Spec.LoadBalancerClass != nil {
			continue
		}
		for _, o := range users[a.Unmap()] {
			if !inv.Owns(o, a.Unmap()) {
				out = append(out, fmt.Sprintf("Service %s asks for %s with spec.loadBalancerIP, which Service %s/%s has, and would get it of onelb: take that off it, until all are moved", s.Key(), a, o.Namespace, o.Name))
			}
		}
	}
	return out
}
