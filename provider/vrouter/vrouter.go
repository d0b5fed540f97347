// Package vrouter shows OpenNebula's virtual routers to package appliance.
//
// It keeps nothing: each call is one call of OpenNebula, with the guarantees and
// errors of package one.
package vrouter

import (
	"context"
	"strings"

	"github.com/onelb/onelb/loadbalancer/appliance"
	"github.com/onelb/onelb/provider/one"
)

// Contexts are those of virtual routers' instances.
type Contexts struct{ OpenNebula *one.Client }

var _ appliance.OpenNebula = Contexts{}

// Instances implements appliance.OpenNebula.
func (c Contexts) Instances(ctx context.Context, virtualRouter int) ([]int, error) {
	return c.OpenNebula.VirtualRouterMachines(ctx, virtualRouter)
}

// Machine implements appliance.OpenNebula.
func (c Contexts) Machine(ctx context.Context, id int) (appliance.Machine, error) {
	vm, err := c.OpenNebula.VMContext(ctx, id)
	if err != nil {
		return appliance.Machine{}, err
	}
	return machine(vm), nil
}

// SetContext implements appliance.OpenNebula.
func (c Contexts) SetContext(ctx context.Context, id int, variables map[string]string) error {
	return c.OpenNebula.MergeContext(ctx, id, variables)
}

// machine says what a machine's state means for its context.
func machine(vm one.Contextualized) appliance.Machine {
	m := appliance.Machine{ID: vm.ID, State: vm.State.String(), Context: vm.Context}
	switch vm.State {
	case one.VMActive:
		m.State = vm.LCMState.String()
		m.Ready = vm.LCMState == one.LCMRunning
		m.Busy = !m.Ready && vm.LCMState != one.LCMUnknown && !strings.HasSuffix(m.State, "_FAILURE")
	case one.VMPending, one.VMHold, one.VMPowerOff, one.VMUndeployed:
		m.Ready, m.Off = true, true // it has the new context when it starts
	case one.VMCloning:
		m.Busy = true
	case one.VMDone:
		m.Gone = true
	case one.VMInit, one.VMStopped, one.VMSuspended, one.VMCloningFailure:
		m.Off = true
	}
	return m
}
