package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
)

// Request asks for one address.
type Request struct {
	Pool string
	// Family may be left out with Want.
	Family Family
	// Want is the very address that is asked for. Optional.
	Want netip.Addr
	// Prefer is an address that the owner had, as far as it knows: it gets it if
	// it is in the reservation and can be given at once, else any other. Optional.
	Prefer netip.Addr
	Owner  Owner
	// AtOnce: what would have to be waited for is ErrNotNow instead.
	AtOnce bool
	// Detail goes into the record as it is.
	Detail any
}

// errPending: the keeper has not looked at the pool yet.
var errPending = errors.New("not looked at yet")

// Allocate gives an address: it creates the record, and that is the
// allocation. No call to OpenNebula is made as long as an address is reserved
// ahead; otherwise it waits until more are reserved, ctx ends, or it is clear
// that there are none. It is safe for concurrent use.
//
// Errors: ErrUnknownPool, ErrLeaving, ErrDraining, what makes the pool not ready
// (ErrNotFound, ErrForeign, ...), ErrNoSpace, ErrDenied, ErrNotNow, and for a wanted
// address ErrOutside, ErrTaken and ErrInUse. After any other error, for
// example one of the store, the record may exist nevertheless: look for one of
// this owner before asking again.
func (m *Manager) Allocate(ctx context.Context, r Request) (Record, error) {
	p, ok := m.pool(r.Pool)
	if !ok {
		return Record{}, fmt.Errorf("pool %q: %w", r.Pool, ErrUnknownPool)
	}
	if err := r.complete(); err != nil {
		return Record{}, err
	}
	rec, err := p.allocate(ctx, r)
	p.mu.Lock()
	switch {
	case err != nil && r.AtOnce: // nobody was refused: it is asked for again, and waited for
	case err != nil:
		p.counters.AllocationFailures++
	default:
		p.counters.Allocations++
	}
	p.mu.Unlock()
	if err != nil {
		return Record{}, fmt.Errorf("no %s address from pool %q: %w", r.Family, r.Pool, err)
	}
	return rec, nil
}

func (r *Request) complete() error {
	if r.Want.IsValid() {
		r.Want = r.Want.Unmap().WithZone("")
		f := familyOf(r.Want)
		if r.Family != 0 && r.Family != f {
			return fmt.Errorf("wanted address %s is not %s: %w", r.Want, r.Family, ErrOutside)
		}
		r.Family = f
	}
	if r.Family != IPv4 && r.Family != IPv6 {
		return fmt.Errorf("address family %d: %w", int(r.Family), ErrOutside)
	}
	return nil
}

func (p *pool) allocate(ctx context.Context, r Request) (Record, error) {
	waiting := false
	defer func() {
		if waiting {
			p.dismiss(r)
		}
	}()
	for {
		h, changed, err := p.take(r)
		if err != nil {
			return Record{}, err
		}
		if h != nil {
			rec, err := p.create(ctx, h, r)
			if errors.Is(err, ErrTaken) {
				continue
			}
			return rec, err
		}
		if r.AtOnce {
			return Record{}, ErrNotNow
		}
		if !waiting {
			waiting = true
			changed = p.enlist(r)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Record{}, p.gaveUp(ctx, r)
		}
	}
}

// take chooses a free address and marks it busy. Without address and error the
// caller waits for changed.
func (p *pool) take(r Request) (h *half, changed chan struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch err := p.usable(); {
	case errors.Is(err, ErrDraining) && p.comesBack(r):
	case errors.Is(err, errPending):
		return nil, p.changed, nil
	case err != nil:
		return nil, nil, err
	}
	if r.Want.IsValid() {
		h, err = p.takeWanted(r)
	} else {
		h, err = p.takeAny(r)
	}
	if h != nil {
		h.busy = true
		h.touched = p.m.clock.Add(1)
		p.index.settle(h.slot)
	}
	return h, p.changed, err
}

func (p *pool) takeAny(r Request) (*half, error) {
	f := r.Family
	if h := p.takePreferred(r); h != nil {
		return h, nil
	}
	if h := p.index.pick(f, p.wishes); h != nil {
		return h, nil
	}
	if p.parent != nil && !offers(*p.parent, p.spec.limits(), f) && p.index.nfree[f.index()] == 0 {
		why := ""
		if f == IPv6 {
			why = lackingIPv6(*p.parent)
		}
		return nil, fmt.Errorf("%s has no %s addresses that the pool may give%s: %w", p.parentName(), f, why, ErrNoSpace)
	}
	if err := p.verdicts[f.index()].current(); err != nil {
		if !p.unserved[f.index()] { // the verdict may be from before anybody asked
			p.unserved[f.index()] = true
			poke(p.wake)
		}
		return nil, p.nothingLeft(f, err)
	}
	return nil, nil
}

