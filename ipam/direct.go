package ipam

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const (
	// directMost bounds a network without reservation, every address of which
	// is kept in memory.
	directMost = 1 << 17
	// claimMost bounds what is put on hold in one go, between two looks at
	// what else there is to do.
	claimMost = 32
)

// directState is what a keeper knows of direct records; see "Without
// reservation" in the package comment.
type directState struct {
	marks    Claims
	attempts map[netip.Addr]attempt // that this process made, with their outcome
	seen     map[netip.Addr]sighting
	aside    map[netip.Addr]bool // reported as set aside
	readAt   uint64              // the clock when the last reading of the network began
	// readBegan is the time of that.
	readBegan time.Time
	tended    uint64 // recordsSeq of the last tend
	tendRead  uint64 // readAt of it
	nextTend  time.Time
}

func newDirectState(c Claims) directState {
	return directState{marks: c, attempts: map[netip.Addr]attempt{}, seen: map[netip.Addr]sighting{}, aside: map[netip.Addr]bool{}}
}

// sighting is since when a record is seen in its phase.
type sighting struct {
	id      string
	phase   Phase
	version string // only Claiming and Ending, which nobody writes but to end them
	clock   uint64
	at      time.Time
}

// errMoved: another process has changed or deleted a record that we were about
// to change. Its fate is in that process' hands.
var errMoved = errors.New("record has moved on")

func (p *pool) isDirect() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.spec.Direct
}

// learn takes the settings of a pool that only its records tell of.
func (p *pool) learn(recs []Record) {
	for _, r := range recs {
		if r.Direct {
			id := r.Network
			p.spec.Direct, p.spec.Network, p.index.direct = true, NetworkQuery{ID: &id}, true
			return
		}
	}
}

// give makes an address its owner's: it creates the record, or, where there is
// one already, takes it.
func (p *pool) give(ctx context.Context, r Record, direct bool) (Record, error) {
	if !direct {
		return p.m.records.Create(ctx, r)
	}
	r.Direct = true
	return p.m.opts.Claims.Take(ctx, r)
}

// mixed returns an error if records of the pool live on holds of another kind
// than the pool says: it was removed by force and made anew.
func (k *keeper) mixed() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.records {
		if r.Direct != k.spec.Direct && !r.isClaim() {
			return fmt.Errorf("%s was given by a pool of this name with another spec.reservation; make the pool as it was: %w", r.Address, ErrUnusable)
		}
	}
	return nil
}

// checkDirect reads the network and takes over what it finds.
func (k *keeper) checkDirect(ctx context.Context, seq int, full, leaving bool) error {
	if k.marks == nil {
		return fmt.Errorf("pools without reservation are not supported here: %w", ErrUnusable)
	}
	if err := k.mixed(); err != nil {
		return err
	}
	if err := k.readDirect(ctx, leaving); err != nil {
		return err
	}
	k.done(seq)
	if err := k.tend(ctx); err != nil {
		return err
	}
	if full {
		return k.trim(ctx)
	}
	if k.isVacant() && !slices.ContainsFunc(k.store.List(), func(r Record) bool { return r.Pool == k.name }) {
		k.setRemoved(false)
	}
	return nil
}

// readDirect reads the network that the holds are in.
func (k *keeper) readDirect(ctx context.Context, leaving bool) error {
	at, began := k.m.clock.Add(1), time.Now()
	k.count(func(c *Counters) { c.Reads++ })
	k.mu.Lock()
	spec, known := k.spec, k.parent
	k.mu.Unlock()
	var n Network
	var err error
	if known != nil {
		n, err = k.networks.Get(ctx, known.ID)
	} else {
		n, err = k.networks.Find(ctx, spec.Network)
	}
	switch {
	case errors.Is(err, ErrNotFound) && leaving:
		n = Network{ID: NoNetwork} // and with it all its holds
	case err != nil:
		return fmt.Errorf("network %s of the pool: %w", spec.Network, err)
	default:
		if err := usableDirect(n, spec, leaving); err != nil {
			return err
		}
		k.setParent(n)
	}
	k.readAt, k.readBegan = at, began
	k.takeOver(n, at)
	return nil
}

// usableDirect returns why a network cannot be used without a reservation.
func usableDirect(n Network, spec PoolSpec, leaving bool) error {
	if leaving {
		return nil
	}
	if n.Parent == NoNetwork && !n.Ready {
		return fmt.Errorf("network %q (%d) is in state %s: %w", n.Name, n.ID, n.State, ErrNotReady)
	}
	if err := checkRanges(n, spec); err != nil {
		return err
	}
	size := 0
	for _, r := range n.Ranges {
		if !r.First4.IsValid() && !r.First6.IsValid() {
			continue
		}
		size += r.Size
		if r.hidden() > 0 {
			return fmt.Errorf("range %d of network %q (%d) has leases that our user cannot see; without a reservation it needs USE and MANAGE on the network: %w",
				r.ID, n.Name, n.ID, ErrDenied)
		}
	}
	if size > directMost {
		return fmt.Errorf("network %q (%d) has %d addresses, which is more than the %d that a pool without reservation can watch over; let it reserve (spec.reservation: child): %w",
			n.Name, n.ID, size, directMost, ErrUnusable)
	}
	return nil
}

