package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"k8s.io/klog/v2"
)

// conflictRetry is how often an address is looked at that something else uses.
const conflictRetry = time.Minute

// unseen stands for a user of an address that OpenNebula does not tell us.
const unseen = "something that OpenNebula does not show us"

// conflict is an address of ours that something else uses.
type conflict struct {
	user  string
	until time.Time // when to look at it again
}

// quiet reports whether there is nothing new about the conflict.
func (c conflict) quiet(user string) bool {
	return c.user != "" && (c.user == user || user == "" && time.Now().Before(c.until))
}

// slotState is what is known of the slot of an address.
type slotState struct {
	known, held, shared bool
	user                string
}

func (k *keeper) slotOf(a netip.Addr) slotState {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := k.index.byAddr[a]
	if h == nil {
		return slotState{}
	}
	return slotState{known: true, held: h.slot.held, shared: h.slot.shared, user: h.slot.user}
}

func (k *keeper) setHeld(a netip.Addr, held bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if h := k.index.byAddr[a]; h != nil {
		h.slot.held = held
		if held {
			h.slot.user = "" // the hold stands beside it, see span.lease
		}
		k.settle(h.slot)
	}
}

// serve does for one address what its record asks for.
func (k *keeper) serve(ctx context.Context, a netip.Addr) error {
	rec, ok := k.store.Get(a)
	switch {
	case !ok || rec.Pool != k.name:
		return nil
	case rec.Phase == Active:
		if rec.Direct {
			return k.holdDirect(ctx, rec)
		}
		return k.hold(ctx, rec)
	case rec.Phase == Releasing && !rec.Announced && rec.Direct:
		return k.quarantine(ctx, rec)
	case rec.Phase == Releasing && !rec.Announced:
		return k.release(ctx, rec)
	}
	return nil
}

// hold makes sure that an active address is on hold, and says so in its record.
func (k *keeper) hold(ctx context.Context, rec Record) error {
	s := k.slotOf(rec.Address)
	repaired := false
	if s.known && (s.user == "" || s.shared) && !s.held {
		err := k.networks.Hold(ctx, k.reservationID(), rec.Address)
		switch {
		case err == nil:
			k.setHeld(rec.Address, true)
			k.count(func(c *Counters) { c.Holds++ })
			s.held, s.user, repaired = true, "", rec.OnHold
		case errors.Is(err, ErrInUse):
			// Held already (a crash after the call, or the answer was lost), in
			// use, or no longer ours: one reading tells it for all addresses.
			if err := k.refresh(ctx); err != nil {
				return err
			}
			s = k.slotOf(rec.Address)
			if s.known && !s.held && s.user == "" {
				s.user = unseen
			}
		default:
			return fmt.Errorf("hold %s in reservation %d: %w", rec.Address, k.reservationID(), err)
		}
	}
	switch {
	case !s.known:
		k.workSeq = 0 // it is lost: retrieve sees to it
		return nil
	case s.user != "":
		return k.conflict(ctx, rec, s.user)
	}
	k.conflictEnded(rec.Address)
	if repaired {
		k.count(func(c *Counters) { c.Repairs++ })
		k.event(EventWarning, EventHoldRepaired, rec.Address, "the hold of %s had been taken away in OpenNebula and was put back", rec.Address)
	}
	if rec.OnHold {
		return nil
	}
	rec.OnHold = true
	return k.update(ctx, rec)
}

// conflict reports that something else uses an address that we have given. The
// record stays: whoever has the address keeps it until a person decides.
func (k *keeper) conflict(ctx context.Context, rec Record, user string) error {
	old := k.conflicts[rec.Address]
	k.conflicts[rec.Address] = conflict{user: user, until: time.Now().Add(conflictRetry)}
	k.nextCheck = earlier(k.nextCheck, time.Now().Add(jitter(conflictRetry)))
	if old.user != user {
		k.count(func(c *Counters) { c.Conflicts++ })
		klog.FromContext(ctx).Info("Address is used by something else", "address", rec.Address, "user", user)
		k.event(EventWarning, EventAddressConflict, rec.Address,
			"%s is used by %s, although it is ours; free it there, or release it here", rec.Address, user)
	}
	if !rec.OnHold {
		return nil
	}
	rec.OnHold = false
	if rec.Direct {
		var err error
		if rec, err = k.mark(ctx, rec); err != nil {
			return err
		}
	}
	return k.update(ctx, rec)
}

func (k *keeper) conflictEnded(a netip.Addr) {
	if _, ok := k.conflicts[a]; !ok {
		return
	}
	delete(k.conflicts, a)
	k.event(EventNormal, EventAddressConflictEnded, a, "%s is ours alone again", a)
}

// release ends the hold of an address that nobody announces any more, unless
// the other half of its pair still needs it.
func (k *keeper) release(ctx context.Context, rec Record) error {
	if k.lastOfSlot(rec.Address) {
		if err := k.networks.Release(ctx, k.reservationID(), rec.Address); err != nil {
			return fmt.Errorf("release %s in reservation %d: %w", rec.Address, k.reservationID(), err)
		}
		k.setHeld(rec.Address, false)
		k.count(func(c *Counters) { c.Releases++ })
	}
	delete(k.conflicts, rec.Address)
	rec.Phase, rec.OnHold, rec.ReleasedAt = Quarantined, false, time.Now()
	return k.update(ctx, rec)
}

// lastOfSlot reports whether a release has to reach OpenNebula: the address is
// in our reservation and nothing else lives on the same hold: no other record,
// and no former owner of the other half.
func (k *keeper) lastOfSlot(a netip.Addr) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := k.index.byAddr[a]
	if h == nil {
		return false
	}
	for _, o := range h.slot.halves {
		if o != nil && o != h && (o.former || o.rec && o.phase != Quarantined) {
			return false
		}
	}
	return true
}

// update writes a record. If somebody else changed it the keeper looks again.
func (k *keeper) update(ctx context.Context, rec Record) error {
	_, err := k.store.Update(ctx, rec)
	switch {
	case errors.Is(err, ErrNotFound):
		k.m.Notify()
		return nil
	case err != nil:
		return storeError{fmt.Errorf("record of %s: %w", rec.Address, err)}
	}
	k.storeWait.ok()
	k.mu.Lock()
	if h := k.index.byAddr[rec.Address]; h != nil {
		h.rec, h.phase, h.touched = true, rec.Phase, k.m.clock.Add(1)
		h.ended = rec.Phase == Quarantined
		k.settle(h.slot)
	}
	k.mu.Unlock()
	if rec.Phase == Quarantined {
		k.m.Notify()
	}
	return nil
}
