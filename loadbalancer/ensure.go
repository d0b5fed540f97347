package loadbalancer

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/cloud-provider/api"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/loadbalancer/annotation"
	"github.com/onelb/onelb/loadbalancer/virtualip"
)

var _ cloudprovider.LoadBalancer = (*Controller)(nil)

// GetLoadBalancerName returns namespace/name of the Service: nothing in
// OpenNebula is named after a Service.
func (c *Controller) GetLoadBalancerName(_ context.Context, _ string, svc *corev1.Service) string {
	return svc.Namespace + "/" + svc.Name
}

// GetLoadBalancer reports whether anything of the Service is left: the service
// controller calls EnsureLoadBalancerDeleted only if so.
func (c *Controller) GetLoadBalancer(ctx context.Context, _ string, svc *corev1.Service) (*corev1.LoadBalancerStatus, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	if err := c.waitReady(ctx); err != nil {
		return nil, false, err
	}
	records := c.o.Store.OwnedBy(svc.UID)
	if len(records) == 0 {
		return nil, false, nil
	}
	return status(svc, records), true, nil
}

// EnsureLoadBalancer gives the Service its addresses and returns them, or
// cloudprovider.ImplementedElsewhere if its class is not ours.
func (c *Controller) EnsureLoadBalancer(ctx context.Context, _ string, svc *corev1.Service, _ []*corev1.Node) (*corev1.LoadBalancerStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	if !c.ours(svc) {
		return nil, cloudprovider.ImplementedElsewhere // bare: the library compares it
	}
	c.early.ensured(svc)
	defer c.locks.lock(svc.UID)()
	start := time.Now()
	st, err := c.ensure(ctx, svc)
	observeEnsure(start, err)
	if err == nil {
		c.events.Recovered(svc)
		return st, nil
	}
	klog.FromContext(ctx).Error(err, "Service has no load balancer yet", "service", klog.KObj(svc))
	c.events.Failed(svc, err)
	if errors.Is(err, errRefused) && !errors.Is(err, errRefusedNow) {
		return nil, err
	}
	// The library's own back-off grows to five minutes, too long for a Service
	// that waits for a pool that somebody is just making.
	return nil, api.NewRetryError(err.Error(), c.retries.after(c.o.RetryAfter))
}

func (c *Controller) ensure(ctx context.Context, svc *corev1.Service) (*corev1.LoadBalancerStatus, error) {
	if err := c.waitReady(ctx); err != nil {
		return nil, err
	}
	c.pools.WaitSettled(ctx)
	c.beginWaiting(svc)
	records, lacking, err := c.give(ctx, svc, false)
	if err != nil {
		return nil, err
	}
	c.events.Lacking(svc, lacking)
	if err := c.program(ctx, svc, records); err != nil {
		return nil, err
	}
	if err := c.releaseOthers(ctx, svc, records, false); err != nil {
		return nil, err
	}
	return status(svc, records), nil
}

// give has the Service keep, or allocates, the addresses that it has to have; it may
// be called at any time. lacking says why there are fewer than it prefers. With
// atOnce, an address that would have to be waited for is an error.
func (c *Controller) give(ctx context.Context, svc *corev1.Service, atOnce bool) (records []ipam.Record, lacking, err error) {
	have := c.o.Store.OwnedBy(svc.UID)
	wants, err := planWants(svc, c.namespaceLabels(svc.Namespace), c.pools.Views(), currentPools(slices.Concat(formerRecords(c.formers(svc)), c.o.Store.Retained(svc.Namespace, svc.Name), have)))
	if err != nil {
		return nil, nil, err
	}
	for i := range wants {
		wants[i].AtOnce = atOnce
	}
	return c.addresses(ctx, svc, wants, have)
}

// currentPools maps each family to the pool of the published address.
func currentPools(records []ipam.Record) map[ipam.Family]string {
	out := map[ipam.Family]string{}
	for _, r := range records {
		if role(r) != v1alpha1.RoleInner {
			out[familyOf(r.Address)] = r.Pool
		}
	}
	return out
}

// addresses keeps or allocates what the Service has to have: the published
// addresses, and behind each router with forward VIP an inner one. A Service that
// prefers two families is content with one while the other has no free address.
func (c *Controller) addresses(ctx context.Context, svc *corev1.Service, wants []want, have []ipam.Record) (out []ipam.Record, lacking, err error) {
	var missing []error
	for _, w := range wants {
		records, err := c.addressesOf(ctx, svc, w, have)
		if err != nil && (!mayLackFamily(svc) || len(records) > 0 || hasFamily(have, w.Family) || errors.Is(err, errRefused)) {
			return nil, nil, err
		}
		if err != nil {
			missing = append(missing, err)
		}
		out = append(out, records...)
	}
	if len(out) == 0 {
		return nil, nil, errors.Join(missing...)
	}
	return out, errors.Join(missing...), nil
}

