package ipam

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"k8s.io/klog/v2"
)

// endOfQuarantine is when the address may be given again. The caller holds mu.
func (p *pool) endOfQuarantine(r Record) time.Time { return r.ReleasedAt.Add(p.spec.Quarantine) }

// expire deletes the records whose quarantine is over.
func (k *keeper) expire(ctx context.Context) error {
	var failed error
	gone := map[netip.Addr]bool{}
	defer k.unlist(gone)
	for _, a := range k.expired() {
		rec, ok := k.store.Get(a)
		if !ok || rec.Phase != Quarantined || rec.Pool != k.name {
			gone[a] = true
			continue
		}
		end := k.delete
		if rec.Direct {
			end = k.reclaim
		}
		if err := end(ctx, rec); err != nil {
			failed = storeError{err}
			if !errors.Is(err, ErrConflict) {
				return failed
			}
			continue
		}
		gone[a] = !rec.Direct // its record stays, and is IPAM's
	}
	return failed
}

// unlist takes records out of the list until it is read anew.
func (k *keeper) unlist(gone map[netip.Addr]bool) {
	if len(gone) == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.records = slices.DeleteFunc(slices.Clone(k.records), func(r Record) bool { return gone[r.Address] })
	k.m.Notify()
}

func (k *keeper) expired() []netip.Addr {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	var all []netip.Addr
	for _, r := range k.records {
		if r.Phase != Quarantined {
			continue
		}
		// What we gave back and have reserved again needs no fence any more.
		again := k.claims[r.Address] && k.index.byAddr[r.Address] != nil
		if again || !now.Before(k.endOfQuarantine(r)) {
			all = append(all, r.Address)
		}
	}
	return all
}

// delete ends a record: its address may be given again.
func (k *keeper) delete(ctx context.Context, rec Record) error {
	if err := k.store.Delete(ctx, rec); err != nil {
		return fmt.Errorf("delete record of %s: %w", rec.Address, err)
	}
	k.storeWait.ok()
	again := k.claims[rec.Address] // given back by us, and reserved anew
	delete(k.claims, rec.Address)
	k.mu.Lock()
	defer k.mu.Unlock()
	if h := k.index.byAddr[rec.Address]; h != nil {
		h.rec, h.phase, h.touched = false, Active, k.m.clock.Add(1)
		if !h.ended && !again {
			// Another process released it, or gave it back.
			h.suspect, k.doubt = h.touched, true
		}
		h.ended = false
		k.index.retire(h)
		k.settle(h.slot)
	}
	return nil
}

// sweep releases holds that belong to no record. Twice, and for the grace time,
// they must have been seen like that: a person may be at work.
func (k *keeper) sweep(ctx context.Context) error {
	now := time.Now()
	seen := map[netip.Addr]time.Time{}
	for _, a := range k.unowned() {
		since, again := k.orphans[a]
		if !again {
			since = now
		}
		seen[a] = since
	}
	k.orphans = seen
	maps.DeleteFunc(k.toldOrphan, func(a netip.Addr, _ bool) bool { return seen[a].IsZero() })
	for _, a := range sortedKeys(seen) {
		if now.Sub(seen[a]) < k.m.opts.OrphanGrace || seen[a].Equal(now) {
			continue
		}
		if k.m.opts.ReportOrphans {
			k.reportOrphan(ctx, a)
			continue
		}
		if err := k.networks.Release(ctx, k.reservationID(), a); err != nil {
			return fmt.Errorf("release orphan %s in reservation %d: %w", a, k.reservationID(), err)
		}
		delete(k.orphans, a)
		k.setHeld(a, false)
		k.count(func(c *Counters) { c.Orphans++ })
		klog.FromContext(ctx).Info("Released a hold without record", "address", a)
		k.event(EventWarning, EventOrphanReleased, a, "%s was on hold in our reservation but given to nobody; released", a)
	}
	return nil
}

// unowned lists one address of each slot that is on hold for no record.
func (k *keeper) unowned() []netip.Addr {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []netip.Addr
	for _, s := range k.index.spans {
		for i := range s.slots {
			if s.slots[i].held && !k.owned(&s.slots[i]) {
				all = append(all, s.slots[i].any())
			}
		}
	}
	return all
}

// owned asks the records themselves: what we noted of them may be outdated.
func (k *keeper) owned(s *slot) bool {
	none := true
	for _, h := range s.halves {
		if h == nil {
			continue
		}
		none = false
		rec, ok := k.store.Get(h.addr)
		if h.busy || h.former || ok && rec.Phase != Quarantined {
			return true
		}
	}
	return none
}

func sortedKeys[V any](m map[netip.Addr]V) []netip.Addr {
	keys := make([]netip.Addr, 0, len(m))
	for a := range m {
		keys = append(keys, a)
	}
	slices.SortFunc(keys, netip.Addr.Compare)
	return keys
}
