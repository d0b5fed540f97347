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
	// Claiming: a direct record without owner, made before its address is put
	// on hold. Only its maker goes on from here.
	Claiming
	// Ahead: a direct record without owner whose hold is ours. It can be given.
	Ahead
	// Ending: a direct record without owner whose hold is about to end, or has
	// just ended. Only who wrote this goes on from here.
	Ending
	// SetAside: a direct record without owner of which nobody knows whether the
	// hold that is there is ours. It is never given, and the hold never ended.
	SetAside
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
	// ID tells this record from an earlier or later one of the same address.
	ID string
	// Direct: the address is on hold in the pool's network itself, Network, and
	// not in a reservation. OnHold then means that the hold is known to be ours.
	Direct  bool
	Network NetworkID // only if Direct
	// Unwanted: somebody asks for the end of the record (only Direct). Of one
	// that is SetAside it says "the hold is not yours", and so only counts if it
	// was asked for after it was set aside.
	Unwanted bool
	// Stale: the store shows people an older state than this one.
	Stale bool
	// Detail is the store's own description of the record (for Kubernetes, the
	// spec of the VirtualIP). IPAM hands it on unseen.
	Detail any
}

// Records is the durable store of records, in which creating a record is the
// allocation: the store refuses a second record for an address. Implemented on
// VirtualIP objects. Methods are safe for concurrent use, have deadlines of
// their own, and read what was written before them (List too).
type Records interface {
	// List returns all records, sorted by address, in a slice that is the
	// caller's. It answers from memory.
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

// Claims is what pools without reservation need of the store beside Records.
// It is the same store; Create makes records in phase Claiming in one step.
type Claims interface {
	// Mark writes Phase and OnHold of a direct record in one step: ErrConflict
	// if the record's version is not the stored one, ErrNotFound if it is gone.
	Mark(ctx context.Context, r Record) (Record, error)
	// Take gives the address of a record in phase Ahead to the owners, with the
	// Detail, and makes it Active, in one step. ErrTaken if it is not Ahead or
	// gone. Version does not count.
	Take(ctx context.Context, r Record) (Record, error)
}
