package ipam

import (
	"errors"
	"fmt"
)

// Reasons of a pool's status.
const (
	ReasonReserved           = "Reserved"           // ready
	ReasonPending            = "Pending"            // not looked at yet
	ReasonInvalid            = "Invalid"            // the pool's own settings
	ReasonNetworkNotFound    = "NetworkNotFound"    // no such network, or invisible
	ReasonNetworkAmbiguous   = "NetworkAmbiguous"   // several have the name
	ReasonNetworkUnusable    = "NetworkUnusable"    // nothing in it can be given
	ReasonForeignReservation = "ForeignReservation" // another cluster's
	ReasonWrongParent        = "WrongParent"        // cut from another network
	ReasonNoFreeAddresses    = "NoFreeAddresses"    // cannot reserve even one
	ReasonDenied             = "Denied"             // a right or quota is missing
	ReasonUnauthenticated    = "Unauthenticated"    // credentials refused
	ReasonUnavailable        = "Unavailable"        // OpenNebula does not answer
	ReasonReserving          = "Reserving"          // OpenNebula is still at it
	ReasonDraining           = "Draining"           // gives nothing new, keeps what it has
	ReasonLeaving            = "Leaving"            // removed, still has addresses
	ReasonRemoved            = "Removed"            // removed, reservation is back
	ReasonError              = "Error"              // anything else
)

// Counts counts the addresses of one family of a pool.
type Counts struct {
	// Total is what the pool could give in all: reserved addresses, and what
	// was free in the network when it was last read.
	Total int
	// Reserved is how many of them are in our reservation.
	Reserved int
	// Used is how many have a record, quarantine included.
	Used int
	// Held is how many are on hold in OpenNebula.
	Held int
	// Free is Total less Used, never negative.
	Free int
	// Quarantined is how many of Used are in quarantine.
	Quarantined int
}

// PoolStatus is what is known of a pool. It is comparable.
type PoolStatus struct {
	Name string
	// Generation is the PoolSpec.Generation that this is about.
	Generation int64
	// Ready: the pool can give addresses. It stays true while OpenNebula is
	// away, since reserved addresses do not need it; Reason then tells.
	Ready   bool
	Reason  string
	Message string
	// NetworkID and ReservationID are NoNetwork while unknown.
	NetworkID     NetworkID
	NetworkName   string
	ReservationID NetworkID
	IPv4, IPv6    Counts
}

// Counts returns the counts of a family.
func (s PoolStatus) Counts(f Family) Counts {
	if f == IPv6 {
		return s.IPv6
	}
	return s.IPv4
}

// reasonOf translates an error to a reason.
func reasonOf(err error) string {
	for _, c := range []struct {
		err    error
		reason string
	}{
		{ErrLeaving, ReasonLeaving},
		{ErrUnusable, ReasonNetworkUnusable},
		{ErrForeign, ReasonForeignReservation},
		{ErrWrongParent, ReasonWrongParent},
		{ErrAmbiguous, ReasonNetworkAmbiguous},
		{ErrNotFound, ReasonNetworkNotFound},
		{ErrNoSpace, ReasonNoFreeAddresses},
		{ErrDenied, ReasonDenied},
		{ErrUnauthenticated, ReasonUnauthenticated},
		{ErrUnavailable, ReasonUnavailable},
		{ErrNotReady, ReasonReserving},
		{ErrExists, ReasonReserving},
	} {
		if errors.Is(err, c.err) {
			return c.reason
		}
	}
	return ReasonError
}

// passing reports whether the error says nothing about the reservation: what
// was known of it remains true.
func passing(err error) bool {
	for _, e := range []error{ErrForeign, ErrWrongParent, ErrUnusable, ErrAmbiguous, ErrNotFound} {
		if errors.Is(err, e) {
			return false
		}
	}
	return true
}

// status describes the pool. The caller holds p.mu.
func (p *pool) status() PoolStatus {
	s := PoolStatus{
		Name: p.name, Generation: p.spec.Generation, NetworkID: NoNetwork, ReservationID: NoNetwork,
		Ready: p.usable() == nil, Reason: p.reason(), Message: p.message(),
	}
	if p.parent != nil {
		s.NetworkID, s.NetworkName = p.parent.ID, p.parent.Name
	}
	if p.reservation != NoNetwork {
		s.ReservationID = p.reservation
	}
	s.IPv4, s.IPv6 = p.counts(IPv4), p.counts(IPv6)
	return s
}

func (p *pool) reason() string {
	switch {
	case p.removed:
		return ReasonRemoved
	case p.leaving():
		return ReasonLeaving
	case p.trouble != nil:
		return reasonOf(p.trouble)
	case !p.ready:
		return ReasonPending
	case p.spec.Draining:
		return ReasonDraining
	}
	return ReasonReserved
}

func (p *pool) message() string {
	switch {
	case p.removed:
		return "nothing is reserved in OpenNebula for the pool any more"
	case p.leaving() && p.trouble == nil:
		return fmt.Sprintf("the pool is being removed; %d of its addresses have not been released yet", len(p.records))
	case p.trouble != nil:
		return p.trouble.Error() + hint(p.trouble)
	case !p.ready:
		return "OpenNebula has not been asked yet"
	case p.spec.Draining:
		return fmt.Sprintf("the pool gives no new addresses, as spec.draining says; %d are still in use", p.used[0]+p.used[1])
	}
	return fmt.Sprintf("addresses are reserved in network %d (%s)", p.reservation, p.reservationName())
}

// hint is what the operator can do about an error.
func hint(err error) string {
	switch reasonOf(err) {
	case ReasonForeignReservation:
		return "; give this cluster another name in the cloud-config, or, if the other cluster is gone for good, run onelbctl adopt"
	case ReasonWrongParent:
		return "; give back that reservation in OpenNebula, or name the pool otherwise"
	case ReasonNetworkAmbiguous:
		return "; name the owner of the network, or its ID"
	case ReasonNetworkNotFound:
		return "; check the name, and that our OpenNebula user has USE on the network"
	case ReasonNoFreeAddresses:
		return "; release addresses, widen the ranges of the pool or add an address range to the network"
	case ReasonDenied:
		return "; our OpenNebula user needs USE on the network, and a LEASES quota that is not used up"
	case ReasonUnauthenticated:
		return "; check user and password, or whether the token has expired"
	}
	return ""
}

// counts counts a family. The caller holds p.mu.
func (p *pool) counts(f Family) Counts {
	i := f.index()
	c := p.countReserved(i)
	for _, r := range p.records { // those that have left our reservation
		if familyOf(r.Address) == f && p.index.byAddr[r.Address] == nil && !r.isClaim() {
			c.Used++
			if r.Phase == Quarantined {
				c.Quarantined++
			}
		}
	}
	c.Total = max(c.Used, c.Total+p.outside[i])
	c.Free = c.Total - c.Used
	return c
}

// countReserved counts what is in the reservation. Addresses in it that
// somebody else uses are not part of the total: we cannot give them.
func (p *pool) countReserved(i int) (c Counts) {
	for _, s := range p.index.spans {
		for n := range s.slots {
			h := s.slots[n].halves[i]
			if h == nil {
				continue
			}
			if s.slots[n].held {
				c.Held++
			}
			if h.rec || h.allowed {
				c.Reserved++
			}
			if h.rec || h.allowed && s.slots[n].user == "" {
				c.Total++
			}
			if h.rec {
				c.Used++
			}
			if h.rec && h.phase == Quarantined {
				c.Quarantined++
			}
		}
	}
	return c
}
