package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/provider/one"
	"github.com/onelb/onelb/provider/providerid"
)

// OpenNebula is what is asked of the front-end; *one.Client has it. No call changes anything.
type OpenNebula interface {
	// Check returns the version, which needs nothing but valid credentials.
	Check(ctx context.Context) (string, error)
	Token(ctx context.Context) (one.Token, error)
	Find(ctx context.Context, q ipam.NetworkQuery) (ipam.Network, error)
	VMs(ctx context.Context) ([]one.VM, error)
}

// tokenSoon is how long before its end a login token is told of.
const tokenSoon = 7 * 24 * time.Hour

func openNebula(ctx context.Context, p *Patient) []Finding {
	about := "OpenNebula " + p.Config.Endpoint
	if _, err := p.OpenNebula.Check(ctx); err != nil {
		f := Finding{Check: "opennebula-unreachable", Severity: Error, About: about, Meaning: err.Error() + ". Addresses that are reserved ahead can be given meanwhile, and what is given goes on to answer", Remedy: "see that oned runs and that endpoint, caFile and proxy settings of the cloud-config are right"}
		if errors.Is(err, ipam.ErrUnauthenticated) {
			f.Check, f.Remedy = "opennebula-credentials", "write user:password, or user:token of a token that has not expired (oneuser token-create), to where credentials of the cloud-config points; no restart is needed"
		}
		return []Finding{f}
	}
	var out []Finding
	switch t, err := p.OpenNebula.Token(ctx); {
	case err != nil:
		out = append(out, unknown("opennebula-token", about, err.Error()))
	case !t.Expires.IsZero() && t.Expires.Sub(p.Inventory.Time) < tokenSoon:
		out = append(out, Finding{
			Check: "opennebula-token", Severity: Warning, About: about, Meaning: "the login token expires at " + t.Expires.UTC().Format(time.RFC3339) + ": then OpenNebula refuses all calls",
			Remedy: "write a new one into the credentials (oneuser token-create), no restart is needed; or use a user with a password",
		})
	}
	vms, err := p.OpenNebula.VMs(ctx)
	if err != nil {
		out = append(out, unknown("node-vm", about, err.Error()))
	}
	machines := map[string]*one.VM{} // by node
	if err == nil {
		var missing []Finding
		machines, missing = matched(p, vms)
		out = append(out, missing...)
	}
	for i := range p.Inventory.Pools {
		out = append(out, network(ctx, p, &p.Inventory.Pools[i], machines, err == nil)...)
	}
	return append(out, doubles(p, vms)...)
}

// doubles finds machines to which OpenNebula has given an address that a Service
// has: in another network with the same addresses, or by force.
func doubles(p *Patient, vms []one.VM) []Finding {
	var out []Finding
	for i := range p.Inventory.VirtualIPs {
		v := &p.Inventory.VirtualIPs[i]
		a, err := netip.ParseAddr(v.Spec.Address)
		if err != nil || len(v.Spec.Services) == 0 {
			continue
		}
		for _, vm := range vms {
			for _, c := range vm.NICs {
				if c.Alias && v.Spec.Guard != nil || !slices.Contains(c.Addresses, a) {
					continue // a candidate has it on purpose
				}
				out = append(out, Finding{
					Check: "address-doubled", Severity: Error, About: "VirtualIP " + v.Name,
					Meaning: fmt.Sprintf("VM %d (%s) has the address too, on its NIC %d in network %q: where both are on one wire, clients reach either", vm.ID, vm.Name, c.ID, c.Network),
					Remedy:  "give the VM another address (onevm nic-detach, nic-attach), or give the two networks ranges that differ",
				})
			}
		}
	}
	return out
}

// matched finds the VMs of nodes by their provider IDs.
func matched(p *Patient, vms []one.VM) (map[string]*one.VM, []Finding) {
	out := map[string]*one.VM{}
	var missing []Finding
	for i := range p.Inventory.Nodes {
		n := &p.Inventory.Nodes[i]
		id, err := providerid.Parse(n.Spec.ProviderID)
		if err != nil {
			continue // a finding of its own
		}
		k := slices.IndexFunc(vms, func(v one.VM) bool { return v.ID == id })
		if k < 0 {
			missing = append(missing, Finding{
				Check: "node-vm", Severity: Error, About: "node " + n.Name, Meaning: fmt.Sprintf("the OpenNebula user sees no VM %d, which its provider ID names: the node's state cannot be told, and it is not deleted when the VM is", id),
				Remedy: "give the user USE on the VM (oneacl create, docs/reference/opennebula-permissions.md); if the VM is gone for good, delete the Node",
			})
			continue
		}
		out[n.Name] = &vms[k]
	}
	return out, missing
}

