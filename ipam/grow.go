package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"k8s.io/klog/v2"
)

const (
	// mostAtOnce bounds what is reserved in one call: more is an outright
	// claim on the network, and hard to find in one piece.
	mostAtOnce = 256
	// burstGap: who grows again within it is in a burst, also while nobody waits.
	burstGap = 2 * time.Second
	// askAgain is for how long allocations are told "none" without asking.
	askAgain = 5 * time.Second
	// growTime bounds one attempt, since it may try many places.
	growTime = 30 * time.Second
	// refusedFor is for how long an address that OpenNebula would not reserve,
	// being somebody's whose lease we cannot see, is not tried again.
	refusedFor = 10 * time.Minute
)

// makeReservation makes the reservation with its first addresses, and names it ours.
func (k *keeper) makeReservation(ctx context.Context) (Network, error) {
	start := time.Now()
	var id NetworkID
	err := fmt.Errorf("no addresses: %w", ErrUnusable)
	for _, f := range families {
		if !k.has(f) {
			continue
		}
		if id, _, err = k.cut(ctx, f, k.step(f), NoNetwork); !errors.Is(err, ErrNoSpace) {
			break
		}
	}
	if err != nil {
		k.reread = true
		k.mu.Lock()
		defer k.mu.Unlock()
		return Network{}, fmt.Errorf("make reservation %q in %s: %w", k.reservationName(), k.parentName(), err)
	}
	n, err := k.networks.Get(ctx, id)
	if err != nil {
		return n, fmt.Errorf("reservation %d: %w", id, err)
	}
	if err := k.settled(ctx, &n); err != nil {
		return n, err
	}
	ours, named := k.ours(n)
	switch {
	case named && !ours:
		return n, k.foreign(n)
	case !ours && time.Since(start) > k.m.opts.Adopt/2:
		return n, k.verify(ctx, &n, false) // too late: somebody may be adopting it
	case !ours:
		if err := k.sign(ctx, &n); err != nil {
			return n, err
		}
	}
	klog.FromContext(ctx).Info("Reservation made", "reservation", id, "network", n.Parent)
	k.event(EventNormal, EventReservationCreated, netip.Addr{}, "made reservation %q (%d) in network %d", n.Name, n.ID, n.Parent)
	return n, nil
}

// has reports whether the pool has addresses of a family.
func (k *keeper) has(f Family) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.parent != nil && offers(*k.parent, k.spec.limits(), f)
}

// shortage is how many addresses of a family are missing to what is wanted
// ahead and waited for. The caller holds mu.
func (k *keeper) shortage(i int) int {
	if !k.ready || k.leaving() || k.spec.Draining || k.parent == nil || !offers(*k.parent, k.spec.limits(), families[i]) {
		return 0
	}
	return max(0, k.spec.ReserveAhead+k.waiting[i]-k.index.nfree[i])
}

// lacking reports whether more addresses of a family should be reserved now.
func (k *keeper) lacking(f Family) bool {
	i := f.index()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.waiting[i] == 0 && time.Now().Before(k.nextGrow[i]) || k.verdicts[i].current() != nil {
		return false
	}
	return k.shortage(i) > 0
}

// step is by how many addresses to grow: a chunk, more when more are waited
// for, and a quarter of what is used already, so that a burst of N allocations
// costs about log N calls and not N.
func (k *keeper) step(f Family) int {
	i := f.index()
	k.mu.Lock()
	defer k.mu.Unlock()
	size := max(k.spec.ChunkSize, k.spec.ReserveAhead+k.waiting[i]-k.index.nfree[i])
	if k.waiting[i] > 0 || time.Since(k.grewAt[i]) < burstGap {
		// The records as last seen may be behind a burst; the index never is.
		size = max(size, max(k.used[i], len(k.index.byAddr)-k.index.nfree[0]-k.index.nfree[1])/4)
	}
	return min(size, mostAtOnce)
}