// growDirect puts more addresses on hold if they are lacking, wanted ones first.
func (k *keeper) growDirect(ctx context.Context) error {
	for _, a := range k.wishedDirect() {
		k.mu.Lock()
		s := k.index.byAddr[a].slot
		k.mu.Unlock()
		switch err := k.claimSlot(ctx, s); {
		case errors.Is(err, ErrInUse):
			k.refuse(a, fmt.Errorf("somebody else uses %s in the network: %w", a, ErrInUse))
		case errors.Is(err, ErrDenied):
			k.refuse(a, err)
		case err != nil:
			return err
		}
	}
	for _, f := range families {
		for ctx.Err() == nil && k.lacking(f) {
			more, err := k.growDirectFamily(ctx, f)
			if err != nil {
				return err
			}
			if !more {
				break
			}
		}
	}
	return nil
}

// wishedDirect lists the addresses that are waited for and that nobody has.
func (k *keeper) wishedDirect() []netip.Addr {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.ready || k.leaving() || k.spec.Draining {
		return nil
	}
	open := map[netip.Addr]bool{}
	for a, w := range k.wishes {
		if h := k.index.byAddr[a]; h != nil && k.claimable(h.slot, h) && w.verdict.current() == nil {
			open[a] = true
		}
	}
	return sortedKeys(open)
}

// claimable reports whether the address h of the slot could be put on hold for
// the pool. The caller holds mu.
func (k *keeper) claimable(s *slot, h *half) bool {
	if s.held || s.user != "" || !h.allowed {
		return false
	}
	for _, o := range s.halves {
		if o != nil && (o.rec || o.busy || o.suspect != 0 || !k.refused[o.addr].IsZero()) {
			return false
		}
	}
	return true
}

// growDirectFamily puts on hold what is missing. What is free is known from the
// last reading; if that is not enough the network is read again. It returns
// false if there is nothing more to get.
func (k *keeper) growDirectFamily(ctx context.Context, f Family) (bool, error) {
	fresh := false
	for {
		slots := k.candidates(f, min(claimMost, k.missing(f)))
		if len(slots) == 0 && fresh {
			k.exhausted(ctx, f, fmt.Errorf("%s that the pool may give: %w", f, ErrNoSpace))
			return false, nil
		}
		got := false
		for _, s := range slots {
			err := k.claimSlot(ctx, s)
			switch {
			case errors.Is(err, ErrDenied):
				k.exhausted(ctx, f, err)
				return false, nil
			case err != nil && !errors.Is(err, ErrInUse):
				return false, err
			}
			got = got || err == nil
			if k.missing(f) == 0 {
				break
			}
		}
		if got {
			k.plenty(f)
			return true, nil
		}
		for a, at := range k.refused {
			if time.Since(at) > refusedFor {
				delete(k.refused, a)
			}
		}
		if err := k.refresh(ctx); err != nil {
			return false, err
		}
		fresh = len(slots) == 0 // else others may be free although these were not
	}
}

func (k *keeper) missing(f Family) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.shortage(f.index())
}

// candidates are slots that nobody uses: the longest unused first, then by address.
func (k *keeper) candidates(f Family, most int) []*slot {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []*half
	for _, h := range k.index.byAddr {
		if familyOf(h.addr) == f && k.claimable(h.slot, h) && k.wishes[h.addr] == nil {
			all = append(all, h)
		}
	}
	slices.SortFunc(all, func(a, b *half) int { return cmp.Or(cmp.Compare(a.used, b.used), a.addr.Compare(b.addr)) })
	var slots []*slot
	for _, h := range all[:min(len(all), most)] {
		slots = append(slots, h.slot)
	}
	return slots
}

// reportLost reports active addresses that the network has no more.
func (k *keeper) reportLost(ctx context.Context, lost []Record) error {
	for _, r := range lost {
		rec, ok := k.store.Get(r.Address)
		if !ok || rec.Phase != Active || rec.Pool != k.name {
			continue
		}
		err := k.conflict(ctx, rec, "whoever has it now: its address range is no longer part of the network")
		if err != nil && !errors.Is(err, errMoved) {
			return err
		}
	}
	return nil
}

// checkRanges returns why a network has nothing that the pool could give.
func checkRanges(n Network, spec PoolSpec) error {
	l := spec.limits()
	if offers(n, l, IPv4) || offers(n, l, IPv6) {
		return nil
	}
	return fmt.Errorf("network %q (%d) has no addresses%s%s%s: %w", n.Name, n.ID, inLimits(l), spec.inShared(), unsupported(n), ErrUnusable)
}

// unsupported names the ranges of a network that have no addresses for a pool,
// or lack those of one family, and why.
func unsupported(n Network) string {
	var text strings.Builder
	for _, r := range n.Ranges {
		if r.Kind == RangeEther {
			text.WriteString(fmt.Sprintf("; range %d (%s) has MAC addresses only: add one of another type", r.ID, r.Kind))
		}
	}
	return text.String() + lackingIPv6(n)
}

// lackingIPv6 names the ranges of a network that have no IPv6 addresses although
// their type has, and why.
func lackingIPv6(n Network) string {
	text, named := "", 0
	for _, r := range n.Ranges {
		if r.NoIPv6 == "" {
			continue
		}
		if named++; named > namedAtMost {
			return text + "; ..."
		}
		text += fmt.Sprintf("; range %d (%s) gives no IPv6 addresses: %s", r.ID, r.Kind, r.NoIPv6)
	}
	return text
}
