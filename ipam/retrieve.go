package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// retrieve reserves again what active records name and the reservation lacks:
// somebody gave it back, or removed the reservation, behind our back.
func (k *keeper) retrieve(ctx context.Context) error {
	lost := k.lost
	k.lost = nil
	if k.isDirect() {
		return k.reportLost(ctx, lost)
	}
	k.mu.Lock()
	into, leaving, known, spec := k.reservation, k.leaving(), k.parent, k.spec
	k.mu.Unlock()
	if len(lost) == 0 || leaving || into == NoNetwork || known == nil {
		return nil
	}
	parent, err := k.networks.Get(ctx, known.ID)
	if err != nil {
		return fmt.Errorf("network %d: %w", known.ID, err)
	}
	parent = spec.narrow(parent)
	k.setParent(parent)
	missing := map[netip.Addr]Record{}
	for _, r := range lost {
		missing[r.Address] = r
	}
	for _, u := range runsOf(parent, lost) {
		if err := k.retrieveRun(ctx, u, parent.ID, into, missing); err != nil {
			k.reread = true
			return err
		}
	}
	for _, r := range lost {
		if _, ok := missing[r.Address]; !ok {
			continue
		}
		if err := k.conflict(ctx, r, "somebody else: it has left our reservation, and cannot be reserved again"); err != nil {
			return err
		}
	}
	return k.refresh(ctx)
}

// runsOf joins the addresses of records, which are sorted, to runs inside the
// ranges of the network.
func runsOf(n Network, recs []Record) []run {
	var runs []run
	for _, rec := range recs {
		r, ok := rangeWith(n, rec.Address)
		if !ok {
			continue
		}
		if len(runs) > 0 {
			u := &runs[len(runs)-1]
			if u.Range == r.ID && u.Size < mostAtOnce && advance(u.First, u.Size) == rec.Address {
				u.Size++
				continue
			}
		}
		runs = append(runs, run{Range: r.ID, First: rec.Address, Size: 1})
	}
	return runs
}

// retrieveRun reserves a run, or what of it can be had, and takes what it got
// out of missing.
func (k *keeper) retrieveRun(ctx context.Context, u run, parent, into NetworkID, missing map[netip.Addr]Record) error {
	_, err := k.reserve(ctx, u, parent, into)
	switch {
	case errors.Is(err, ErrNoSpace) && u.Size == 1:
		return nil
	case errors.Is(err, ErrNoSpace):
		left := run{Range: u.Range, First: u.First, Size: u.Size / 2}
		right := run{Range: u.Range, First: advance(u.First, left.Size), Size: u.Size - left.Size}
		if err := k.retrieveRun(ctx, left, parent, into, missing); err != nil {
			return err
		}
		return k.retrieveRun(ctx, right, parent, into, missing)
	case err != nil:
		return err
	}
	k.count(func(c *Counters) { c.Reserved += uint64(u.Size); c.Repairs += uint64(u.Size) })
	for i := range u.Size {
		a := advance(u.First, i)
		delete(missing, a)
		k.event(EventWarning, EventAddressRecovered, a, "%s had left our reservation in OpenNebula and was reserved again", a)
	}
	return nil
}

// grant reserves addresses that allocations ask for by name.
func (k *keeper) grant(ctx context.Context) error {
	got := false
	for _, a := range k.wished() {
		r, into, ok := k.placeOf(a)
		err := fmt.Errorf("%s: %w", a, ErrOutside)
		if ok {
			_, err = k.reserve(ctx, run{Range: r.ID, First: a, Size: 1}, r.parent, into)
		}
		switch {
		case err == nil:
			got = true
			k.count(func(c *Counters) { c.Reserved++ })
		case errors.Is(err, ErrNoSpace):
			k.refuse(a, fmt.Errorf("somebody else uses %s in the network: %w", a, ErrInUse))
		case errors.Is(err, ErrDenied) || errors.Is(err, ErrOutside):
			k.refuse(a, err)
		default:
			k.reread = true
			return err
		}
	}
	if !got {
		return nil
	}
	return k.refresh(ctx)
}

// wished lists the addresses that are waited for and not reserved.
func (k *keeper) wished() []netip.Addr {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.ready || k.leaving() || k.spec.Draining || len(k.wishes) == 0 {
		return nil
	}
	open := map[netip.Addr]bool{}
	for a, w := range k.wishes {
		if k.index.byAddr[a] == nil && w.verdict.current() == nil {
			open[a] = true
		}
	}
	return sortedKeys(open)
}

// place is a range and the network that it is in.
type place struct {
	Range
	parent NetworkID
}

func (k *keeper) placeOf(a netip.Addr) (place, NetworkID, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.parent == nil {
		return place{}, NoNetwork, false
	}
	r, ok := rangeWith(*k.parent, a)
	return place{Range: r, parent: k.parent.ID}, k.reservation, ok
}

func (k *keeper) refuse(a netip.Addr, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if w := k.wishes[a]; w != nil {
		w.verdict = verdict{err: err, until: time.Now().Add(askAgain)}
	}
	k.broadcast()
}
