package loadbalancer

import (
	"slices"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/loadbalancer/guard"
)

// GuardPools lists the pools whose addresses nodes hold for package guard, sorted by name. False: they
// are not known yet. A pool whose object was removed by force is listed while
// guarded addresses of it are left.
func (c *Controller) GuardPools() ([]guard.Pool, bool) {
	if !c.o.Pools.HasSynced() || !c.o.Store.HasSynced() {
		return nil, false
	}
	var out []guard.Pool
	for _, obj := range c.o.Pools.GetStore().List() {
		pool, ok := obj.(*v1alpha1.AddressPool)
		if ok && (pool.Spec.Exposure == v1alpha1.ExposureL2 || routedPool(pool) || wasRouted(pool)) {
			out = append(out, c.guardPool(pool.Name, pool))
		}
	}
	for _, v := range c.o.Store.Objects(func(v *v1alpha1.VirtualIP) bool { return v.Spec.Guard != nil }) {
		if !slices.ContainsFunc(out, func(p guard.Pool) bool { return p.Name == v.Spec.Pool }) {
			out = append(out, c.guardPool(v.Spec.Pool, nil))
		}
	}
	slices.SortFunc(out, func(a, b guard.Pool) int { return compareStrings(a.Name, b.Name) })
	return out, true
}

func (c *Controller) guardPool(name string, pool *v1alpha1.AddressPool) guard.Pool {
	p := guard.Pool{Name: name, Network: int(ipam.NoNetwork), Reservation: int(ipam.NoNetwork), Guarded: true}
	if pool != nil {
		p.Guarded, p.Generation, p.Conditions = guarded(pool), pool.Generation, pool.Status.Conditions
		if p.Routed = routedPool(pool); p.Routed || wasRouted(pool) {
			return p // nodes have nothing to do with the pool's own network
		}
		if l2 := pool.Spec.L2; l2 != nil && l2.NodeSelector != nil {
			if s, err := metav1.LabelSelectorAsSelector(l2.NodeSelector); err == nil {
				p.Selector = s
			}
		}
	}
	if st, ok := c.o.Allocator.PoolStatus(name); ok {
		p.Network, p.Reservation, p.Filtered = int(st.NetworkID), int(st.ReservationID), st.SpoofingFilter
	}
	return p
}

// routedPool: nodes hold the addresses behind a router.
func routedPool(p *v1alpha1.AddressPool) bool {
	return p.Spec.Router != nil && p.Spec.Router.Forward == v1alpha1.ForwardRoute
}

// wasRouted: they did, and the pool still says whether their NICs filter.
func wasRouted(p *v1alpha1.AddressPool) bool {
	return p.Spec.Router != nil && apimeta.FindStatusCondition(p.Status.Conditions, v1alpha1.PoolSpoofingFilter) != nil
}

// SetPoolConditions takes conditions of a pool that somebody else knows about.
func (c *Controller) SetPoolConditions(pool string, conditions []metav1.Condition) {
	c.pools.mu.Lock()
	c.pools.further[pool] = conditions
	c.pools.mu.Unlock()
	c.pools.statusChanged(pool)
}
