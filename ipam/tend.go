package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"k8s.io/klog/v2"
)

// tend brings the direct records on that no Service has: those whose maker
// crashed, those whose hold is gone, those that are set aside.
func (k *keeper) tend(ctx context.Context) error {
	k.mu.Lock()
	recs, seq, direct, leaving := k.records, k.recordsSeq, k.spec.Direct, k.leaving() || k.spec.Draining
	k.mu.Unlock()
	due := !k.nextTend.IsZero() && !time.Now().Before(k.nextTend)
	if !direct || !due && seq == k.tended && k.readAt == k.tendRead {
		return nil
	}
	k.nextTend = time.Time{}
	seen := make(map[netip.Addr]sighting, len(recs))
	ahead := false
	for _, r := range recs {
		if !r.Direct {
			continue
		}
		seen[r.Address] = k.sight(r)
		if r.Phase == Active || r.Phase == Releasing || r.Phase == Quarantined {
			continue
		}
		ahead = ahead || r.Phase == Ahead && (leaving || r.Unwanted)
	}
	k.seen = seen
	for _, r := range recs {
		if !r.Direct || r.Phase < Claiming || ctx.Err() != nil {
			continue
		}
		if err := k.tendOne(ctx, r); err != nil && !errors.Is(err, errMoved) {
			return err
		}
	}
	k.tended, k.tendRead = seq, k.readAt
	if ahead {
		return k.trim(ctx)
	}
	return nil
}

// sight notes since when a record is in its phase.
func (k *keeper) sight(r Record) sighting {
	now := sighting{id: r.ID, phase: r.Phase, clock: k.m.clock.Add(1), at: time.Now()}
	if r.Phase == Claiming || r.Phase == Ending {
		now.version = r.Version
	}
	if old, ok := k.seen[r.Address]; ok && old.id == now.id && old.phase == now.phase && old.version == now.version {
		return old
	}
	return now
}

// read reports whether the network was read after the record came to its phase.
func (k *keeper) read(a netip.Addr) bool {
	s, ok := k.seen[a]
	return ok && k.readAt > s.clock
}

// aged reports whether the record has been in its phase for the fence time, and
// if not comes back when it has.
func (k *keeper) aged(a netip.Addr) bool {
	end := k.seen[a].at.Add(k.m.opts.Fence)
	if !time.Now().Before(end) {
		return true
	}
	if k.nextTend.IsZero() || end.Before(k.nextTend) {
		k.nextTend = end
	}
	return false
}

// tendOne looks at one record that nobody has. r is as last seen.
func (k *keeper) tendOne(ctx context.Context, r Record) error {
	rec, ok := k.store.Get(r.Address)
	if !ok || rec.Pool != k.name || rec.Phase != r.Phase {
		return nil // it has moved on since
	}
	switch rec.Phase {
	case Claiming, Ending:
		if mine, ok := k.attempts[rec.Address]; ok && mine.rec.Version == rec.Version {
			return k.concludeOne(ctx, rec)
		}
		delete(k.attempts, rec.Address)
		if !k.aged(rec.Address) {
			return nil
		}
		// Its maker is dead, or does not know the outcome itself.
		rec.Phase, rec.OnHold = SetAside, false
		k.reread = true
		_, err := k.mark(ctx, rec)
		return err
	case Ahead:
		return k.tendAhead(ctx, rec)
	case SetAside:
		return k.tendAside(ctx, rec)
	case Active, Releasing, Quarantined:
	}
	return nil
}

// tendAhead looks after an address whose hold is ours, and which nobody has.
func (k *keeper) tendAhead(ctx context.Context, rec Record) error {
	s := k.slotOf(rec.Address)
	switch {
	case s.held:
		if rec.Stale {
			return k.update(ctx, rec)
		}
		return nil
	case !k.read(rec.Address):
		k.reread = true
		return nil
	}
	klog.FromContext(ctx).Info("The hold of an address that is kept ahead was taken away in OpenNebula", "address", rec.Address, "user", s.user)
	rec.Phase, rec.OnHold = SetAside, false
	_, err := k.mark(ctx, rec)
	return err
}