// addressesOf keeps or allocates what the Service has to have of one family. With
// an error it returns what is allocated nevertheless, and kept for the next try.
func (c *Controller) addressesOf(ctx context.Context, svc *corev1.Service, w want, have []ipam.Record) ([]ipam.Record, error) {
	r, p, err := c.keepOrAllocate(ctx, svc, w, have, false)
	if err != nil {
		return nil, err
	}
	if p.Exposure != v1alpha1.ExposureRouter || p.Router.Forward != v1alpha1.ForwardVIP {
		return []ipam.Record{r}, nil
	}
	pool, err := c.innerPool(p)
	if err != nil {
		return []ipam.Record{r}, err
	}
	inner, _, err := c.keepOrAllocate(ctx, svc, want{Family: w.Family, Retain: w.Retain, AtOnce: w.AtOnce, Pools: []*poolView{pool}}, have, true)
	if err != nil {
		return []ipam.Record{r}, fmt.Errorf("inner address for %s: %w", r.Address, err)
	}
	return []ipam.Record{r, inner}, nil
}

func hasFamily(records []ipam.Record, f ipam.Family) bool {
	return slices.ContainsFunc(records, func(r ipam.Record) bool { return familyOf(r.Address) == f })
}

func (c *Controller) innerPool(p *poolView) (*poolView, error) {
	inner, ok := c.pools.View(p.Router.InnerPool)
	return checkInner(p, inner, ok)
}

// checkInner says why the innerPool of a pool cannot be one; not ok: there is none of its name.
func checkInner(p, inner *poolView, ok bool) (*poolView, error) {
	switch {
	case !ok:
		return nil, fmt.Errorf("%w is called %q, which is the innerPool of AddressPool %s", errNoPool, p.Router.InnerPool, p.Name)
	case inner.Exposure != v1alpha1.ExposureL2:
		return nil, refuse("innerPool %s of AddressPool %s has exposure %s: it must be L2", inner.Name, p.Name, inner.Exposure)
	}
	return inner, nil
}

func (c *Controller) keepOrAllocate(ctx context.Context, svc *corev1.Service, w want, have []ipam.Record, inner bool) (ipam.Record, *poolView, error) {
	if w.Share != "" {
		// Of Services that come at the same time, one allocates and the others join it.
		defer c.locks.lock(types.UID("share/" + w.Share))()
	}
	if r, p := keepable(w, have, inner, sameShare); p != nil {
		return c.keep(ctx, svc, w, r, p, inner)
	}
	if _, has := keepable(w, have, inner, always); has == nil {
		if r, p, err := c.takeBack(ctx, svc, w, inner); p != nil {
			return r, p, err
		}
	}
	if r, p := c.joinable(svc, w); p != nil {
		return c.join(ctx, svc, w, r, p)
	}
	if r, p := keepable(w, have, inner, alone); p != nil {
		return c.keep(ctx, svc, w, r, p, inner)
	}
	if r, p := keepable(w, c.o.Store.Retained(svc.Namespace, svc.Name), inner, always); p != nil {
		return c.comeBack(ctx, svc, w, r, p, inner)
	}
	if err := c.mayStartAnew(svc, w, inner); err != nil {
		return ipam.Record{}, nil, err
	}
	w = c.preferShown(svc, w)
	var errs []error
	for _, p := range w.Pools {
		if err := p.refusal(svc); err != nil {
			errs = append(errs, err)
			continue
		}
		r, err := c.allocate(ctx, svc, w, p, inner)
		if err == nil {
			return r, p, nil
		}
		errs = append(errs, fmt.Errorf("AddressPool %s: %w", p.Name, err))
		if ctx.Err() != nil {
			break
		}
	}
	return ipam.Record{}, nil, errors.Join(errs...)
}

// keepable returns the address that the Service keeps, and its pool; nil: none.
func keepable(w want, have []ipam.Record, inner bool, ok func(ipam.Record, want) bool) (ipam.Record, *poolView) {
	for _, p := range w.Pools {
		for _, r := range have {
			if fits(r, w, p, inner) && ok(r, w) {
				return r, p
			}
		}
	}
	return ipam.Record{}, nil
}

func (c *Controller) keep(ctx context.Context, svc *corev1.Service, w want, r ipam.Record, p *poolView, inner bool) (ipam.Record, *poolView, error) {
	if err := checkServable(svc, p); err != nil {
		return r, p, err
	}
	n, err := c.own(ctx, svc, w, r, p, inner)
	if errors.Is(err, errClash) {
		return r, p, c.withdraw(ctx, svc, r, err)
	}
	return n, p, err
}

