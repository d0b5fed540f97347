package instances

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	cloudproviderapi "k8s.io/cloud-provider/api"

	"github.com/onelb/onelb/provider/one"
)

// address is one address of a machine with what it is sorted by.
type address struct {
	kind  corev1.NodeAddressType
	rank  int // of the entry of the cloud-config that it matches
	alias bool
	nic   int
	index int // in the NIC: IPv4, IPv6 static, global, ULA
	addr  netip.Addr
}

// addresses lists those of all NICs and aliases: internal before external, in the
// order in which networks and prefixes are configured, NICs before aliases, lower
// NICs first. Consumers that want one address take the first of a type. A NIC that
// is still being attached may vanish again and is left out, and so are link-local
// addresses, which mean nothing on another link, and aliases that the guest does
// not have: they are addresses of Services.
func (r roles) addresses(vm one.VM) []address {
	var out []address
	for _, n := range vm.NICs {
		if n.Attaching || n.Alias && n.External {
			continue
		}
		for i, a := range n.Addresses {
			kind, rank, ok := r.of(n.Network, a)
			if !ok || a.IsLinkLocalUnicast() {
				continue
			}
			out = append(out, address{kind: kind, rank: rank, alias: n.Alias, nic: n.ID, index: i, addr: a})
		}
	}
	slices.SortFunc(out, func(a, b address) int {
		return cmp.Or(
			cmp.Compare(kindOrder(a.kind), kindOrder(b.kind)), cmp.Compare(a.rank, b.rank), cmp.Compare(boolOrder(a.alias), boolOrder(b.alias)),
			cmp.Compare(a.nic, b.nic), cmp.Compare(a.index, b.index), a.addr.Compare(b.addr),
		)
	})
	return out
}

func kindOrder(t corev1.NodeAddressType) int { return boolOrder(t != corev1.NodeInternalIP) }

func boolOrder(b bool) int {
	if b {
		return 1
	}
	return 0
}

// nodeAddresses makes the Node's list, without repetitions.
func nodeAddresses(addresses []address, hostname string) []corev1.NodeAddress {
	out := make([]corev1.NodeAddress, 0, len(addresses)+1)
	for _, a := range addresses {
		n := corev1.NodeAddress{Type: a.kind, Address: a.addr.String()}
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return append(out, corev1.NodeAddress{Type: corev1.NodeHostName, Address: hostname})
}

// hostname is what kubelet has reported, or the name of the Node.
func hostname(node *corev1.Node) string {
	for _, a := range node.Status.Addresses {
		if a.Type == corev1.NodeHostName && a.Address != "" {
			return a.Address
		}
	}
	return node.Name
}

// providedIPs are those of kubelet's --node-ip. They must be among the Node's
// addresses, or the library never initialises the Node.
func providedIPs(node *corev1.Node) ([]netip.Addr, error) {
	text, ok := node.Annotations[cloudproviderapi.AnnotationAlphaProvidedIPAddr]
	if !ok {
		return nil, nil
	}
	var out []netip.Addr
	for s := range strings.SplitSeq(text, ",") {
		a, err := netip.ParseAddr(strings.TrimSpace(s))
		if err != nil {
			return nil, fmt.Errorf("node %s: annotation %s: %w; correct kubelet's --node-ip",
				node.Name, cloudproviderapi.AnnotationAlphaProvidedIPAddr, err)
		}
		out = append(out, a.Unmap())
	}
	return out, nil
}

// knownIPs are the addresses by which to recognise a Node's machine: those of
// --node-ip, else the InternalIPs that kubelet reports.
func knownIPs(node *corev1.Node) ([]netip.Addr, error) {
	out, err := providedIPs(node)
	if err != nil || len(out) > 0 {
		return out, err
	}
	for _, a := range node.Status.Addresses {
		if a.Type != corev1.NodeInternalIP {
			continue
		}
		if ip, err := netip.ParseAddr(a.Address); err == nil {
			out = append(out, ip.Unmap())
		}
	}
	return out, nil
}

// missing returns which of the wanted addresses are not there.
func missing(wanted []netip.Addr, have []address) []netip.Addr {
	var out []netip.Addr
	for _, w := range wanted {
		if !slices.ContainsFunc(have, func(a address) bool { return a.addr == w }) {
			out = append(out, w)
		}
	}
	return out
}

// explain is the error for a --node-ip that is none of the Node's addresses.
func (r roles) explain(node *corev1.Node, vm one.VM, absent []netip.Addr) error {
	for _, n := range vm.NICs {
		for _, a := range n.Addresses {
			switch _, _, ok := r.of(n.Network, a); {
			case !slices.Contains(absent, a):
			case n.Attaching:
				return fmt.Errorf("node %s: kubelet's --node-ip %s is on NIC %d of VM %d, which is still being attached", node.Name, a, n.ID, vm.ID)
			case !ok:
				return fmt.Errorf("node %s: kubelet's --node-ip %s is in virtual network %q, which is in neither instances.internalNetworks nor instances.externalNetworks of the cloud-config, nor is a prefix of it: add one of both",
					node.Name, a, n.Network)
			}
		}
	}
	var have []netip.Addr
	for _, n := range vm.NICs {
		have = append(have, n.Addresses...)
	}
	return fmt.Errorf("node %s: kubelet was started with --node-ip %s, which OpenNebula has not given to VM %d %q (it has: %s); set --node-ip to one of these, or attach a NIC with that address, or, if this is the wrong VM, start kubelet with --provider-id",
		node.Name, join(absent), vm.ID, vm.Name, join(have))
}