// tendAside looks after an address of which nobody knows whether the hold there
// is ours. When there is none any more, it is over.
func (k *keeper) tendAside(ctx context.Context, rec Record) error {
	a := rec.Address
	s := k.slotOf(a)
	switch {
	case rec.Unwanted:
		return k.endAside(ctx, rec, "its VirtualIP was deleted: what is in OpenNebula stays as it is")
	case !k.read(a):
		k.reread = true
		return nil
	case k.twinCertain(a):
		// The other address of the pair lives on the same hold, which is ours.
		rec.Phase, rec.OnHold = Ahead, true
		_, err := k.mark(ctx, rec)
		return err
	case !s.held:
		switch {
		case !k.aged(a):
			return nil
		case k.readBegan.Before(k.seen[a].at.Add(k.m.opts.Fence)):
			k.reread = true // a call of ours may have arrived since
			return nil
		}
		return k.endAside(ctx, rec, "it is not on hold in OpenNebula any more")
	}
	if !k.aside[a] {
		k.aside[a] = true
		k.count(func(c *Counters) { c.SetAside++ })
		klog.FromContext(ctx).Info("Address is set aside: whose hold it has in OpenNebula is not known", "address", a)
		k.event(EventWarning, EventAddressSetAside, a,
			"%s is on hold in network %d, and whether by us or by somebody else is not known after a crash or a lost answer: it is neither given nor released. "+
				"If nobody in OpenNebula needs it, release it there (%s); if it is somebody's, delete VirtualIP %s",
			a, rec.Network, k.byHand(rec.Network, a), a)
	}
	if rec.Stale {
		return k.update(ctx, rec)
	}
	return nil
}

func (k *keeper) endAside(ctx context.Context, rec Record, why string) error {
	if err := k.unclaim(ctx, rec); err != nil {
		return err
	}
	if k.aside[rec.Address] {
		delete(k.aside, rec.Address)
		k.event(EventNormal, EventAddressSetAsideEnded, rec.Address, "%s is no longer set aside: %s", rec.Address, why)
	}
	return nil
}

// twinCertain reports whether the other address of a pair is known to be ours.
func (k *keeper) twinCertain(a netip.Addr) bool {
	k.mu.Lock()
	h := k.index.byAddr[a]
	var twin *half
	if h != nil && h.slot.held {
		for _, o := range h.slot.all() {
			if o != h {
				twin = o
			}
		}
	}
	k.mu.Unlock()
	if twin == nil {
		return false
	}
	rec, ok := k.store.Get(twin.addr)
	return ok && rec.Direct && rec.OnHold && rec.Pool == k.name
}

// holdDirect makes sure that an active address is on hold and that the hold is
// ours. A hold that was taken away is put back, if nobody was faster.
func (k *keeper) holdDirect(ctx context.Context, rec Record) error {
	err := k.putBack(ctx, rec)
	if errors.Is(err, errMoved) {
		return nil
	}
	return err
}

// doubtfulHold stands for whoever made a hold that may be ours or not.
const doubtfulHold = "a hold that may be somebody else's"

func (k *keeper) putBack(ctx context.Context, rec Record) error {
	a := rec.Address
	s := k.slotOf(a)
	switch {
	case !s.known:
		k.workSeq = 0
		return nil
	case s.user != "":
		return k.conflict(ctx, rec, s.user)
	case s.held && rec.OnHold:
		k.conflictEnded(a)
		if rec.Stale {
			return k.update(ctx, rec)
		}
		return nil
	case s.held && !k.twinCertain(a):
		return k.conflict(ctx, rec, doubtfulHold)
	case !s.held && !k.read(a):
		k.reread = true
		return nil
	}
	repaired := rec.OnHold
	if !s.held {
		var err error
		if rec.OnHold { // from here on the hold is in doubt, until OpenNebula says yes
			rec.OnHold = false
			if rec, err = k.mark(ctx, rec); err != nil {
				return err
			}
		}
		hctx, cancel := context.WithTimeout(ctx, k.m.opts.Fence/2)
		err = k.networks.Hold(hctx, k.reservationID(), a)
		cancel()
		switch {
		case errors.Is(err, ErrInUse):
			if err := k.refresh(ctx); err != nil {
				return err
			}
			user := k.slotOf(a).user
			if user == "" {
				user = doubtfulHold
			}
			return k.conflict(ctx, rec, user)
		case err != nil:
			k.reread = true
			return fmt.Errorf("hold %s in network %d: %w", a, k.reservationID(), err)
		}
		k.count(func(c *Counters) { c.Holds++ })
		k.setHeld(a, true)
	}
	rec.OnHold = true
	if _, err := k.mark(ctx, rec); err != nil {
		return err
	}
	k.conflictEnded(a)
	if repaired {
		k.count(func(c *Counters) { c.Repairs++ })
		k.event(EventWarning, EventHoldRepaired, a, "the hold of %s had been taken away in OpenNebula and was put back", a)
	}
	return nil
}
