package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"k8s.io/klog/v2"
)

// keeper brings one pool's reservation and holds in line with its records. All
// of its fields but the pool are its own goroutine's.
type keeper struct {
	*pool
	networks Networks
	store    Records

	specSeq   int // of the spec that was last looked at with success
	basis     int // of the spec that the check at hand is about
	nextCheck time.Time
	lastRead  time.Time
	reread    bool // what we know of the reservation is in doubt
	cloudWait backoff
	storeWait backoff
	down      error // OpenNebula did not answer the last time

	work    []netip.Addr // addresses to serve, of the records as of workSeq
	workSeq uint64
	lost    []Record // active, and not in the reservation
	orphans map[netip.Addr]time.Time
	// toldOrphan are those that were reported and left alone.
	toldOrphan map[netip.Addr]bool
	conflicts  map[netip.Addr]conflict
	refused    map[netip.Addr]time.Time
	nextGrow   [2]time.Time
	grewAt     [2]time.Time
	unnamed    time.Time // since when the reservation has been without identity
	foreigner  bool      // the reservation was another cluster's when it was last read
	had        bool      // a reservation of ours was read and is not known to be back

	directState
	reservationRead Network // as last read

	scribe scribe
	claims map[netip.Addr]bool // records that we made to give a range back, done with
	denied [2]string           // what kept us from reserving more, as reported

	reported   PoolStatus
	reportedAt time.Time
	unreported bool
}

func newKeeper(p *pool) *keeper {
	return &keeper{
		pool: p, networks: p.m.networks, store: p.m.records,
		orphans: map[netip.Addr]time.Time{}, toldOrphan: map[netip.Addr]bool{}, conflicts: map[netip.Addr]conflict{}, refused: map[netip.Addr]time.Time{},
		claims: map[netip.Addr]bool{}, directState: newDirectState(p.m.opts.Claims),
	}
}

// storeError marks an error as one of Records: OpenNebula is not to blame.
type storeError struct{ error }

func (e storeError) Unwrap() error { return e.error }

// passGap is the least time between two passes that nobody asked for.
const passGap = 10 * time.Millisecond

// run keeps the pool until ctx ends or the pool is gone.
func (k *keeper) run(ctx context.Context) {
	ctx = klog.NewContext(ctx, klog.LoggerWithValues(klog.FromContext(ctx), "pool", k.name))
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.wake:
		case <-timer.C:
		}
		if k.pass(ctx) {
			return
		}
		timer.Reset(max(passGap, time.Until(k.next())))
	}
}

// pass does all that can be done now. It returns true when the pool is gone.
func (k *keeper) pass(ctx context.Context) (gone bool) {
	k.count(func(c *Counters) { c.Passes++ })
	if !k.storeWait.blocked() {
		k.settleError(ctx, k.expire(ctx), true)
	}
	if !k.storeWait.blocked() && !k.cloudWait.blocked() && ctx.Err() == nil {
		k.settleError(ctx, k.reconcile(ctx), false)
	}
	if ctx.Err() != nil {
		return false
	}
	if !k.storeWait.blocked() && !k.cloudWait.blocked() {
		k.inscribe(ctx)
	}
	k.tellUnserved()
	gone = k.isRemoved() && k.m.drop(k.pool)
	k.report(ctx)
	return gone
}

// settleError notes how a part of the pass went, and when to try again.
func (k *keeper) settleError(ctx context.Context, err error, storeOnly bool) {
	if ctx.Err() != nil {
		return
	}
	var s storeError
	switch {
	case err == nil && storeOnly:
		return
	case err == nil:
		k.cloudWait.ok()
		k.available()
		return
	case errors.As(err, &s):
		k.storeWait.fail()
		klog.FromContext(ctx).Error(err, "Records cannot be written; trying again", "failures", k.storeWait.fails)
	default:
		k.cloudWait.fail()
		k.unavailable(err)
		klog.FromContext(ctx).Error(err, "Reservation cannot be kept; trying again", "failures", k.cloudWait.fails)
	}
	k.workSeq = 0 // what failed is looked at again
	k.count(func(c *Counters) { c.Failures++ })
}

