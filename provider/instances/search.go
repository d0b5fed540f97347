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

// identity is what a Node tells about its machine.
type identity struct {
	name      string
	addresses []netip.Addr
	uuid      uuid
	hasUUID   bool
}

func identify(node *corev1.Node) (identity, error) {
	addresses, err := knownIPs(node)
	id := identity{name: node.Name, addresses: addresses}
	id.uuid, id.hasUUID = parseUUID(node.Status.NodeInfo.SystemUUID)
	return id, err
}

func (id identity) byUUID(vm one.VM) bool {
	u, ok := parseUUID(vm.UUID)
	return ok && id.hasUUID && u.same(id.uuid)
}

// byName compares without case: a Node's name is in lower case, that of its
// machine need not be.
func (id identity) byName(vm one.VM) bool { return strings.EqualFold(vm.Name, id.name) }

func (id identity) byAddress(vm one.VM) bool {
	return slices.ContainsFunc(vm.NICs, func(n one.NIC) bool {
		return slices.ContainsFunc(n.Addresses, func(a netip.Addr) bool { return slices.Contains(id.addresses, a) })
	})
}

// contradicts: machine and Node have UUIDs, and different ones.
func (id identity) contradicts(vm one.VM) bool {
	_, ok := parseUUID(vm.UUID)
	return ok && id.hasUUID && !id.byUUID(vm)
}

// candidates are the machines that may be the Node's, and by what. The UUID that
// the firmware shows decides, since it is OpenNebula that gave it; copies of a
// machine may have the same one, so name and address narrow down. Without a match
// the name decides, and the address where the name does not.
func (id identity) candidates(vms []one.VM) (found []one.VM, by string) {
	if found = filter(vms, id.byUUID); len(found) > 0 {
		return narrow(found, id.byName, id.byAddress), "UUID"
	}
	if found = filter(vms, id.byName); len(found) > 0 {
		return narrow(found, id.byAddress), "name"
	}
	return filter(vms, id.byAddress), "address"
}

// narrow keeps those with a further mark where several are left and some have it.
func narrow(found []one.VM, marks ...func(one.VM) bool) []one.VM {
	for _, mark := range marks {
		if len(found) < 2 {
			break
		}
		if some := filter(found, mark); len(some) > 0 {
			found = some
		}
	}
	return found
}

// search finds the machine of a Node that has no provider ID yet. The result stays
// on the Node for ever, so a guess is worse than an error. None found is an error
// and no InstanceNotFound: there is no ID to prove it with.
func (i *Instances) search(ctx context.Context, node *corev1.Node) (one.VM, error) {
	vms, err := i.one.VMs(ctx)
	if err != nil {
		return one.VM{}, fmt.Errorf("node %s: %w", node.Name, err)
	}
	id, err := identify(node)
	if err != nil {
		return one.VM{}, err
	}
	found, by := id.candidates(vms)
	switch {
	case len(found) == 0:
		return one.VM{}, fmt.Errorf("node %s: no VM of this name%s is visible to our OpenNebula user; rename the VM or the node, or start kubelet with --provider-id=one://VMID",
			node.Name, id.others())
	case len(found) > 1:
		return one.VM{}, fmt.Errorf("node %s: several VMs have its %s: %s; start kubelet with --provider-id=%s or the like",
			node.Name, by, list(found), providerid.Format(found[0].ID))
	case found[0].Err != nil:
		return one.VM{}, fmt.Errorf("node %s: VM %d: %w", node.Name, found[0].ID, found[0].Err)
	case id.contradicts(found[0]) && !(id.byName(found[0]) && id.byAddress(found[0])):
		// Another cluster's machine may have the same name, and another network's
		// the same address. Both together are the Node's, whose system shows a
		// UUID of its own: a container, which shows its host's.
		return one.VM{}, fmt.Errorf("node %s: VM %d has its %s, but the UUID %s, and the node's system has %s: this is another machine; make the right one visible to our OpenNebula user, or start kubelet with --provider-id=%s if it is the right one all the same",
			node.Name, found[0].ID, by, found[0].UUID, node.Status.NodeInfo.SystemUUID, providerid.Format(found[0].ID))
	}
	return found[0], nil
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

// others are the marks of a Node beside its name, for messages.
func (id identity) others() string {
	var out string
	if id.hasUUID {
		u := id.uuid
		out = fmt.Sprintf(", with UUID %x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
	}
	if len(id.addresses) > 0 {
		out += " or with address " + join(id.addresses)
	}
	return out
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
