package instances

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/onelb/onelb/provider/one"
	"github.com/onelb/onelb/provider/providerid"
)

// search finds the machine of a Node that has no provider ID yet: by name, and
// where that does not decide, by address. The result stays on the Node for ever,
// so a guess is worse than an error. None found is an error and no
// InstanceNotFound: there is no ID to prove it with.
func (i *Instances) search(ctx context.Context, node *corev1.Node) (one.VM, error) {
	vms, err := i.one.VMs(ctx)
	if err != nil {
		return one.VM{}, fmt.Errorf("node %s: %w", node.Name, err)
	}
	wanted, err := knownIPs(node)
	if err != nil {
		return one.VM{}, err
	}
	// A Node's name is in lower case, that of its machine need not be.
	found := filter(vms, func(vm one.VM) bool { return strings.EqualFold(vm.Name, node.Name) })
	by := "name"
	if len(found) != 1 && len(wanted) > 0 {
		candidates := found
		if len(found) == 0 {
			candidates, by = vms, "address"
		}
		if same := filter(candidates, func(vm one.VM) bool { return hasAny(vm, wanted) }); len(same) > 0 {
			found = same
		}
	}
	switch len(found) {
	case 0:
		return one.VM{}, fmt.Errorf("node %s: no VM of this name%s is visible to our OpenNebula user; rename the VM or the node, or start kubelet with --provider-id=%s",
			node.Name, orAddress(wanted), "one://VMID")
	case 1:
		if found[0].Err != nil {
			return one.VM{}, fmt.Errorf("node %s: VM %d: %w", node.Name, found[0].ID, found[0].Err)
		}
		return found[0], nil
	}
	return one.VM{}, fmt.Errorf("node %s: several VMs have its %s: %s; start kubelet with --provider-id=%s or the like",
		node.Name, by, list(found), providerid.Format(found[0].ID))
}

// filter leaves out the instances of virtual routers, which are no nodes.
func filter(vms []one.VM, keep func(one.VM) bool) []one.VM {
	var out []one.VM
	for _, vm := range vms {
		if !vm.VirtualRouter && vm.State != one.VMDone && keep(vm) {
			out = append(out, vm)
		}
	}
	return out
}

func hasAny(vm one.VM, wanted []netip.Addr) bool {
	return slices.ContainsFunc(vm.NICs, func(n one.NIC) bool {
		return slices.ContainsFunc(n.Addresses, func(a netip.Addr) bool { return slices.Contains(wanted, a) })
	})
}

func orAddress(wanted []netip.Addr) string {
	if len(wanted) == 0 {
		return ""
	}
	return " or with address " + join(wanted)
}

// list names machines, sorted by ID.
func list(vms []one.VM) string {
	texts := make([]string, len(vms))
	for i, vm := range vms {
		texts[i] = fmt.Sprintf("VM %d (%s, owner %s)", vm.ID, vm.Name, vm.Owner)
	}
	return strings.Join(texts, ", ")
}

func join(addresses []netip.Addr) string {
	texts := make([]string, len(addresses))
	for i, a := range addresses {
		texts[i] = a.String()
	}
	return strings.Join(texts, ", ")
}
