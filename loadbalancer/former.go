package loadbalancer

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/loadbalancer/annotation"
	"github.com/onelb/onelb/loadbalancer/virtualip"
)

// When VirtualIPs are lost, with etcd or by force, OpenNebula still says which
// Service had which address. A Service of that namespace and name gets it back.
// What it asks for now still counts: an address, a pool or families that it
// names leave out what does not fit.

// formers lists the addresses that are kept for a Service since its VirtualIPs
// were lost.
func (c *Controller) formers(svc *corev1.Service) []ipam.Former {
	return c.o.Allocator.Formers(ipam.Owner{Namespace: svc.Namespace, Name: svc.Name})
}

// formerRecords puts them into the form in which a Service's addresses come.
func formerRecords(formers []ipam.Former) []ipam.Record {
	out := make([]ipam.Record, 0, len(formers))
	for _, f := range formers {
		d := virtualip.Detail{}
		if f.Inner {
			d.Role = v1alpha1.RoleInner
		}
		out = append(out, ipam.Record{Address: f.Address, Pool: f.Pool, Detail: d})
	}
	return out
}

// takeBack gives a Service the address that it had before VirtualIPs were lost.
// Without pool it has none that fits.
func (c *Controller) takeBack(ctx context.Context, svc *corev1.Service, w want, inner bool) (ipam.Record, *poolView, error) {
	formers := c.formers(svc)
	for _, p := range w.Pools {
		for _, f := range formers {
			if f.Pool != p.Name || familyOf(f.Address) != w.Family || f.Inner != inner || w.Address.IsValid() && w.Address != f.Address {
				continue
			}
			if f.Taken {
				if r, ok := c.shares(w, f.Address); ok && fits(r, w, p, inner) {
					return c.join(ctx, svc, w, r, p)
				}
				continue
			}
			if err := checkServable(svc, p); err != nil {
				return ipam.Record{}, p, err
			}
			again := w
			again.Address = f.Address
			r, err := c.allocate(ctx, svc, again, p, inner)
			if errors.Is(err, ipam.ErrTaken) || errors.Is(err, ipam.ErrInUse) || errors.Is(err, ipam.ErrOutside) {
				continue
			}
			if err != nil {
				err = fmt.Errorf("AddressPool %s: %w", p.Name, err)
			}
			return r, p, err
		}
	}
	return ipam.Record{}, nil, nil
}

// shares returns the record of an address that Services share with the key of
// the want.
func (c *Controller) shares(w want, a netip.Addr) (ipam.Record, bool) {
	if w.Share == "" {
		return ipam.Record{}, false
	}
	all := c.o.Store.Shared(w.Share)
	i := slices.IndexFunc(all, func(r ipam.Record) bool { return r.Address == a && len(r.Owners) > 0 })
	if i < 0 {
		return ipam.Record{}, false
	}
	return all[i], true
}

// mayStartAnew makes a Service wait for pools of which it is not known yet
// whether its former address is there.
func (c *Controller) mayStartAnew(svc *corev1.Service, w want, inner bool) error {
	if inner || w.Address.IsValid() || svc.Annotations[annotation.Pool.Name] != "" {
		return nil
	}
	unread := slices.DeleteFunc(c.o.Allocator.Unread(), func(name string) bool {
		v, ok := c.pools.View(name)
		return !ok || !v.AutoAssign
	})
	if len(unread) == 0 {
		return nil
	}
	return fmt.Errorf("waiting for AddressPool %s to be compared with OpenNebula, where a former address of the Service may be kept", strings.Join(unread, ", "))
}

// preferShown has a Service whose VirtualIP is gone ask for an address that it
// still shows, first of the pool that has it.
func (c *Controller) preferShown(svc *corev1.Service, w want) want {
	if w.Address.IsValid() {
		return w
	}
	for _, i := range svc.Status.LoadBalancer.Ingress { // the published ones come first
		a, err := netip.ParseAddr(i.IP)
		if err != nil || familyOf(a) != w.Family {
			continue
		}
		has := func(p *poolView) bool { return c.o.Allocator.Reserved(p.Name, a) }
		if !slices.ContainsFunc(w.Pools, has) {
			continue
		}
		w.Prefer, w.Pools = a, slices.Clone(w.Pools)
		slices.SortStableFunc(w.Pools, func(x, y *poolView) int { return compareBool(has(y), has(x)) })
		return w
	}
	return w
}