// fits reports whether an address that the Service has is what it has to have.
func fits(r ipam.Record, w want, p *poolView, inner bool) bool {
	return r.Phase == ipam.Active && r.Pool == p.Name && familyOf(r.Address) == w.Family &&
		(role(r) == v1alpha1.RoleInner) == inner &&
		(!w.Address.IsValid() || w.Address == r.Address)
}

func role(r ipam.Record) v1alpha1.Role {
	return virtualip.DetailOf(r).Role
}

func (c *Controller) allocate(ctx context.Context, svc *corev1.Service, w want, p *poolView, inner bool) (ipam.Record, error) {
	start := time.Now()
	r, err := c.o.Allocator.Allocate(ctx, ipam.Request{
		Pool: p.Name, Family: w.Family, Want: w.Address, Prefer: w.Prefer, AtOnce: w.AtOnce,
		Owner:  ipam.Owner{Namespace: svc.Namespace, Name: svc.Name, UID: string(svc.UID)},
		Detail: detailFor(svc, w, p, inner),
	})
	if errors.Is(err, ipam.ErrTaken) && w.Address.IsValid() {
		return r, fmt.Errorf("%w; choose another one, or give both Services annotation %s with the same value", err, annotation.Share.Name)
	}
	if err != nil {
		return r, err
	}
	observeAllocate(start)
	c.events.Allocated(svc, r, inner)
	return r, nil
}

// program has the routers run what the Service needs of them, and waits for it.
func (c *Controller) program(ctx context.Context, svc *corev1.Service, records []ipam.Record) error {
	for _, r := range records {
		d := virtualip.DetailOf(r)
		if d.Router == nil {
			continue
		}
		rs := c.routers[d.Router.Name]
		if rs == nil {
			return refuse("router %q of AddressPool %s is not in the cloud-config file: add it there, or change the pool", d.Router.Name, r.Pool)
		}
		generation, err := rs.Sync(ctx)
		if err != nil {
			return err // it names the router
		}
		if err := rs.tooOldFor(svc.UID); err != nil {
			return err
		}
		if err := rs.refusal(svc, r.Address); err != nil {
			return fmt.Errorf("%w: router %s: %w", errRefusedNow, d.Router.Name, err)
		}
		if err := c.programmed(ctx, svc, r, generation); err != nil {
			return err
		}
	}
	return nil
}

// programmed records the first generation in which the router has an address.
func (c *Controller) programmed(ctx context.Context, svc *corev1.Service, r ipam.Record, generation uint64) error {
	vs := c.o.Store.Objects(func(v *v1alpha1.VirtualIP) bool { return v.Spec.Address == r.Address.String() })
	if len(vs) == 0 || vs[0].Status.Router != nil {
		return nil
	}
	if err := c.o.Store.SetRouterGeneration(ctx, r.Address, generation); err != nil {
		return err
	}
	d := virtualip.DetailOf(r)
	c.events.Programmed(svc, r.Address, d.Router.Name)
	return nil
}

// releaseOthers takes the Service off addresses that it no longer has to have.
// It comes last: what replaces them works by then.
func (c *Controller) releaseOthers(ctx context.Context, svc *corev1.Service, keep []ipam.Record, retain bool) error {
	for _, r := range c.o.Store.OwnedBy(svc.UID) {
		if slices.ContainsFunc(keep, func(k ipam.Record) bool { return k.Address == r.Address }) {
			continue
		}
		if err := c.release(ctx, svc, r.Address, retain); err != nil {
			return err
		}
	}
	return nil
}

func (c *Controller) release(ctx context.Context, svc *corev1.Service, a netip.Addr, retain bool) error {
	left, err := c.o.Store.Disown(ctx, a, svc.UID, retain)
	if err != nil {
		return err
	}
	c.events.Released(svc, a, left)
	c.VirtualIPsChanged()
	return nil
}

// UpdateLoadBalancer is called when the set of nodes has changed. The routers'
// documents follow the watched nodes by themselves, so this only makes sure
// that they look now.
func (c *Controller) UpdateLoadBalancer(context.Context, string, *corev1.Service, []*corev1.Node) error {
	c.kickRouters()
	return nil
}

// EnsureLoadBalancerDeleted takes the Service off all its addresses. That is
// durable when it returns; what has to happen to each address goes on without
// the Service.
func (c *Controller) EnsureLoadBalancerDeleted(ctx context.Context, _ string, svc *corev1.Service) error {
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	defer c.locks.lock(svc.UID)()
	if err := c.waitReady(ctx); err != nil {
		return err
	}
	c.events.Cleared(svc)
	_, retain := svc.Annotations[annotation.Retain.Name]
	return c.releaseOthers(ctx, svc, nil, retain)
}
