package one

import (
	"context"
	"fmt"

	"github.com/OpenNebula/one/src/oca/go/src/goca/parameters"
)

// anyButDone is the state filter of the pool calls.
const anyButDone = -1

// VMs lists the virtual machines that our user may see, but for those that are
// DONE, sorted by ID. The list is up to Options.CacheTTL old and shared: callers
// must not change it. A machine that is missing is no proof that it is gone.
func (c *Client) VMs(ctx context.Context) ([]VM, error) {
	vms, err := c.vms.get(ctx)
	if err != nil {
		return nil, fmt.Errorf("list virtual machines: %w", err)
	}
	return vms, nil
}

func (c *Client) readVMs(ctx context.Context) ([]VM, error) {
	const method = "one.vmpool.infoextended"
	body, err := c.callText(ctx, method, parameters.PoolWhoAll, -1, -1, anyButDone)
	if err != nil {
		return nil, err
	}
	vms, err := parseVMPool([]byte(body))
	if err != nil {
		return nil, c.malformed(method, err)
	}
	return vms, nil
}

// VM reads one virtual machine by ID, fresh. A machine that was terminated is
// DONE or, once OpenNebula has forgotten it, ipam.ErrNotFound.
func (c *Client) VM(ctx context.Context, id int) (VM, error) {
	const method = "one.vm.info"
	body, err := c.callText(ctx, method, id, false)
	if err != nil {
		return VM{}, fmt.Errorf("read virtual machine %d: %w", id, err)
	}
	vm, err := parseVM([]byte(body))
	if err == nil && vm.ID != id {
		err = fmt.Errorf("it describes VM %d", vm.ID)
	}
	if err != nil {
		return VM{}, fmt.Errorf("read virtual machine %d: %w", id, c.malformed(method, err))
	}
	return vm, nil
}
