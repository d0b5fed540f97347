package provider

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"k8s.io/klog/v2"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/loadbalancer/appliance"
	"github.com/onelb/onelb/provider/config"
	"github.com/onelb/onelb/provider/vrouter"
)

// appliance are the options of one router's client.
func (c *Cloud) appliance(name string, virtualRouter int, id string, token uint64) appliance.Options {
	return appliance.Options{
		Router: name, VirtualRouter: virtualRouter, Cluster: c.config.Cluster, Identity: id, Token: token,
		OpenNebula: vrouter.Contexts{OpenNebula: c.one}, Gather: c.timing.Gather, Recheck: c.timing.Recheck,
	}
}

// withdrawLeftovers takes back what this cluster has on virtual routers that are no
// appliances of its cloud-config any more. It looks once: that file is read at the start.
func (c *Cloud) withdrawLeftovers(ctx context.Context, p *parts) {
	var left []int
	err := retry(ctx, "virtual routers that are no longer in the cloud-config", func(ctx context.Context) (err error) {
		left, err = c.leftovers(ctx, p.identity)
		return err
	})
	if err != nil {
		return // ctx has ended
	}
	var wg sync.WaitGroup
	for _, id := range left {
		o := c.appliance(fmt.Sprintf("virtual-router-%d", id), id, p.identity, p.token)
		klog.FromContext(ctx).Info("Taking everything of this cluster off a virtual router that the cloud-config does not name as appliance", "virtualRouter", id)
		wg.Go(func() {
			if err := appliance.Withdraw(ctx, o); err != nil && ctx.Err() == nil {
				klog.FromContext(ctx).Error(err, "Cannot take everything of this cluster off a virtual router", "virtualRouter", id)
			}
		})
	}
	wg.Wait()
}

// leftovers lists them.
func (c *Cloud) leftovers(ctx context.Context, identity string) ([]int, error) {
	vms, err := c.one.VMs(ctx)
	if err != nil {
		return nil, err
	}
	var out []int
	for _, v := range vms {
		if !v.VirtualRouter {
			continue
		}
		vm, err := c.one.VMContext(ctx, v.ID)
		if errors.Is(err, ipam.ErrNotFound) {
			continue // it has gone since it was listed
		}
		if err != nil {
			return nil, err
		}
		ours := slices.ContainsFunc(c.config.Routers, func(r config.Router) bool {
			return r.Driver == config.DriverAppliance && r.VirtualRouter == vm.VirtualRouterID
		})
		if !ours && vm.VirtualRouterID >= 0 && appliance.Signed(identity, vm.Context) {
			out = append(out, vm.VirtualRouterID)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}
