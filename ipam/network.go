package ipam

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
)

// NetworkID is the OpenNebula ID of a virtual network.
type NetworkID int

// RangeID is the ID of an address range inside one virtual network.
type RangeID int

// NoNetwork is the parent of a network that is not a reservation.
const NoNetwork NetworkID = -1

// RangeKind is the type of an address range in OpenNebula.
type RangeKind string

// The kinds of address ranges. OpenNebula makes SLAAC addresses of a prefix and
// the MAC address of the lease: consecutive MACs, consecutive addresses.
const (
	RangeIP4       RangeKind = "IP4"
	RangeIP4SLAAC  RangeKind = "IP4_6"        // pairs, if the range has a prefix
	RangeIP4IP6    RangeKind = "IP4_6_STATIC" // pairs: holding one half holds both
	RangeIP6       RangeKind = "IP6_STATIC"
	RangeIP6SLAAC  RangeKind = "IP6"
	RangeEther     RangeKind = "ETHER" // MAC addresses, and nothing for a pool
	RangeUndefined RangeKind = ""
)

// Network is one virtual network, or one reservation, as read from OpenNebula.
type Network struct {
	ID     NetworkID
	Name   string
	Owner  string    // name of the OpenNebula user who owns it
	Parent NetworkID // NoNetwork unless it is a reservation
	// Ready is false while OpenNebula is still making or deleting it; State
	// tells which, in OpenNebula's words (LOCK_CREATE, ERROR, ...).
	Ready bool
	State string
	// Attributes are the single-valued attributes of the network's template.
	Attributes map[string]string
	// Ranges are sorted by ID.
	Ranges []Range
}

// attributeFilter is OpenNebula's switch for the filter against forged
// addresses. A reservation has its own copy, and so has each NIC.
const attributeFilter = "FILTER_IP_SPOOFING"

func (n Network) filtered() bool { return strings.EqualFold(n.Attributes[attributeFilter], "YES") }

// Range is one address range: Size consecutive addresses from First4, First6 or
// both (then the n-th IPv4 and the n-th IPv6 address are a pair).
type Range struct {
	ID     RangeID
	Kind   RangeKind
	First4 netip.Addr // invalid unless the range has IPv4 addresses
	First6 netip.Addr // invalid unless the range has IPv6 addresses
	Size   int
	// Shared: any number of VMs may have one address of the range, also while it
	// is on hold. OpenNebula chooses none of its addresses by itself: Reserve
	// needs First.
	Shared bool
	// NoIPv6 says why a range has no First6 although its kind has IPv6
	// addresses; else empty.
	NoIPv6 string
	// ParentRange is the range of the parent network that a reservation's range
	// was cut from; -1 in a network that is no reservation.
	ParentRange RangeID
	// Attributes are the range's own ones that OpenNebula gives no meaning, and
	// those that get lost unless they are written again. Nil: none.
	Attributes map[string]string
	// Leases are the addresses in use, sorted by address. Leases of others may
	// be invisible to our user; Used counts them all.
	Leases []Lease
	Used   int
}

// Lease is one address, or pair of addresses, in use.
type Lease struct {
	IP4, IP6 netip.Addr // invalid if the range has none
	// Held: on hold, by nobody in particular (OpenNebula keeps no owner).
	Held bool
	// User describes a user of the address that is not a hold, for example
	// "VM 12", "VROUTER 3", "VNET 8". Empty for a hold.
	User string
}

// NetworkQuery names a network as a person does: by ID, or by name and, where
// several visible networks have that name, the owner.
type NetworkQuery struct {
	ID    *NetworkID
	Name  string
	Owner string
}

// String describes the query for people.
func (q NetworkQuery) String() string {
	switch {
	case q.ID != nil:
		return fmt.Sprintf("with ID %d", *q.ID)
	case q.Owner != "":
		return fmt.Sprintf("%q of %q", q.Name, q.Owner)
	}
	return fmt.Sprintf("%q", q.Name)
}

// ReserveRequest asks for Size consecutive addresses of Parent.
type ReserveRequest struct {
	Parent NetworkID
	// Name of the new reservation. Unique per owner in OpenNebula, and so the
	// key that makes the call idempotent: ErrExists when it is taken.
	Name string
	// Into is the existing reservation that gets the addresses as one more
	// range; NoNetwork makes a new reservation.
	Into NetworkID
	Size int
	// Range and First choose the addresses: the range of the parent (always
	// given; 0 is a range), and the first address in it. First is optional; with First, the caller has made
	// sure that Size addresses from First are inside the range (OpenNebula does
	// not check, and corrupts the parent).
	Range RangeID
	First netip.Addr
}

// Networks is what IPAM needs of OpenNebula. Every method makes at most a few
// calls with a deadline of their own and is safe for concurrent use. Errors
// wrap the sentinels of this package where one fits.
type Networks interface {
	// Find resolves a name to one visible network, with fresh ranges and
	// leases: ErrNotFound, ErrAmbiguous.
	Find(ctx context.Context, q NetworkQuery) (Network, error)
	// Get reads one network by ID, fresh: ErrNotFound.
	Get(ctx context.Context, id NetworkID) (Network, error)
	// FindReservation reads our own user's reservation by name, fresh: ErrNotFound.
	FindReservation(ctx context.Context, name string) (Network, error)
	// Reserve cuts addresses out of a network: ErrNoSpace if no range has that
	// many in one piece, ErrExists if the name is taken. The new reservation
	// may not be Ready yet. It returns the reservation's ID.
	Reserve(ctx context.Context, r ReserveRequest) (NetworkID, error)
	// FreeRange gives one range of a reservation back to its parent: ErrInUse
	// if it has leases, ErrNotFound if it is gone.
	FreeRange(ctx context.Context, id NetworkID, r RangeID) error
	// DeleteReservation gives a whole reservation back to its parent: ErrInUse
	// if it has leases, ErrNotReady while it is being made. Deleting one that is
	// gone is no error.
	DeleteReservation(ctx context.Context, id NetworkID) error
	// Annotate adds or replaces attributes in a network's template, leaving
	// all others as they are.
	Annotate(ctx context.Context, id NetworkID, attributes map[string]string) error
	// AnnotateRange sets the Attributes of one range, all of them: what is left
	// out is dropped, but for prefixes that its addresses are made of.
	// ErrNotFound if there is no such range.
	AnnotateRange(ctx context.Context, id NetworkID, r RangeID, attributes map[string]string) error
	// Hold puts one address on hold. ErrInUse: OpenNebula refuses, since the
	// address is in use, held already or not in the network: only Get tells
	// which. ErrNotReady while the reservation is being made.
	Hold(ctx context.Context, id NetworkID, a netip.Addr) error
	// Release ends the hold of one address. Releasing an address that is not on
	// hold does nothing and is no error.
	Release(ctx context.Context, id NetworkID, a netip.Addr) error
}
