package ipam

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Reasons of a pool's status.
const (
	ReasonReserved           = "Reserved"           // ready
	ReasonOnHold             = "OnHold"             // ready, without reservation
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
	// Ahead is how many are reserved, or without reservation on hold, and can
	// be given at once.
	Ahead int
	// SetAside is how many have a hold of which nobody knows whether it is
	// ours. Only without reservation; no part of Total.
	SetAside int
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
	// SpoofingFilter: the network, or the reservation, gives NICs that are
	// attached to it a filter against addresses that are not theirs.
	SpoofingFilter bool
	IPv4, IPv6     Counts
	// Overlap tells of other pools that could give the same addresses.
	Overlap Finding
	// Stranded tells of addresses in use that the pool would not give any more.
	Stranded Finding
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
	s.SpoofingFilter = p.filtered || p.parent != nil && p.parent.filtered()
	if p.reservation != NoNetwork && !p.spec.Direct {
		s.ReservationID = p.reservation
	}
	s.IPv4, s.IPv6 = p.counts(IPv4), p.counts(IPv6)
	s.Overlap, s.Stranded = p.overlap, p.stranded()
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
	case p.spec.Direct:
		return ReasonOnHold
	}
	return ReasonReserved
}

func (p *pool) message() string {
	switch {
	case p.removed:
		return "nothing is reserved in OpenNebula for the pool any more"
	case p.leaving() && p.trouble == nil:
		return fmt.Sprintf("the pool is being removed; %d of its addresses have not been released yet%s", len(p.records), p.asideText())
	case p.trouble != nil:
		return p.trouble.Error() + hint(p.trouble)
	case !p.ready:
		return "OpenNebula has not been asked yet"
	case p.spec.Draining:
		return fmt.Sprintf("the pool gives no new addresses, as spec.draining says; %d are still in use", p.used[0]+p.used[1])
	}
	if p.spec.Direct {
		return fmt.Sprintf("addresses are put on hold in %s itself%s%s", p.parentName(), p.asideText(), p.lackText())
	}
	return fmt.Sprintf("addresses are reserved in network %d (%s)%s", p.reservation, p.reservationName(), p.lackText())
}

// lackText says why the pool's network has fewer IPv6 addresses than the types of
// its ranges promise, if the pool may give any. The caller holds p.mu.
func (p *pool) lackText() string {
	wants := func(r AddressRange) bool { return r.Start.Is6() }
	if p.parent == nil || len(p.spec.Ranges) > 0 && !slices.ContainsFunc(p.spec.Ranges, wants) {
		return ""
	}
	return lackingIPv6(*p.parent)
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
		return "; our OpenNebula user needs USE on the network (without reservation USE and MANAGE), and a LEASES quota that is not used up"
	case ReasonUnauthenticated:
		return "; check user and password, or whether the token has expired"
	}
	return ""
}

// counts counts a family. The caller holds p.mu.
func (p *pool) counts(f Family) Counts {
	i := f.index()
	if p.spec.Direct {
		return p.countDirect(f)
	}
	c := p.countReserved(i)
	c.Ahead = p.index.nfree[i]
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

// countDirect counts the records of a pool without reservation, and what is free
// in its network. The caller holds p.mu.
func (p *pool) countDirect(f Family) (c Counts) {
	i := f.index()
	for _, r := range p.records {
		if familyOf(r.Address) != f {
			continue
		}
		h := p.index.byAddr[r.Address]
		if h != nil && h.slot.held && r.Phase != SetAside {
			c.Held++
		}
		switch r.Phase {
		case SetAside:
			c.SetAside++
			continue
		case Claiming, Ending: // theirs is neither
			continue
		case Ahead:
			if h == nil || !h.allowed {
				continue
			}
		case Quarantined:
			c.Quarantined++
			c.Used++
		case Active, Releasing:
			c.Used++
		}
		c.Reserved++
	}
	c.Ahead = p.index.nfree[i]
	for _, h := range p.index.byAddr {
		if familyOf(h.addr) == f && h.allowed && !h.rec && !h.slot.held && h.slot.user == "" {
			c.Free++
		}
	}
	c.Total = c.Reserved + c.Free
	c.Free = c.Total - c.Used
	return c
}

// asideText says what is set aside. The caller holds p.mu.
func (p *pool) asideText() string {
	var all []string
	for _, r := range p.records {
		if r.Phase == SetAside {
			all = append(all, r.Address.String())
		}
	}
	switch {
	case len(all) == 0:
		return ""
	case len(all) > namedAtMost:
		all = append(all[:namedAtMost], "...")
	}
	return "; set aside, since nobody knows whose hold they have: " + strings.Join(all, ", ")
}

// namedAtMost is how many addresses a message names.
const namedAtMost = 8

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
