package ipam

import "errors"

var (
	// ErrNotFound: there is no such network, reservation or range, or our
	// OpenNebula user may not see it.
	ErrNotFound = errors.New("not found")
	// ErrAmbiguous: several networks have that name.
	ErrAmbiguous = errors.New("name is ambiguous")
	// ErrExists: the name of the reservation is taken.
	ErrExists = errors.New("name is taken")
	// ErrNoSpace: no address, or no run of that many addresses, is free.
	ErrNoSpace = errors.New("no free address")
	// ErrInUse: the address, or the range, is in use.
	ErrInUse = errors.New("in use")
	// ErrNotReady: the network is being made or deleted; try again.
	ErrNotReady = errors.New("not ready")
	// ErrDenied: our OpenNebula user lacks a right, or a quota is used up.
	ErrDenied = errors.New("denied")
	// ErrUnauthenticated: OpenNebula does not accept our credentials.
	ErrUnauthenticated = errors.New("not authenticated")
	// ErrUnavailable: OpenNebula cannot be reached, hangs, or answers garbage.
	ErrUnavailable = errors.New("OpenNebula is unavailable")
	// ErrForeign: the reservation belongs to another cluster.
	ErrForeign = errors.New("belongs to another cluster")
	// ErrTaken: the address has a record already.
	ErrTaken = errors.New("address is taken")
	// ErrUnknownPool: there is no such pool.
	ErrUnknownPool = errors.New("no such pool")
	// ErrOutside: the wanted address is not one that the pool can give.
	ErrOutside = errors.New("not an address of the pool")
	// ErrWrongParent: the reservation was cut out of another network.
	ErrWrongParent = errors.New("reservation of another network")
	// ErrUnusable: the pool's settings or its network cannot work as they are.
	ErrUnusable = errors.New("cannot be used")
	// ErrLeaving: the pool is being removed.
	ErrLeaving = errors.New("pool is being removed")
	// ErrDraining: the pool gives no new addresses.
	ErrDraining = errors.New("pool is draining, it gives no new addresses")
	// ErrNotNow: there is no address yet that could be given at once.
	ErrNotNow = errors.New("nothing to be given at once")
	// ErrConflict: the record was changed by somebody else; read it again.
	ErrConflict = errors.New("record has changed")
)