// network looks at the network of a pool and at the nodes' NICs in it.
func network(ctx context.Context, p *Patient, a *v1alpha1.AddressPool, machines map[string]*one.VM, seen bool) []Finding {
	about := "AddressPool " + a.Name
	n, err := p.OpenNebula.Find(ctx, query(a))
	if err != nil {
		f := Finding{Check: "network", Severity: Error, About: about, Meaning: err.Error(), Remedy: "see that OpenNebula answers, and run onelbctl doctor again"}
		switch {
		case errors.Is(err, ipam.ErrNotFound):
			f.Remedy = "check spec.network, and that the OpenNebula user has USE on the network (onevnet chmod, oneacl create; docs/reference/opennebula-permissions.md); the network of a pool cannot be changed: make a new pool"
		case errors.Is(err, ipam.ErrAmbiguous):
			f.Remedy = "make a pool with spec.network.id, or with spec.network.owner"
		case errors.Is(err, ipam.ErrDenied):
			f.Remedy = "give the OpenNebula user USE on the network (docs/reference/opennebula-permissions.md)"
		}
		return []Finding{f}
	}
	if n.Parent != ipam.NoNetwork && a.Spec.Reservation != v1alpha1.ReservationNone {
		return []Finding{{
			Check: "network", Severity: Error, About: about, Meaning: fmt.Sprintf("network %q (ID %d) is a reservation itself: nothing can be reserved of it", n.Name, n.ID),
			Remedy: fmt.Sprintf("name the network that it was cut from (ID %d), or make a pool with reservation: none", n.Parent),
		}}
	}
	var out []Finding
	if !slices.ContainsFunc(n.Ranges, func(r ipam.Range) bool { return r.First4.IsValid() || r.First6.IsValid() }) {
		out = append(out, Finding{
			Check: "network-ranges", Severity: Error, About: about, Meaning: fmt.Sprintf("network %q (ID %d) has no address range with IP addresses: there is nothing to give", n.Name, n.ID),
			Remedy: "add a range of type IP4, IP6_STATIC or IP4_6_STATIC (onevnet addar); IPv6 by SLAAC needs a prefix (docs/how-to/pools.md)",
		})
	} else {
		out = append(out, outside(a, n, about)...)
	}
	if a.Spec.Exposure == v1alpha1.ExposureL2 && seen {
		out = append(out, nics(p, a, n, machines, about)...)
	}
	return out
}

// outside finds ranges of a pool that its network lacks, whole or in part.
func outside(a *v1alpha1.AddressPool, n ipam.Network, about string) []Finding {
	var out []Finding
	for _, r := range a.Spec.Ranges {
		start, err1 := netip.ParseAddr(r.Start)
		end, err2 := netip.ParseAddr(r.End)
		if err1 != nil || err2 != nil {
			continue // the API server takes none
		}
		missing, all := n.Covers(ipam.AddressRange{Start: start.Unmap(), End: end.Unmap()})
		if all {
			continue
		}
		out = append(out, Finding{
			Check: "pool-range", Severity: Warning, About: about,
			Meaning: fmt.Sprintf("network %q (ID %d) has not all addresses from %s to %s, for example not %s: the pool gives those only that it has", n.Name, n.ID, r.Start, r.End, missing),
			Remedy:  "correct spec.ranges, or add an address range to the network in OpenNebula (onevnet addar)",
		})
	}
	return out
}

func query(a *v1alpha1.AddressPool) ipam.NetworkQuery {
	q := ipam.NetworkQuery{Name: a.Spec.Network.Name, Owner: a.Spec.Network.Owner}
	if a.Spec.Network.ID != nil {
		id := ipam.NetworkID(*a.Spec.Network.ID)
		q.ID = &id
	}
	return q
}

