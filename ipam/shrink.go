package ipam

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"k8s.io/klog/v2"
)

// isClaim reports whether the record was made by claim: its quarantine begins
// in the future, and nobody ever had the address.
func (r Record) isClaim() bool {
	return r.Phase == Quarantined && len(r.Owners) == 0 && r.ReleasedAt.After(time.Now())
}

// shrink gives back what is not needed: ranges that are empty, or everything
// if the pool is being removed.
func (k *keeper) shrink(ctx context.Context, leaving bool) error {
	if leaving {
		return k.leave(ctx)
	}
	for ctx.Err() == nil {
		id, halves := k.spare()
		if halves == nil {
			return nil
		}
		more, err := k.giveBack(ctx, halves, func(ctx context.Context) error {
			err := k.networks.FreeRange(ctx, k.reservationID(), id)
			if err == nil || errors.Is(err, ErrNotFound) {
				k.forgetRange(id)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("give back range %d of reservation %d: %w", id, k.reservationID(), err)
		}
		if !more {
			return nil
		}
		klog.FromContext(ctx).V(2).Info("Gave a range back", "range", id, "addresses", len(halves))
		if err := k.refresh(ctx); err != nil {
			return err
		}
	}
	return nil
}

// spare finds a range without record and lease that can be missed, and marks
// its addresses busy so that no allocation gets them. The last range stays.
func (k *keeper) spare() (RangeID, []*half) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.index.spans) < 2 || k.waiting != [2]int{} {
		return 0, nil
	}
	spans := make([]*span, 0, len(k.index.spans))
	for _, s := range k.index.spans {
		spans = append(spans, s)
	}
	slices.SortFunc(spans, func(a, b *span) int { return cmp.Compare(b.ID, a.ID) })
	for _, s := range spans {
		if halves := k.empty(s); halves != nil && k.canMiss(halves) {
			k.setBusy(halves, true)
			return s.ID, halves
		}
	}
	return 0, nil
}

// empty returns the addresses of a range if nobody has any of them.
func (k *keeper) empty(s *span) []*half {
	var all []*half
	for i := range s.slots {
		if s.slots[i].held || s.slots[i].user != "" {
			return nil
		}
		for _, h := range s.slots[i].halves {
			switch {
			case h == nil:
			case h.rec || h.busy || h.suspect != 0 || k.wishes[h.addr] != nil:
				return nil
			default:
				all = append(all, h)
			}
		}
	}
	return all
}

// canMiss keeps a distance between giving back and reserving: what remains free
// must be more than growing starts at, and by a chunk.
func (k *keeper) canMiss(halves []*half) bool {
	if k.spec.Draining {
		return true // nothing is kept ahead for anybody
	}
	remain, concerned := k.index.nfree, [2]bool{}
	for _, h := range halves {
		i := familyOf(h.addr).index()
		concerned[i] = true
		if h.free {
			remain[i]--
		}
	}
	for i := range remain {
		if concerned[i] && remain[i] <= k.spec.ReserveAhead+k.spec.ChunkSize {
			return false
		}
	}
	return true
}

func (k *keeper) setBusy(halves []*half, busy bool) {
	for _, h := range halves {
		h.busy = busy
		k.settle(h.slot)
	}
}

// giveBack takes addresses out of the reservation. Whoever else believes that
// they are in it (another process with an outdated view) must not give them:
// so they are allocated first, to nobody, and stay so for the fence time. It
// returns false if somebody has one of them: then nothing happened.
func (k *keeper) giveBack(ctx context.Context, halves []*half, free func(context.Context) error) (bool, error) {
	defer func() {
		k.mu.Lock()
		k.setBusy(halves, false)
		k.mu.Unlock()
		k.m.Notify()
	}()
	until := time.Now().Add(k.m.opts.Fence)
	ctx, cancel := context.WithTimeout(ctx, k.m.opts.Fence/2)
	defer cancel()
	claims, err := k.claim(ctx, halves, until)
	if err == nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err == nil {
		err = free(ctx)
		switch {
		case err == nil || errors.Is(err, ErrNotFound):
			k.claimed(claims)
			return true, nil
		case !errors.Is(err, ErrInUse):
			k.reread = true
			return false, err // it may still happen: the claims stay until they expire
		}
		k.reread = true
	}
	taken := errors.Is(err, ErrTaken) || errors.Is(err, ErrInUse)
	for _, rec := range claims {
		if err := k.delete(ctx, rec); err != nil {
			break // it expires by itself
		}
	}
	if taken {
		return false, nil
	}
	return false, err
}

// claim makes a record for each of the addresses. The caller has marked them busy.
func (k *keeper) claim(ctx context.Context, halves []*half, until time.Time) ([]Record, error) {
	var claims []Record
	for _, h := range halves {
		rec, err := k.store.Create(ctx, Record{Address: h.addr, Pool: k.name, Phase: Quarantined, ReleasedAt: until})
		k.mu.Lock()
		h.touched = k.m.clock.Add(1)
		switch {
		case err == nil:
			h.rec, h.phase = true, Quarantined
			claims = append(claims, rec)
		case errors.Is(err, ErrTaken):
			h.rec, h.phase = true, Active
		default:
			h.suspect, k.doubt = h.touched, true
		}
		k.mu.Unlock()
		if err != nil {
			err = fmt.Errorf("claim %s: %w", h.addr, err)
			if !errors.Is(err, ErrTaken) {
				err = storeError{err}
			}
			return claims, err
		}
	}
	return claims, nil
}

// forgetRange takes a range out of the index at once: whether its addresses are
// ours again is for the next reading to tell.
func (k *keeper) forgetRange(id RangeID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.index.spans[id]; s != nil {
		for i, f := range families {
			if s.first(f).IsValid() {
				k.outside[i] += s.Size
			}
		}
		k.index.remove(id)
	}
}

// claimed notes that the claimed addresses are out of the reservation.
func (k *keeper) claimed(claims []Record) {
	for _, rec := range claims {
		k.claims[rec.Address] = true
	}
	k.count(func(c *Counters) { c.Returned += uint64(len(claims)) })
}

// leave gives the whole reservation back once nobody has an address of it.
func (k *keeper) leave(ctx context.Context) error {
	k.mu.Lock()
	vacant, id := k.vacant(), k.reservation
	var halves []*half
	var blocked netip.Addr
	var by string
	for _, s := range k.index.spans {
		for i := range s.slots {
			if s.slots[i].held || s.slots[i].user != "" {
				blocked, by = s.slots[i].any(), cmp.Or(s.slots[i].user, "a hold")
			}
			for _, h := range s.slots[i].halves {
				if h != nil && !(h.rec && h.phase == Quarantined) {
					halves = append(halves, h)
				}
			}
		}
	}
	if vacant && !blocked.IsValid() {
		slices.SortFunc(halves, func(a, b *half) int { return a.addr.Compare(b.addr) })
		k.setBusy(halves, true)
	}
	k.mu.Unlock()
	switch {
	case !vacant || id == NoNetwork:
		return nil
	case blocked.IsValid():
		return fmt.Errorf("reservation %d cannot be given back, %s is still in use by %s: %w", id, blocked, by, ErrInUse)
	}
	gone, err := k.giveBack(ctx, halves, func(ctx context.Context) error { return k.networks.DeleteReservation(ctx, id) })
	switch {
	case err != nil:
		return fmt.Errorf("give back reservation %d: %w", id, err)
	case !gone:
		return fmt.Errorf("reservation %d cannot be given back yet: %w", id, ErrInUse)
	}
	k.setRemoved(true)
	return nil
}
