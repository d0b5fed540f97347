// Package gc finds what a cluster has in OpenNebula and nobody wants: holds that
// no VirtualIP is for, in reservations of the cluster, and reservations that no
// AddressPool wants. It gives them back by the rules of the
// cloud-controller-manager's sweep, for clusters in which none does it any more.
//
// Guarantees: only reservations of our OpenNebula user that have this cluster's
// name, and its identity or none, are touched; none in which a machine has an
// address, and none of OpenNebula's own cloud-controller-manager. What an owner is
// on record for is kept, unless its time is over.
// Making a plan changes nothing; applying one twice does nothing the second time.
//
// Failure: what was given back before an error stays so; make a plan again.
package gc

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/provider/one"
)

// Networks is what is needed of OpenNebula.
type Networks interface {
	// OwnNetworks lists what belongs to our user.
	OwnNetworks(ctx context.Context) ([]one.Listed, error)
	// Get reads one network.
	Get(ctx context.Context, id ipam.NetworkID) (ipam.Network, error)
	// Release ends the hold of an address.
	Release(ctx context.Context, id ipam.NetworkID, a netip.Addr) error
	// DeleteReservation gives a whole reservation back.
	DeleteReservation(ctx context.Context, id ipam.NetworkID) error
}

// Wanted is what the API server knows.
type Wanted struct {
	// Pools are the names of all AddressPools, those that are being deleted too.
	Pools []string
	// Addresses are those of all VirtualIPs, by pool.
	Addresses map[string][]Address
}

// Address is one of a VirtualIP.
type Address struct {
	netip.Addr
	// Fence: the VirtualIP stands for no hold; it only keeps the address from being given.
	Fence bool
}

// Verdict says what is to be done about something that was found.
type Verdict string

// The verdicts.
const (
	Return Verdict = "return" // it is given back
	Keep   Verdict = "keep"   // it stays; Why says why
)

// Item is something in OpenNebula that no object of the cluster is for.
type Item struct {
	// Network is the reservation; Address is invalid if the item is all of it.
	Network ipam.NetworkID `json:"network"`
	Name    string         `json:"name"`
	Pool    string         `json:"pool"`
	Address netip.Addr     `json:"address,omitzero"`
	Verdict Verdict        `json:"verdict"`
	Why     string         `json:"why"`
	// holds are those of a reservation that is to be given back.
	holds []netip.Addr
}

// key tells items apart.
func (i Item) key() string { return fmt.Sprintf("%d %s", i.Network, i.Address) }

// String names the item for people.
func (i Item) String() string {
	if i.Address.IsValid() {
		return fmt.Sprintf("hold of %s in reservation %q (%d)", i.Address, i.Name, i.Network)
	}
	return fmt.Sprintf("reservation %q (%d)", i.Name, i.Network)
}

// Plan is what was found.
type Plan struct {
	Items []Item `json:"items"` // sorted by network and address
}

// Returns counts what is to be given back.
func (p Plan) Returns() int {
	n := 0
	for _, i := range p.Items {
		if i.Verdict == Return {
			n++
		}
	}
	return n
}

// New looks. cluster and identity are this cluster's, now is for what is kept to
// a certain time.
func New(ctx context.Context, n Networks, cluster, identity string, w Wanted, now time.Time) (Plan, error) {
	if cluster == "" || identity == "" {
		return Plan{}, errors.New("gc: the cluster needs a name and an identity")
	}
	all, err := n.OwnNetworks(ctx)
	if err != nil {
		return Plan{}, err
	}
	var plan Plan
	for _, l := range all {
		pool, ok := strings.CutPrefix(l.Name, cluster+"-")
		if !ok || pool == "" || l.Parent == ipam.NoNetwork {
			continue
		}
		net, err := n.Get(ctx, l.ID)
		if errors.Is(err, ipam.ErrNotFound) {
			continue // gone meanwhile
		}
		if err != nil {
			return Plan{}, fmt.Errorf("reservation %d: %w", l.ID, err)
		}
		plan.Items = append(plan.Items, look(net, pool, identity, w, now)...)
	}
	return plan, nil
}

// look compares one reservation with what is wanted.
func look(n ipam.Network, pool, identity string, w Wanted, now time.Time) []Item {
	uid, of := n.Attributes[ipam.AttributeClusterUID], n.Attributes[ipam.AttributePool]
	whole := Item{Network: n.ID, Name: n.Name, Pool: pool, Verdict: Keep}
	wanted := slices.Contains(w.Pools, pool) || len(w.Addresses[pool]) > 0
	switch {
	case uid != "" && uid != identity:
		whole.Why = fmt.Sprintf("it is signed with the identity %s of another cluster of this name; if that is this one's predecessor, see onelbctl adopt", uid)
	case uid != "" && of != pool:
		whole.Why = fmt.Sprintf("it is signed for AddressPool %s, which is not in its name", of)
	case uid == "" && official(n):
		whole.Why = "it is that of OpenNebula's own cloud-controller-manager, with the addresses of its Services; see onelbctl migrate opennebula-ccm"
	case wanted:
		return holds(n, pool, w.Addresses[pool], now)
	case !n.Ready:
		whole.Why = "OpenNebula is at work on it (" + n.State + ")"
	default:
		whole.Verdict, whole.Why = Return, "no AddressPool and no VirtualIP wants it"
		whole.holds = whole.occupied(n)
	}
	return []Item{whole}
}

