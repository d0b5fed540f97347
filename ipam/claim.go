package ipam

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/klog/v2"
)

// attempt is a call about a slot that this very process made, with a known
// outcome. One without entry here is in doubt.
type attempt struct {
	rec  Record // as we wrote it before the call
	held bool   // the hold is ours; else nothing of ours is there
}

// all returns the addresses of a slot.
func (s *slot) all() []*half {
	var all []*half
	for _, h := range s.halves {
		if h != nil {
			all = append(all, h)
		}
	}
	return all
}

// claimSlot makes a slot ours, records first: the records are made (Claiming),
// then the address is put on hold, then they say so (Ahead). ErrInUse: somebody
// else was faster.
func (k *keeper) claimSlot(ctx context.Context, s *slot) error {
	cctx, cancel := context.WithTimeout(ctx, k.m.opts.Fence/2)
	defer cancel()
	k.mu.Lock()
	halves, network := s.all(), k.reservation
	k.setBusy(halves, true)
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		k.setBusy(halves, false)
		k.broadcast()
		k.mu.Unlock()
		k.m.Notify()
	}()
	var recs []Record
	for _, h := range halves {
		rec, err := k.store.Create(cctx, Record{Address: h.addr, Pool: k.name, Phase: Claiming, Direct: true, Network: network})
		if err == nil {
			recs = append(recs, rec)
			k.noted(h, Claiming)
			continue
		}
		k.conclude(ctx, recs, false)
		k.refused[h.addr] = time.Now()
		if errors.Is(err, ErrTaken) { // another pool has it, or another process of ours
			return fmt.Errorf("claim %s: %w", h.addr, ErrInUse)
		}
		return storeError{fmt.Errorf("claim %s: %w", h.addr, err)}
	}
	if err := cctx.Err(); err != nil {
		k.conclude(ctx, recs, false)
		return err
	}
	err := k.networks.Hold(cctx, network, halves[0].addr)
	switch {
	case err == nil:
		k.count(func(c *Counters) { c.Holds++; c.Reserved += uint64(len(halves)) })
		k.setHeld(halves[0].addr, true)
		k.conclude(ctx, recs, true)
		return nil
	case errors.Is(err, ErrInUse):
		k.refused[halves[0].addr] = time.Now()
		k.conclude(ctx, recs, false)
		return fmt.Errorf("hold %s: %w", halves[0].addr, err)
	case refusal(err):
		k.conclude(ctx, recs, false)
	default:
		k.reread = true // in doubt: the records wait for the end of the fence
	}
	return fmt.Errorf("hold %s in network %d: %w", halves[0].addr, network, err)
}

// refusal reports whether the error is OpenNebula's word that nothing happened.
func refusal(err error) bool {
	for _, e := range []error{ErrInUse, ErrDenied, ErrNotFound, ErrUnauthenticated, ErrNotReady} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// conclude notes the outcome of a call and writes it to the records. What
// cannot be written now is by tend.
func (k *keeper) conclude(ctx context.Context, recs []Record, held bool) {
	for _, rec := range recs {
		k.attempts[rec.Address] = attempt{rec: rec, held: held}
	}
	for _, rec := range recs {
		if err := k.concludeOne(ctx, rec); err != nil {
			klog.FromContext(ctx).Error(err, "Cannot write the outcome of a hold; trying again", "address", rec.Address)
			return
		}
	}
}

// concludeOne writes the known outcome into a record that is Claiming or Ending.
func (k *keeper) concludeOne(ctx context.Context, rec Record) error {
	var err error
	if k.attempts[rec.Address].held {
		rec.Phase, rec.OnHold = Ahead, true
		_, err = k.mark(ctx, rec)
	} else {
		err = k.unclaim(ctx, rec)
	}
	if err == nil || errors.Is(err, errMoved) {
		delete(k.attempts, rec.Address)
		return nil
	}
	return err
}

// unclaim deletes a record behind which nothing of ours is in OpenNebula.
func (k *keeper) unclaim(ctx context.Context, rec Record) error {
	err := k.store.Delete(ctx, rec)
	switch {
	case errors.Is(err, ErrConflict) || errors.Is(err, ErrNotFound):
		k.m.Notify()
		return errMoved
	case err != nil:
		return storeError{fmt.Errorf("delete record of %s: %w", rec.Address, err)}
	}
	k.storeWait.ok()
	k.mu.Lock()
	if h := k.index.byAddr[rec.Address]; h != nil {
		h.rec, h.phase, h.touched = false, Active, k.m.clock.Add(1)
		k.index.retire(h)
		k.settle(h.slot)
	}
	k.mu.Unlock()
	delete(k.seen, rec.Address)
	k.m.Notify()
	return nil
}

// mark writes where the hold of a record stands. errMoved: somebody else did.
func (k *keeper) mark(ctx context.Context, rec Record) (Record, error) {
	n, err := k.marks.Mark(ctx, rec)
	switch {
	case errors.Is(err, ErrConflict) || errors.Is(err, ErrNotFound):
		k.m.Notify()
		return n, errMoved
	case err != nil:
		return n, storeError{fmt.Errorf("record of %s: %w", rec.Address, err)}
	}
	k.storeWait.ok()
	k.mu.Lock()
	h := k.index.byAddr[rec.Address]
	k.mu.Unlock()
	if h != nil {
		k.noted(h, rec.Phase)
	}
	k.m.Notify()
	return n, nil
}

// noted takes a record that we have just written into the index.
func (k *keeper) noted(h *half, phase Phase) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h.rec, h.phase, h.touched = true, phase, k.m.clock.Add(1)
	k.settle(h.slot)
}

