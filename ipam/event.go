package ipam

import "net/netip"

// EventType is the severity of an event, in Kubernetes' words.
type EventType string

// The event types.
const (
	EventNormal  EventType = "Normal"
	EventWarning EventType = "Warning"
)

// Reasons of events.
const (
	// EventReservationCreated: the pool's reservation was made.
	EventReservationCreated = "ReservationCreated"
	// EventReservationReturned: the pool was removed, its reservation is back.
	EventReservationReturned = "ReservationReturned"
	// EventPoolNotReady: the pool cannot give addresses; the message says why
	// and what to do.
	EventPoolNotReady = "PoolNotReady"
	// EventPoolReady: the pool can give addresses (again).
	EventPoolReady = "PoolReady"
	// EventOpenNebulaUnavailable: OpenNebula does not answer, or refuses us.
	// Addresses that are reserved ahead can still be given.
	EventOpenNebulaUnavailable = "OpenNebulaUnavailable"
	// EventOpenNebulaAvailable: it answers again.
	EventOpenNebulaAvailable = "OpenNebulaAvailable"
	// EventAddressesExhausted: the network has no more addresses for the pool.
	EventAddressesExhausted = "AddressesExhausted"
	// EventAddressConflict: something else uses an address that we have given.
	EventAddressConflict = "AddressConflict"
	// EventAddressConflictEnded: the address is ours alone again.
	EventAddressConflictEnded = "AddressConflictEnded"
	// EventHoldRepaired: a hold had been taken away and was put back.
	EventHoldRepaired = "HoldRepaired"
	// EventAddressRecovered: an address had left our reservation and was
	// reserved again.
	EventAddressRecovered = "AddressRecovered"
	// EventOrphanReleased: a hold that belonged to nobody was released.
	EventOrphanReleased = "OrphanReleased"
	// EventOrphanFound: a hold belongs to nobody, and is left alone (--orphans=report).
	EventOrphanFound = "OrphanFound"
	// EventOrphanReservation: a reservation of this cluster is in OpenNebula that
	// no pool wants. It is given back, unless --orphans=report.
	EventOrphanReservation = "OrphanReservation"
	// EventAddressSetAside: after a crash or a lost answer nobody knows whether
	// a hold in the network of a pool without reservation is ours. The address is
	// neither given nor released until a person decides; the message says how.
	EventAddressSetAside = "AddressSetAside"
	// EventAddressSetAsideEnded: the address is no longer set aside.
	EventAddressSetAsideEnded = "AddressSetAsideEnded"
	// EventOwnersNotRecorded: for whom addresses are could not be written into
	// OpenNebula.
	EventOwnersNotRecorded = "OwnersNotRecorded"
)

// Event is something that happened to a pool or to one of its addresses. There
// is one per transition, however often the cause is looked at again.
type Event struct {
	Pool    string
	Address netip.Addr // invalid if it is about the pool
	Type    EventType
	Reason  string
	Message string
}
