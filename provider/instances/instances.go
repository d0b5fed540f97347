// Package instances implements cloudprovider.InstancesV2: it tells the node
// controllers which virtual machine a Node is, whether that still exists, and
// its addresses, size and place.
//
// Guarantees. A Node's machine is only said not to exist after a fresh read by
// ID that says DONE or no such machine, since the node controller then deletes
// the Node. Wrong credentials, missing rights, an unreachable OpenNebula, an
// ambiguous name and a machine that is merely not listed are errors. Results
// have a stable order. One list of all machines, read by one call at a time and
// kept for a few seconds, serves any number of Nodes.
//
// Failure: errors name the Node or machine and say what an operator can do;
// InstanceMetadata never returns nil without one.
package instances

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	cloudprovider "k8s.io/cloud-provider"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/provider/one"
	"github.com/onelb/onelb/provider/providerid"
)

// OpenNebula is what this package asks. *one.Client implements it.
type OpenNebula interface {
	// VMs lists the visible machines but DONE ones. It may be a few seconds
	// old, and a machine that is missing may still exist.
	VMs(ctx context.Context) ([]one.VM, error)
	// VM reads one machine, fresh: ipam.ErrNotFound if there is none.
	VM(ctx context.Context, id int) (one.VM, error)
	// ClusterName is ipam.ErrNotFound if our user may not see the cluster.
	ClusterName(ctx context.Context, id int) (string, error)
	// ZoneName names the OpenNebula zone.
	ZoneName(ctx context.Context) (string, error)
}

// Options configures Instances.
type Options struct {
	OpenNebula OpenNebula
	// InternalNetworks name the virtual networks whose addresses are of type
	// InternalIP, in the order of preference. Empty: all that are not external.
	InternalNetworks []string
	// ExternalNetworks name those whose addresses are of type ExternalIP.
	ExternalNetworks []string
	// Region of all nodes. Empty: the name of the OpenNebula zone.
	Region string
}

// Instances implements cloudprovider.InstancesV2.
type Instances struct {
	one    OpenNebula
	roles  roles
	region string
}

var _ cloudprovider.InstancesV2 = (*Instances)(nil)

// New makes Instances. It makes no calls.
func New(o Options) (*Instances, error) {
	if o.OpenNebula == nil {
		return nil, errors.New("instances: no OpenNebula client")
	}
	return &Instances{
		one: o.OpenNebula, region: o.Region,
		roles: roles{internal: o.InternalNetworks, external: o.ExternalNetworks},
	}, nil
}

// InstanceExists implements cloudprovider.InstancesV2.
func (i *Instances) InstanceExists(ctx context.Context, node *corev1.Node) (bool, error) {
	_, err := i.find(ctx, node)
	if errors.Is(err, cloudprovider.InstanceNotFound) {
		return false, nil
	}
	return err == nil, err
}

// InstanceShutdown implements cloudprovider.InstancesV2.
//
// True means that no process runs the machine, so that its volumes may be
// attached elsewhere. It is said only where OpenNebula is sure of it:
//
//	INIT, PENDING, HOLD           not started yet        true
//	CLONING, CLONING_FAILURE      not started yet        true
//	STOPPED, SUSPENDED            saved to disk          true
//	POWEROFF, UNDEPLOYED          shut down              true
//	ACTIVE, whatever LCM_STATE    runs, or may run       false
//	DONE                          gone                   error, InstanceNotFound
//	any other                     of a later OpenNebula  error
//
// ACTIVE includes UNKNOWN (its host does not answer), failures such as
// BOOT_FAILURE, and the way to another state, such as SHUTDOWN_POWEROFF.
func (i *Instances) InstanceShutdown(ctx context.Context, node *corev1.Node) (bool, error) {
	vm, err := i.find(ctx, node)
	if err != nil {
		return false, err
	}
	switch vm.State {
	case one.VMActive:
		return false, nil
	case one.VMInit, one.VMPending, one.VMHold, one.VMCloning, one.VMCloningFailure,
		one.VMStopped, one.VMSuspended, one.VMPowerOff, one.VMUndeployed:
		return true, nil
	case one.VMDone:
		return false, fmt.Errorf("node %s: VM %d is DONE: %w", node.Name, vm.ID, cloudprovider.InstanceNotFound)
	}
	return false, fmt.Errorf("node %s: VM %d is in state %s, which this release does not know", node.Name, vm.ID, vm.State)
}

// InstanceMetadata implements cloudprovider.InstancesV2.
func (i *Instances) InstanceMetadata(ctx context.Context, node *corev1.Node) (*cloudprovider.InstanceMetadata, error) {
	vm, err := i.find(ctx, node)
	if err != nil {
		return nil, err
	}
	wanted, err := providedIPs(node)
	if err != nil {
		return nil, err
	}
	addresses := i.roles.addresses(vm)
	if len(missing(wanted, addresses)) > 0 {
		// The list may be older than the NIC.
		if vm, err = i.read(ctx, node, vm.ID); err != nil {
			return nil, err
		}
		addresses = i.roles.addresses(vm)
	}
	if absent := missing(wanted, addresses); len(absent) > 0 {
		return nil, i.roles.explain(node, vm, absent)
	}
	zone, err := i.zone(ctx, vm)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", node.Name, err)
	}
	region, err := i.regionName(ctx)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", node.Name, err)
	}
	return &cloudprovider.InstanceMetadata{
		ProviderID:    providerid.Format(vm.ID),
		InstanceType:  instanceType(vm),
		NodeAddresses: nodeAddresses(addresses, hostname(node)),
		Zone:          zone,
		Region:        region,
	}, nil
}

// find returns the machine of a Node. The error is InstanceNotFound only if the
// Node has a provider ID and OpenNebula has just said that there is no such
// machine any more.
func (i *Instances) find(ctx context.Context, node *corev1.Node) (one.VM, error) {
	if node.Spec.ProviderID == "" {
		return i.search(ctx, node)
	}
	id, err := providerid.Parse(node.Spec.ProviderID)
	if err != nil {
		return one.VM{}, fmt.Errorf("node %s: %w", node.Name, err)
	}
	vms, err := i.one.VMs(ctx)
	if err != nil {
		return one.VM{}, fmt.Errorf("node %s: %w", node.Name, err)
	}
	for _, vm := range vms {
		if vm.ID == id && vm.Err == nil && vm.State != one.VMDone {
			return vm, nil
		}
	}
	return i.read(ctx, node, id)
}

// read asks for one machine by ID.
func (i *Instances) read(ctx context.Context, node *corev1.Node, id int) (one.VM, error) {
	vm, err := i.one.VM(ctx, id)
	switch {
	case errors.Is(err, ipam.ErrNotFound):
		return one.VM{}, fmt.Errorf("node %s: %w: OpenNebula has no VM %d", node.Name, cloudprovider.InstanceNotFound, id)
	case err != nil:
		return one.VM{}, fmt.Errorf("node %s: %w", node.Name, err)
	case vm.State == one.VMDone:
		return one.VM{}, fmt.Errorf("node %s: %w: VM %d is DONE", node.Name, cloudprovider.InstanceNotFound, id)
	}
	return vm, nil
}