// grow reserves more if addresses are lacking, wanted ones first.
func (k *keeper) grow(ctx context.Context) error {
	if k.isDirect() {
		return k.growDirect(ctx)
	}
	if err := k.grant(ctx); err != nil {
		return err
	}
	for _, f := range families {
		for ctx.Err() == nil && k.lacking(f) {
			more, err := k.growFamily(ctx, f)
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

// growFamily grows by one step. It returns false if there is nothing more to get.
func (k *keeper) growFamily(ctx context.Context, f Family) (bool, error) {
	_, size, err := k.cut(ctx, f, k.step(f), k.reservationID())
	switch {
	case errors.Is(err, ErrNoSpace) || errors.Is(err, ErrDenied):
		k.exhausted(ctx, f, err)
		return false, nil
	case err != nil:
		k.reread = true // it may have worked
		return false, err
	}
	k.plenty(f)
	k.grewAt[f.index()] = time.Now()
	klog.FromContext(ctx).V(2).Info("Reserved more addresses", "family", f, "size", size)
	return true, k.refresh(ctx)
}

func (k *keeper) reservationID() NetworkID {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.reservation
}

// refresh reads the reservation again after we have changed it.
func (k *keeper) refresh(ctx context.Context) error {
	read := k.readReservation
	if k.isDirect() {
		read = k.readDirect
	}
	err := read(ctx, false)
	k.reread = err != nil
	k.workSeq = 0
	return err
}

// exhausted tells those who wait that there is nothing more.
func (k *keeper) exhausted(ctx context.Context, f Family, err error) {
	i := f.index()
	k.nextGrow[i] = time.Now().Add(jitter(k.m.opts.Interval))
	k.mu.Lock()
	short := k.waiting[i] > 0 || k.spec.ReserveAhead > 0 && k.index.nfree[i] == 0
	k.verdicts[i] = verdict{err: err, until: time.Now().Add(askAgain)}
	message := k.nothingLeft(f, err).Error()
	k.broadcast()
	k.mu.Unlock()
	klog.FromContext(ctx).V(2).Info("Cannot reserve more addresses", "family", f, "reason", err)
	if short {
		k.tellExhausted(f, err, message)
	}
}

// tellExhausted makes the event, once until the pool has grown again or the
// reason is another one.
func (k *keeper) tellExhausted(f Family, err error, message string) {
	if reason := reasonOf(err); k.denied[f.index()] != reason {
		k.denied[f.index()] = reason
		k.event(EventWarning, EventAddressesExhausted, netip.Addr{}, "%s", message)
	}
}

// tellUnserved makes the event of those who were told "none" without asking.
func (k *keeper) tellUnserved() {
	for i, f := range families {
		k.mu.Lock()
		err, message := k.verdicts[i].err, ""
		told := !k.unserved[i] || err == nil
		k.unserved[i] = false
		if !told {
			message = k.nothingLeft(f, err).Error()
		}
		k.mu.Unlock()
		if !told {
			k.tellExhausted(f, err, message)
		}
	}
}

// nothingLeft explains why there is no address, with the numbers of now. The
// caller holds p.mu.
func (p *pool) nothingLeft(f Family, err error) error {
	c := p.counts(f)
	return fmt.Errorf("%s: %d %s addresses reserved, %d used, %d of them in quarantine: %w%s",
		p.parentName(), c.Reserved, f, c.Used, c.Quarantined, err, hint(err))
}

func (k *keeper) plenty(f Family) {
	k.nextGrow[f.index()] = time.Time{}
	k.denied[f.index()] = ""
}

// cut reserves up to want addresses of a family, fewer if that is all there is
// in one piece. It returns the reservation and the number.
func (k *keeper) cut(ctx context.Context, f Family, want int, into NetworkID) (NetworkID, int, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, growTime, fmt.Errorf("no addresses found in %s: %w", growTime, ErrUnavailable))
	defer cancel()
	k.mu.Lock()
	spec, known := k.spec, k.parent
	k.mu.Unlock()
	if known == nil { // the pool's network was changed this very moment
		return NoNetwork, 0, fmt.Errorf("network: %w", ErrNotReady)
	}
	parent := *known
	var id NetworkID
	var size int
	var err error
	if spec.limits().none() && !slices.ContainsFunc(parent.Ranges, func(r Range) bool { return r.Shared }) {
		id, size, err = k.cutAnywhere(ctx, parent, f, want, into)
	} else {
		id, size, err = k.cutInside(ctx, parent.ID, spec, f, want, into)
	}
	if err == nil {
		k.count(func(c *Counters) { c.Reserved += uint64(size) })
	}
	return id, size, err
}

// cutAnywhere lets OpenNebula choose the addresses. It tries with what is known
// of the network, and reads it only if that fails.
func (k *keeper) cutAnywhere(ctx context.Context, parent Network, f Family, want int, into NetworkID) (NetworkID, int, error) {
	fresh := false
	for size := want; size > 0; {
		for _, r := range parent.Ranges {
			if !r.first(f).IsValid() || fresh && r.room(f) < size {
				continue
			}
			id, err := k.reserve(ctx, run{Range: r.ID, Size: size}, parent.ID, into)
			if !errors.Is(err, ErrNoSpace) {
				return id, size, err
			}
		}
		if fresh {
			size /= 2
			continue
		}
		var err error
		if parent, err = k.networks.Get(ctx, parent.ID); err != nil {
			return NoNetwork, 0, fmt.Errorf("network %d: %w", parent.ID, err)
		}
		k.setParent(parent)
		fresh = true
		most := 0
		for _, r := range parent.Ranges {
			if r.first(f).IsValid() {
				most = max(most, r.room(f))
			}
		}
		size = min(size, most)
	}
	return NoNetwork, 0, fmt.Errorf("%s: %w", f, ErrNoSpace)
}

// cutInside chooses the addresses inside the pool's limits, from what is read
// of the network just before.
func (k *keeper) cutInside(ctx context.Context, parent NetworkID, spec PoolSpec, f Family, want int, into NetworkID) (NetworkID, int, error) {
	n, err := k.networks.Get(ctx, parent)
	if err != nil {
		return NoNetwork, 0, fmt.Errorf("network %d: %w", parent, err)
	}
	n = spec.narrow(n)
	k.setParent(n)
	for a, at := range k.refused {
		if time.Since(at) > refusedFor {
			delete(k.refused, a)
		}
	}
	for {
		runs, _ := freeRuns(n, spec.limits(), f, func(a netip.Addr) bool { return !k.refused[a].IsZero() })
		u, ok := bestRun(runs, want)
		if !ok {
			return NoNetwork, 0, fmt.Errorf("%s that the pool may give: %w", f, ErrNoSpace)
		}
		for u.Size > 0 {
			id, err := k.reserve(ctx, u, parent, into)
			if !errors.Is(err, ErrNoSpace) {
				return id, u.Size, err
			}
			if u.Size == 1 {
				k.refused[u.First] = time.Now()
			}
			u.Size /= 2
		}
		want = min(want, max(1, want/2))
	}
}

// reserve makes the call.
func (k *keeper) reserve(ctx context.Context, u run, parent, into NetworkID) (NetworkID, error) {
	if err := context.Cause(ctx); err != nil {
		return NoNetwork, err
	}
	id, err := k.networks.Reserve(ctx, ReserveRequest{
		Parent: parent, Name: k.reservationName(), Into: into, Size: u.Size, Range: u.Range, First: u.First,
	})
	if err != nil {
		return NoNetwork, fmt.Errorf("reserve %d addresses in range %d of network %d: %w", u.Size, u.Range, parent, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.parent == nil {
		return id, nil
	}
	for _, r := range k.parent.Ranges {
		for i, f := range families {
			if r.ID == u.Range && r.first(f).IsValid() {
				k.outside[i] = max(0, k.outside[i]-u.Size)
			}
		}
	}
	return id, nil
}