// reconcile compares with OpenNebula if it is time to, then grows the
// reservation and serves the records. It stops at the first error.
func (k *keeper) reconcile(ctx context.Context) error {
	if k.checkDue() {
		if err := k.check(ctx); err != nil {
			k.releaseAnyway(ctx, err)
			return err
		}
	}
	for ctx.Err() == nil {
		if k.checkDue() { // the spec has changed, or something was in doubt
			return nil
		}
		if err := k.tend(ctx); err != nil {
			return err
		}
		if err := k.grow(ctx); err != nil {
			return err
		}
		if err := k.retrieve(ctx); err != nil {
			return err
		}
		a, ok := k.nextWork()
		if !ok {
			break
		}
		if err := k.serve(ctx, a); err != nil {
			return err
		}
		k.report(ctx)
	}
	return nil
}

// releaseAnyway serves releases while the pool's network cannot be used: the
// reservation and its holds live on without it.
func (k *keeper) releaseAnyway(ctx context.Context, cause error) {
	if passing(cause) && !errors.Is(cause, ErrDenied) || k.isDirect() || k.reservationID() == NoNetwork {
		return
	}
	k.workSeq = 0
	for a, ok := k.nextWork(); ok && ctx.Err() == nil; a, ok = k.nextWork() {
		rec, found := k.store.Get(a)
		if !found || rec.Pool != k.name || rec.Phase != Releasing || rec.Announced || rec.Direct {
			continue
		}
		if err := k.release(ctx, rec); err != nil {
			klog.FromContext(ctx).Error(err, "Cannot release an address; trying again", "address", a)
			return
		}
	}
}

// doubtGap is the least time between two readings for a doubt about an address.
const doubtGap = 5 * time.Second

func (k *keeper) checkDue() bool {
	now := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.specSeq != k.pool.specSeq || k.reread || !now.Before(k.nextCheck) || k.vacant() {
		return true
	}
	return k.doubt && now.Sub(k.lastRead) >= doubtGap
}

// next is when the keeper has something to do even if nothing happens.
func (k *keeper) next() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	cloud := k.nextCheck
	if !k.nextTend.IsZero() {
		cloud = earlier(cloud, k.nextTend)
	}
	if k.doubt {
		cloud = earlier(cloud, k.lastRead.Add(doubtGap))
	}
	for i := range families {
		if !k.nextGrow[i].IsZero() && k.shortage(i) > 0 {
			cloud = earlier(cloud, later(k.nextGrow[i], k.verdicts[i].until))
		}
	}
	if k.reread || k.specSeq != k.pool.specSeq || k.workSeq != k.recordsSeq || len(k.work) > 0 {
		cloud = now
	}
	if k.ready && !k.scribe.due.IsZero() {
		cloud = earlier(cloud, later(k.scribe.due, k.scribe.wait.until))
	}
	cloud = later(cloud, later(k.cloudWait.until, k.storeWait.until))
	store := now.Add(k.m.opts.Interval)
	for _, r := range k.records {
		if r.Phase == Quarantined {
			store = earlier(store, k.endOfQuarantine(r))
		}
	}
	next := earlier(cloud, later(store, k.storeWait.until))
	if k.unreported {
		next = earlier(next, k.reportedAt.Add(reportGap))
	}
	return next
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// nextWork returns an address whose record needs something of OpenNebula.
func (k *keeper) nextWork() (netip.Addr, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.workSeq != k.recordsSeq {
		k.plan()
		k.workSeq = k.recordsSeq
	}
	if len(k.work) == 0 {
		return netip.Addr{}, false
	}
	a := k.work[0]
	k.work = k.work[1:]
	return a, true
}

// plan lists what is to be done for the records, releases first since they
// give addresses back. The caller holds mu.
func (k *keeper) plan() {
	var holds []netip.Addr
	k.work, k.lost = nil, nil
	for _, r := range k.records {
		h := k.index.byAddr[r.Address]
		switch {
		case r.Phase == Releasing && !r.Announced:
			k.work = append(k.work, r.Address)
		case r.Phase != Active:
		case h == nil && !k.conflicts[r.Address].quiet(""):
			k.lost = append(k.lost, r)
		case h != nil && (!r.OnHold || !h.slot.held || r.Stale) && !k.conflicts[r.Address].quiet(h.slot.user):
			holds = append(holds, r.Address)
		}
	}
	k.work = append(k.work, holds...)
}

// event reports a transition.
func (k *keeper) event(t EventType, reason string, a netip.Addr, format string, args ...any) {
	k.m.event(Event{Pool: k.name, Address: a, Type: t, Reason: reason, Message: fmt.Sprintf(format, args...)})
}

func (k *keeper) isRemoved() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.removed
}
