package one

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
)

// AttachAlias asks OpenNebula to attach an address of a network to a NIC of a
// machine, as an alias that is not configured in the guest. Success says that it
// was asked, no more: the machine is in HOTPLUG_NIC until the driver is done,
// and if the driver fails the alias just vanishes. Read the machine.
// ipam.ErrNotReady: the machine is in a state in which it takes no NICs;
// ipam.ErrInUse: the network does not have the address free (no matter for
// how many have it, in a range with SHARED="YES"); ipam.ErrNotFound: no such
// machine, or no NIC of the name parent.
func (c *Client) AttachAlias(ctx context.Context, vm, network int, parent string, a netip.Addr) error {
	which, err := addressAttribute(a)
	if err != nil {
		return fmt.Errorf("attach an alias to virtual machine %d: %w", vm, err)
	}
	template, err := encodeTemplate(attribute{name: "NIC_ALIAS", members: []attribute{
		{name: "NETWORK_ID", value: strconv.Itoa(network)}, {name: "PARENT", value: parent}, which, {name: "EXTERNAL", value: "YES"},
	}})
	if err == nil {
		_, err = c.callID(ctx, "one.vm.attachnic", vm, template)
	}
	if err != nil {
		return fmt.Errorf("attach %s of virtual network %d to NIC %s of virtual machine %d: %w", a, network, parent, vm, err)
	}
	return nil
}

// DetachNIC asks OpenNebula to detach a NIC or alias; success says no more than
// that of AttachAlias. NIC IDs are used again: read the machine just before.
// ipam.ErrNotReady as above; ipam.ErrNotFound: no such machine or NIC.
func (c *Client) DetachNIC(ctx context.Context, vm, nic int) error {
	if _, err := c.callID(ctx, "one.vm.detachnic", vm, nic); err != nil {
		return fmt.Errorf("detach NIC %d from virtual machine %d: %w", nic, vm, err)
	}
	return nil
}
