package doctor

import (
	"context"
	"slices"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/inventory"
	"github.com/onelb/onelb/provider/config"
	"github.com/onelb/onelb/provider/one"
)

// NewPool is a pool that is about to be made, and where.
type NewPool struct {
	Pool       *v1alpha1.AddressPool
	Inventory  *inventory.Inventory
	Config     *config.Config
	OpenNebula OpenNebula
}

// Examine finds what would be wrong with the pool, as `onelbctl doctor` would
// once it is there. Changes nothing.
func (n NewPool) Examine(ctx context.Context) []Finding {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	p := &Patient{Inventory: n.Inventory, Config: n.Config, OpenNebula: n.OpenNebula}
	out := references(p, n.Pool, "AddressPool "+n.Pool.Name)
	vms, err := n.OpenNebula.VMs(ctx)
	machines := map[string]*one.VM{}
	if err != nil {
		out = append(out, unknown("node-vm", "OpenNebula "+n.Config.Endpoint, err.Error()))
	} else {
		machines, _ = matched(p, vms) // what is wrong with nodes is not the pool's affair
	}
	out = append(out, network(ctx, p, n.Pool, machines, err == nil)...)
	slices.SortStableFunc(out, compare)
	return out
}