func (p *pool) takeWanted(r Request) (*half, error) {
	a := r.Want
	if h, done, err := p.takeFormer(r); done {
		return h, err
	}
	if !p.offers(a) {
		return nil, fmt.Errorf("%s: %w", a, ErrOutside)
	}
	h := p.index.byAddr[a]
	switch {
	case h == nil:
		if w := p.wishes[a]; w != nil {
			return nil, w.verdict.current()
		}
		return nil, nil
	case h.free:
		h.ticket = 0
		return h, nil
	case h.rec && h.phase == SetAside:
		return nil, fmt.Errorf("%s is set aside, since nobody knows whether its hold in OpenNebula is ours: %w", a, ErrInUse)
	case h.rec && (h.phase == Claiming || h.phase == Ahead || h.phase == Ending):
		return nil, nil // it is on its way to us, or away
	case h.rec && h.phase == Quarantined:
		return nil, fmt.Errorf("%s was released a short while ago and is in quarantine: %w", a, ErrTaken)
	case h.rec:
		return nil, fmt.Errorf("%s: %w", a, ErrTaken)
	case h.slot.user != "":
		return nil, fmt.Errorf("%s is used by %s: %w", a, h.slot.user, ErrInUse)
	case h.slot.direct && h.slot.held:
		return nil, fmt.Errorf("somebody else has %s on hold in OpenNebula: %w", a, ErrInUse)
	case h.slot.direct:
		if w := p.wishes[a]; w != nil {
			return nil, w.verdict.current()
		}
		return nil, nil
	case h.slot.held && !h.slot.live():
		return nil, fmt.Errorf("%s is on hold in OpenNebula without a record: %w", a, ErrInUse)
	}
	return nil, nil // another allocation has it for the moment, or it must be read again
}

// create makes the record of a taken address.
func (p *pool) create(ctx context.Context, h *half, r Request) (Record, error) {
	rec, err := p.give(ctx, Record{Address: h.addr, Pool: p.name, Owners: []Owner{r.Owner}, Phase: Active, Detail: r.Detail}, h.slot.direct)
	p.mu.Lock()
	h.busy = false
	h.touched = p.m.clock.Add(1)
	if err == nil || errors.Is(err, ErrTaken) {
		h.rec, h.phase = true, Active
		if err == nil {
			p.arrived(rec)
		}
	} else {
		// The record may exist. Until the records have been looked at and the
		// reservation has been read again, nobody gets the address.
		h.suspect = h.touched
		p.doubt = true
	}
	p.settle(h.slot)
	p.mu.Unlock()
	p.m.Notify()
	if err != nil {
		return Record{}, fmt.Errorf("record of %s: %w", h.addr, err)
	}
	return rec, nil
}

// enlist counts the request among those that wait.
func (p *pool) enlist(r Request) chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.Want.IsValid() {
		w := p.wishes[r.Want]
		if w == nil {
			w = &wish{}
			p.wishes[r.Want] = w
		}
		w.waiting++
	} else {
		p.waiting[r.Family.index()]++
	}
	poke(p.wake)
	return closed
}

// closed makes a new waiter look once more: what it waits for may have
// happened before it was counted.
var closed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

func (p *pool) dismiss(r Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !r.Want.IsValid() {
		p.waiting[r.Family.index()]--
		return
	}
	w := p.wishes[r.Want]
	if w.waiting--; w.waiting == 0 {
		delete(p.wishes, r.Want)
		if h := p.index.byAddr[r.Want]; h != nil && h.free {
			p.broadcast() // others may have it now
		}
	}
}

// gaveUp explains why the wait ended without address.
func (p *pool) gaveUp(ctx context.Context, r Request) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.trouble != nil:
		return fmt.Errorf("waited in vain (%w): %w", context.Cause(ctx), p.trouble)
	case p.parent == nil:
		return fmt.Errorf("the pool's network is not known yet: %w", context.Cause(ctx))
	}
	return fmt.Errorf("waited in vain for more addresses of %s: %w", p.parentName(), context.Cause(ctx))
}
