package provider

import (
	"context"
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	"github.com/onelb/onelb/loadbalancer"
	"github.com/onelb/onelb/loadbalancer/guard"
	"github.com/onelb/onelb/loadbalancer/virtualip"
	"github.com/onelb/onelb/provider/one"
	"github.com/onelb/onelb/provider/providerid"
)

// machines shows OpenNebula to package guard.
type machines struct{ one *one.Client }

var _ guard.OpenNebula = machines{}

// Machines implements guard.OpenNebula. Machines that cannot be read are left out.
func (m machines) Machines(ctx context.Context) ([]guard.Machine, error) {
	list, err := m.one.VMs(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]guard.Machine, 0, len(list))
	for i := range list {
		if list[i].Err == nil && !list[i].VirtualRouter {
			out = append(out, machine(list[i]))
		}
	}
	return out, nil
}

// Machine implements guard.OpenNebula.
func (m machines) Machine(ctx context.Context, id int) (guard.Machine, error) {
	vm, err := m.one.VM(ctx, id)
	if err != nil {
		return guard.Machine{}, err
	}
	return machine(vm), nil
}

// AttachAlias implements guard.OpenNebula.
func (m machines) AttachAlias(ctx context.Context, vm, network int, parent string, a netip.Addr) error {
	return m.one.AttachAlias(ctx, vm, network, parent, a)
}

// DetachNIC implements guard.OpenNebula.
func (m machines) DetachNIC(ctx context.Context, vm, nic int) error {
	return m.one.DetachNIC(ctx, vm, nic)
}

func machine(vm one.VM) guard.Machine {
	out := guard.Machine{
		ID: vm.ID, State: vm.State.String(), Gone: vm.State == one.VMDone,
		Alive:   vm.State == one.VMActive && vm.LCMState != one.LCMUnknown,
		Settled: vm.State == one.VMActive && vm.LCMState == one.LCMRunning || vm.State == one.VMPowerOff,
	}
	if vm.State == one.VMActive {
		out.State = vm.LCMState.String()
	}
	for _, n := range vm.NICs {
		out.NICs = append(out.NICs, guard.NIC{
			ID: n.ID, Name: n.Name, Alias: n.Alias, Network: n.NetworkID, Parent: n.ParentNetworkID,
			Addresses: n.Addresses, Changing: n.Attaching, Filtered: n.SpoofingFilter,
		})
	}
	return out
}

// newGuard makes the guard of the load balancer's addresses.
func newGuard(c *one.Client, p *parts, t Timing) (*guard.Controller, error) {
	return guard.New(guard.Options{
		OpenNebula: machines{c}, Store: p.store, Nodes: p.shared.Core().V1().Nodes().Informer(), MachineOf: machineOf,
		Pools: p.balancer.GuardPools, Answered: loadbalancer.MayAnswer, Active: virtualip.Active,
		Report: p.balancer.SetPoolConditions, OnEvent: p.balancer.PoolEvent, OnChange: p.balancer.VirtualIPsChanged,
		ReplaceAfter: t.Replace, Poll: t.Poll,
	})
}

func machineOf(n *corev1.Node) (int, bool) {
	id, err := providerid.Parse(n.Spec.ProviderID)
	return id, err == nil
}