// nics looks at the NICs that would carry the addresses of an L2 pool.
func nics(p *Patient, a *v1alpha1.AddressPool, n ipam.Network, machines map[string]*one.VM, about string) []Finding {
	var filtered, bare []string
	var out []Finding
	carriers := 0
	for i := range p.Inventory.Nodes {
		name := p.Inventory.Nodes[i].Name
		vm := machines[name]
		if vm == nil || vm.Err != nil {
			continue
		}
		k := slices.IndexFunc(vm.NICs, func(c one.NIC) bool {
			return !c.Alias && (c.NetworkID == int(n.ID) || c.ParentNetworkID == int(n.ID))
		})
		if k < 0 {
			bare = append(bare, name)
			continue
		}
		carriers++
		if vm.NICs[k].SpoofingFilter {
			filtered = append(filtered, name)
		}
		out = append(out, securityGroups(p, a, vm, vm.NICs[k], name)...)
	}
	// A pool that names interfaces may use others, OpenNebula's or not.
	if carriers == 0 && len(bare) > 0 && (a.Spec.L2 == nil || len(a.Spec.L2.Interfaces) == 0) {
		out = append(out, Finding{
			Check: "pool-without-nodes", Severity: Error, About: about, Meaning: fmt.Sprintf("no node has a NIC in network %q: nobody can answer for its addresses", n.Name),
			Remedy: "attach the nodes to the network, choose one that they are on, or put the pool behind a router (exposure: Router)",
		})
	}
	guarded := a.Spec.L2 != nil && a.Spec.L2.Guard == v1alpha1.GuardAlias
	told := apimeta.IsStatusConditionTrue(a.Status.Conditions, v1alpha1.PoolSpoofingFilter)
	if len(filtered) > 0 && !guarded && !told {
		out = append(out, Finding{
			Check: "spoofing-filter", Severity: Error, About: about, Meaning: fmt.Sprintf("OpenNebula drops what %s send from addresses of the pool (FILTER_IP_SPOOFING on their NICs)", strings.Join(filtered, ", ")),
			Remedy: "have FILTER_IP_SPOOFING turned off for the network and attach the nodes' NICs anew, or make a pool with guard: alias (docs/how-to/spoofing-filter.md)",
		})
	}
	return out
}

// securityGroups finds ports of Services of a pool that a node's NIC does not let in.
func securityGroups(p *Patient, a *v1alpha1.AddressPool, vm *one.VM, nic one.NIC, node string) []Finding {
	shut := map[string]bool{}
	for i := range p.Inventory.VirtualIPs {
		v := &p.Inventory.VirtualIPs[i]
		if v.Spec.Pool != a.Name {
			continue
		}
		for _, ref := range v.Spec.Services {
			svc := p.Inventory.Service(ref.Namespace, ref.Name)
			if svc == nil {
				continue
			}
			for _, port := range svc.Spec.Ports {
				if protocol := string(port.Protocol); !vm.Admits(nic, protocol, int(port.Port)) {
					shut[fmt.Sprintf("%d/%s", port.Port, protocol)] = true
				}
			}
		}
	}
	if !vm.Admits(nic, string(corev1.ProtocolTCP), gossipPort) || !vm.Admits(nic, string(corev1.ProtocolUDP), gossipPort) {
		shut[fmt.Sprintf("%d (gossip of the node agents, TCP and UDP)", gossipPort)] = true
	}
	if len(shut) == 0 {
		return nil
	}
	var ports []string
	for port := range shut {
		ports = append(ports, port)
	}
	slices.Sort(ports)
	return []Finding{{
		Check: "security-group", Severity: Warning, About: "node " + node,
		Meaning: fmt.Sprintf("the security groups of NIC %d of VM %d (%s) do not let in, from anywhere: %s", nic.ID, vm.ID, strings.Trim(fmt.Sprint(nic.SecurityGroups), "[]"), strings.Join(ports, ", ")),
		Remedy:  "add inbound rules for these ports to the group (onesecgroup update, then commit), or leave it as it is if only some sources are meant to get in",
	}}
}

// gossipPort is the default of the node agents.
const gossipPort = 7947
