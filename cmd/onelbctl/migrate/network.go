package migrate

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/onelb/onelb/cmd/onelbctl/term"
	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/provider/one"
)

// Networks is what is read of OpenNebula.
type Networks interface {
	// Networks lists what our user may use.
	Networks(ctx context.Context) ([]one.Listed, error)
	// Get reads one, with ranges and leases.
	Get(ctx context.Context, id ipam.NetworkID) (ipam.Network, error)
}

// readNetworks reads the networks that addresses can be reserved from, sorted by ID.
func readNetworks(ctx context.Context, progress *term.Progress, n Networks) ([]ipam.Network, error) {
	defer progress.Clear()
	list, err := n.Networks(ctx)
	if err != nil {
		return nil, err
	}
	var out []ipam.Network
	for i, l := range list {
		if l.Parent != ipam.NoNetwork {
			continue
		}
		progress.Show("Reading virtual network %d of %d", i+1, len(list))
		net, err := n.Get(ctx, l.ID)
		if err != nil {
			return nil, err
		}
		out = append(out, net)
	}
	return out, nil
}

// locate finds the network of a pool: the one that the operator has named, or the
// one that has most of the addresses in use, or, without any, a range of the pool.
func locate(networks []ipam.Network, named string, ranges []ipam.AddressRange, used []netip.Addr) (*ipam.Network, error) {
	if named != "" {
		i := slices.IndexFunc(networks, func(n ipam.Network) bool { return n.Name == named || fmt.Sprint(n.ID) == named })
		if i < 0 {
			return nil, fmt.Errorf("--network says %q, and the OpenNebula user sees no network of that name or ID that is no reservation", named)
		}
		return &networks[i], nil
	}
	var fit []*ipam.Network
	var names []string
	most := 0
	for i := range networks {
		n := &networks[i]
		has := 0
		for _, a := range used {
			if _, all := n.Covers(ipam.AddressRange{Start: a, End: a}); all {
				has++
			}
		}
		if len(used) == 0 && slices.ContainsFunc(ranges, func(r ipam.AddressRange) bool { _, all := n.Covers(r); return all }) {
			has = 1
		}
		if has > most {
			most, fit, names = has, nil, nil
		}
		if has > 0 && has == most {
			fit, names = append(fit, n), append(names, fmt.Sprintf("%q (%d)", n.Name, n.ID))
		}
	}
	switch len(fit) {
	case 1:
		return fit[0], nil
	case 0:
		what := texts(used)
		if len(used) == 0 {
			what = rangeTexts(ranges)
		}
		return nil, fmt.Errorf("no virtual network that the OpenNebula user sees has %s: add an address range to the nodes' network (onevnet addar NETWORK --ip FIRST --size N), or name one with --network", what)
	}
	return nil, fmt.Errorf("several virtual networks have these addresses: name one with --network POOL=NETWORK: %s", strings.Join(names, ", "))
}

func texts(addrs []netip.Addr) string {
	out := make([]string, len(addrs))
	for i, a := range addrs {
		out[i] = a.String()
	}
	return strings.Join(out, ", ")
}

func rangeTexts(ranges []ipam.AddressRange) string {
	out := make([]string, len(ranges))
	for i, r := range ranges {
		out[i] = r.Start.String() + "-" + r.End.String()
	}
	return strings.Join(out, ", ")
}

// freeFor says why an address cannot be reserved for onelb; empty if it can, or is.
// reservation is the ID of the pool's own reservation, or ipam.NoNetwork.
func freeFor(n *ipam.Network, a netip.Addr, reservation ipam.NetworkID) string {
	if _, has := n.Covers(ipam.AddressRange{Start: a, End: a}); !has {
		return fmt.Sprintf("network %q (%d) has no address range with %s: add one (onevnet addar)", n.Name, n.ID, a)
	}
	switch user := n.User(a); user {
	case "", fmt.Sprintf("VNET %d", reservation):
		return ""
	case "a hold":
		return fmt.Sprintf("%s is on hold in network %q, by hand as it seems: release it right before --apply (onevnet release %d %[1]s), so that onelb can reserve it", a, n.Name, n.ID)
	default:
		return fmt.Sprintf("%s is used by %s in network %q (%d): make it free there", a, user, n.Name, n.ID)
	}
}