// quarantine begins the quarantine of a released address. Its hold stays: it is
// given again, or ended, later.
func (k *keeper) quarantine(ctx context.Context, rec Record) error {
	delete(k.conflicts, rec.Address)
	rec.Phase, rec.ReleasedAt = Quarantined, time.Now()
	return k.update(ctx, rec)
}

// reclaim ends the quarantine: the address can be given again if its hold is
// known to be ours.
func (k *keeper) reclaim(ctx context.Context, rec Record) error {
	rec.Phase = Ahead
	if !rec.OnHold {
		rec.Phase = SetAside
	}
	k.mu.Lock()
	if h := k.index.byAddr[rec.Address]; h != nil {
		k.index.retire(h)
	}
	k.mu.Unlock()
	_, err := k.mark(ctx, rec)
	if errors.Is(err, errMoved) {
		return ErrConflict
	}
	return err
}

// trim ends holds that are not needed: of addresses that the pool may not give,
// of all that nobody has if it is going or draining, and of what is more than a
// chunk above what is wanted ahead.
func (k *keeper) trim(ctx context.Context) error {
	for ctx.Err() == nil {
		halves := k.surplus()
		if halves == nil {
			return nil
		}
		if err := k.letGo(ctx, halves); err != nil {
			return err
		}
	}
	return nil
}

// surplus finds the last slot that can be missed, and marks it busy.
func (k *keeper) surplus() []*half {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := k.leaving() || k.spec.Draining
	if !k.ready && !k.leaving() || !all && k.waiting != [2]int{} {
		return nil
	}
	var best []*half
	for _, r := range k.records {
		h := k.index.byAddr[r.Address]
		if r.Phase != Ahead || h == nil || best != nil && r.Address.Less(best[0].addr) {
			continue
		}
		if halves := h.slot.all(); k.endable(halves) && (all || !allowedAny(halves) || r.Unwanted || k.canMiss(halves)) {
			best = halves
		}
	}
	if best != nil {
		k.setBusy(best, true)
	}
	return best
}

// endable reports whether nobody has or wants any address of a slot that is
// ours. The caller holds mu.
func (k *keeper) endable(halves []*half) bool {
	return !slices.ContainsFunc(halves, func(h *half) bool {
		return !h.rec || h.phase != Ahead || h.busy || h.suspect != 0 || !h.slot.held || k.wishes[h.addr] != nil
	})
}

func allowedAny(halves []*half) bool {
	return slices.ContainsFunc(halves, func(h *half) bool { return h.allowed })
}

// letGo ends the hold of a slot, which the caller has marked busy: the records
// say so first (Ending), so that nobody takes them any more; then comes one
// call, and no second one ever, since another's hold might be there by then.
func (k *keeper) letGo(ctx context.Context, halves []*half) error {
	cctx, cancel := context.WithTimeout(ctx, k.m.opts.Fence/2)
	defer cancel()
	defer func() {
		k.mu.Lock()
		k.setBusy(halves, false)
		k.mu.Unlock()
		k.m.Notify()
	}()
	var recs []Record
	for _, h := range halves {
		rec, ok := k.store.Get(h.addr)
		err := errMoved
		if ok && rec.Phase == Ahead && rec.Pool == k.name {
			rec.Phase, rec.OnHold = Ending, false
			rec, err = k.mark(cctx, rec)
		}
		if err == nil {
			recs = append(recs, rec)
		} else {
			k.conclude(ctx, recs, true) // no call was made for them
			k.doubtful(h)
			if errors.Is(err, errMoved) {
				return nil
			}
			return err
		}
	}
	if err := cctx.Err(); err != nil {
		k.conclude(ctx, recs, true)
		return err
	}
	err := k.networks.Release(cctx, k.reservationID(), halves[0].addr)
	switch {
	case err == nil:
		k.count(func(c *Counters) { c.Releases++; c.Returned += uint64(len(halves)) })
		k.setHeld(halves[0].addr, false)
		k.conclude(ctx, recs, false)
		return nil
	case refusal(err):
		k.conclude(ctx, recs, true)
	default:
		k.reread = true
	}
	return fmt.Errorf("release %s in network %d: %w", halves[0].addr, k.reservationID(), err)
}

// doubtful keeps an address from being given or ended until the records have
// been looked at and the network has been read again.
func (k *keeper) doubtful(h *half) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h.touched = k.m.clock.Add(1)
	h.suspect, k.doubt = h.touched, true
	k.settle(h.slot)
}
