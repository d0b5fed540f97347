package ipam

import (
	"context"
	"net/netip"
	"time"
)

// Owner is what an address was given to: a Service, named by its namespace,
// name and UID. IPAM only compares them.
type Owner struct {
	Namespace, Name, UID string
}

// Phase is where a record is in its life.
type Phase int

// The phases of a record, in order.
const (
	// Active: at least one owner, or none for a while, and kept for one.
	Active Phase = iota
	// Releasing: no owner; whoever announces the address is letting go, then
	// its hold in OpenNebula ends.
	Releasing
	// Quarantined: free in OpenNebula, kept from new owners for a while.
	Quarantined
)

// Record is one allocated address. A record exists from allocation to the end
// of quarantine; while it exists nobody else gets the address.
type Record struct {
	Address netip.Addr
	Pool    string
	Owners  []Owner // sorted by namespace, name, UID
	Phase   Phase
	// OnHold: OpenNebula has confirmed the hold.
	OnHold bool
	// Announced: a node or a router may still answer for the address. Only
	// meaningful while Releasing; the hold ends when it is false.
	Announced bool
	// ReleasedAt is when the hold ended; zero before. In a record without owner
	// that IPAM creates as Quarantined, to keep an address that it gives back
	// from everybody, it lies in the future.
	ReleasedAt time.Time
	// Share is the key with which the owners share the address, Inner says that
	// it is behind another address of the owner. Kept is for whom an active
	// record without owners is kept, until KeptUntil. IPAM writes them into
	// OpenNebula, beside the owners; Create and Update do not write them.
	Share     string
	Inner     bool
	Kept      Owner
	KeptUntil time.Time
	// Version is the store's version of the record, for compare-and-swap.
	Version string
	// Detail is the store's own description of the record (for Kubernetes, the
	// spec of the VirtualIP). IPAM hands it on unseen.
	Detail any
}

// Records is the durable store of records, in which creating a record is the
// allocation: the store refuses a second record for an address. Implemented on
// VirtualIP objects. Methods are safe for concurrent use, have deadlines of
// their own, and read what was written before them (List too).
type Records interface {
	// List returns all records, sorted by address. It answers from memory.
	List() []Record
	// Get returns the record of an address. It answers from memory.
	Get(a netip.Addr) (Record, bool)
	// Create makes a record: ErrTaken if there is one. All fields count: IPAM
	// also creates records without owner and Detail in phase Quarantined. A
	// store that writes in several steps must write Phase and ReleasedAt so that
	// a record without owner is never seen as Active.
	Create(ctx context.Context, r Record) (Record, error)
	// Update writes Phase, OnHold and ReleasedAt: ErrConflict if the record's
	// version is not the stored one, ErrNotFound if it is gone.
	Update(ctx context.Context, r Record) (Record, error)
	// Delete removes a record. Removing one that is gone is no error;
	// ErrConflict if its version is not the stored one.
	Delete(ctx context.Context, r Record) error
}