// official reports whether a reservation has ranges that OpenNebula's own
// cloud-controller-manager has named after Services.
func official(n ipam.Network) bool {
	return slices.ContainsFunc(n.Ranges, func(r ipam.Range) bool { return r.Attributes[ipam.AttributeOfficialService] != "" })
}

// occupied lists the holds of a reservation that nobody wants. Leases of others
// keep the reservation.
func (i *Item) occupied(n ipam.Network) []netip.Addr {
	var out []netip.Addr
	for _, r := range n.Ranges {
		for _, l := range r.Leases {
			if !l.Held {
				i.Verdict, i.Why = Keep, fmt.Sprintf("%s has %s of it", l.User, addressOf(l))
				return nil
			}
			out = append(out, addressOf(l))
		}
		if r.Used > len(r.Leases) {
			i.Verdict, i.Why = Keep, fmt.Sprintf("somebody whom our OpenNebula user cannot see has %d addresses of it", r.Used-len(r.Leases))
			return nil
		}
	}
	return out
}

// addressOf returns an address of a lease, the IPv4 one if there is.
func addressOf(l ipam.Lease) netip.Addr {
	if l.IP4.IsValid() {
		return l.IP4
	}
	return l.IP6
}

// holds finds those of a wanted reservation that no VirtualIP is for.
func holds(n ipam.Network, pool string, known []Address, now time.Time) []Item {
	var out []Item
	has := func(a netip.Addr) bool {
		return slices.ContainsFunc(known, func(k Address) bool { return a.IsValid() && k.Addr == a && !k.Fence })
	}
	for _, r := range n.Ranges {
		titles := ipam.ParseTitles(r.Attributes[ipam.AttributeOwners])
		for _, l := range r.Leases {
			if !l.Held || has(l.IP4) || has(l.IP6) {
				continue
			}
			item := Item{Network: n.ID, Name: n.Name, Pool: pool, Address: addressOf(l), Verdict: Return, Why: "it is on hold, and no VirtualIP is for it"}
			for _, a := range []netip.Addr{l.IP4, l.IP6} {
				if t := titles[a]; len(t.Owners) > 0 && (t.Until.IsZero() || now.Before(t.Until)) {
					item.Verdict = Keep
					item.Why = fmt.Sprintf("no VirtualIP is for it, and it is on record as that of %s: it is kept for 24 hours from the start of a cloud-controller-manager (docs/how-to/rebuild-cluster.md)", names(t.Owners))
				}
			}
			out = append(out, item)
		}
	}
	slices.SortFunc(out, func(a, b Item) int { return a.Address.Compare(b.Address) })
	return out
}

func names(owners []ipam.Owner) string {
	var out []string
	for _, o := range owners {
		out = append(out, o.Namespace+"/"+o.Name)
	}
	return strings.Join(out, ", ")
}

// Both is what is to be given back by this plan and by an earlier one: what was
// seen twice, with the grace time between, is nobody's work in progress.
func (p Plan) Both(earlier Plan) Plan {
	var out Plan
	for _, i := range p.Items {
		if i.Verdict == Return && slices.ContainsFunc(earlier.Items, func(e Item) bool { return e.Verdict == Return && e.key() == i.key() }) {
			out.Items = append(out.Items, i)
		}
	}
	return out
}

// Steps is called around each item that is given back.
type Steps struct {
	// Before may keep the item, and all that follow, from going, by an error.
	Before func(Item) error
	Done   func(Item)
}

// Apply gives back what the plan says, one item after the other.
func (p Plan) Apply(ctx context.Context, n Networks, s Steps) error {
	for _, i := range p.Items {
		if i.Verdict != Return {
			continue
		}
		if err := s.Before(i); err != nil {
			return err
		}
		if err := i.giveBack(ctx, n); err != nil {
			return fmt.Errorf("%s: %w", i, err)
		}
		s.Done(i)
	}
	return nil
}

func (i Item) giveBack(ctx context.Context, n Networks) error {
	if i.Address.IsValid() {
		return n.Release(ctx, i.Network, i.Address)
	}
	for _, a := range i.holds {
		if err := n.Release(ctx, i.Network, a); err != nil {
			return fmt.Errorf("release %s: %w", a, err)
		}
	}
	return n.DeleteReservation(ctx, i.Network)
}
