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
	// settleTime is for how long OpenNebula may be at making a reservation (it
	// is in LOCK_CREATE then; p50 9 ms) before we come back later.
	settleTime = 10 * time.Second
	settlePoll = 20 * time.Millisecond
)

// check reads network and reservation, makes the reservation if there is none,
// and takes over what it finds.
func (k *keeper) check(ctx context.Context) error {
	k.mu.Lock()
	spec, seq, leaving, removed := k.spec, k.pool.specSeq, k.leaving(), k.removed
	k.mu.Unlock()
	k.basis = seq
	full := seq != k.specSeq || !time.Now().Before(k.nextCheck)
	if err := spec.validate(k.m.opts.Cluster); err != nil {
		return err
	}
	if removed {
		k.done(seq)
		return nil
	}
	if spec.Direct {
		return k.checkDirect(ctx, seq, full, leaving)
	}
	if err := k.mixed(); err != nil {
		return err
	}
	if full && !leaving {
		if err := k.readParent(ctx, spec); err != nil {
			return err
		}
	}
	if err := k.readReservation(ctx, leaving); err != nil {
		return err
	}
	if full && !leaving {
		k.sever(k.reservationRead)
	}
	k.done(seq)
	if full {
		if err := k.sweep(ctx); err != nil {
			return err
		}
		return k.shrink(ctx, leaving)
	}
	if leaving {
		return k.shrink(ctx, true)
	}
	return nil
}

// done notes a completed check.
func (k *keeper) done(seq int) {
	k.specSeq, k.reread = seq, false
	if !time.Now().Before(k.nextCheck) {
		every := k.m.opts.Interval
		if len(k.conflicts) > 0 {
			every = min(every, conflictRetry)
		}
		k.nextCheck = time.Now().Add(jitter(every))
	}
	k.workSeq = 0
}

// readParent reads the pool's network.
func (k *keeper) readParent(ctx context.Context, spec PoolSpec) error {
	k.mu.Lock()
	known := k.parent
	k.mu.Unlock()
	var n Network
	var err error
	if known != nil {
		n, err = k.networks.Get(ctx, known.ID)
	} else {
		n, err = k.networks.Find(ctx, spec.Network)
	}
	n = spec.narrow(n)
	if err != nil {
		return fmt.Errorf("network %s of the pool: %w", spec.Network, err)
	}
	if n.Parent != NoNetwork {
		return fmt.Errorf("network %q (%d) is a reservation itself, name the network %d that it is from: %w", n.Name, n.ID, n.Parent, ErrUnusable)
	}
	if err := checkRanges(n, spec); err != nil {
		return err
	}
	k.setParent(n)
	return nil
}

func inLimits(l limits) string {
	if l.none() {
		return ""
	}
	return " that the pool may give (ranges, avoidEdgeAddresses)"
}

func (k *keeper) setParent(n Network) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.parent = &n
	k.countOutside()
	if k.spec.Shared {
		k.index.limit(k.allows) // it depends on the ranges
	}
}

// readReservation reads the pool's reservation, makes it if there is none,
// checks that it is ours, and takes over ranges and leases.
func (k *keeper) readReservation(ctx context.Context, leaving bool) error {
	readAt := k.m.clock.Add(1)
	n, err := k.findReservation(ctx)
	switch {
	case errors.Is(err, ErrNotFound) && leaving:
		k.setRemoved(k.had)
		return nil
	case errors.Is(err, ErrNotFound):
		n, err = k.makeReservation(ctx)
	case err == nil:
		err = k.verify(ctx, &n, leaving)
	}
	if (errors.Is(err, ErrForeign) || errors.Is(err, ErrWrongParent)) && k.isVacant() {
		// What has our reservation's name is somebody else's: it stays, and the
		// removal of the pool does not wait for it.
		k.setRemoved(false)
		return nil
	}
	if err != nil {
		return err
	}
	k.takeOver(n, readAt)
	return nil
}

func (k *keeper) isVacant() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.vacant()
}

func (k *keeper) findReservation(ctx context.Context) (Network, error) {
	k.count(func(c *Counters) { c.Reads++ })
	k.mu.Lock()
	id := k.reservation
	k.mu.Unlock()
	if id != NoNetwork {
		n, err := k.networks.Get(ctx, id)
		if !errors.Is(err, ErrNotFound) {
			return n, wrap(err, "reservation %d", id)
		}
		k.forgetReservation()
	}
	n, err := k.networks.FindReservation(ctx, k.reservationName())
	return n, wrap(err, "reservation %q", k.reservationName())
}

func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}

// forgetReservation notes that the reservation is gone: nothing in it may be given.
func (k *keeper) forgetReservation() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.reservation, k.ready, k.doubt = NoNetwork, false, false
	k.index.apply(Network{}, 0, k.allows, k.store.Get)
}

// verify makes sure that a reservation that was there is ours.
func (k *keeper) verify(ctx context.Context, n *Network, leaving bool) error {
	if err := k.settled(ctx, n); err != nil {
		return err
	}
	if err := k.parentRight(*n, leaving); err != nil {
		return err
	}
	ours, named := k.ours(*n)
	switch {
	case !named && n.official():
		// It is in use, by a cluster that may be this one: it is moved, or stays.
		return fmt.Errorf("reservation %q (%d) is that of OpenNebula's own cloud-controller-manager, see onelbctl migrate opennebula-ccm: %w", n.Name, n.ID, ErrForeign)
	case ours:
		k.unnamed = time.Time{}
		return nil
	case named:
		k.foreigner = true
		return k.foreign(*n)
	}
	// A crash of ours after the reservation was made, or somebody with the same
	// user and cluster name is making it now and has yet to name it.
	if k.unnamed.IsZero() {
		k.unnamed = time.Now()
	}
	if wait := time.Until(k.unnamed.Add(k.m.opts.Adopt)); wait > 0 {
		k.reread = true
		return fmt.Errorf("reservation %q (%d) carries no cluster yet, adopting it in %s if it stays so: %w", n.Name, n.ID, wait.Round(time.Second), ErrNotReady)
	}
	klog.FromContext(ctx).Info("Adopting a reservation without cluster", "reservation", n.ID)
	return k.sign(ctx, n)
}

func (k *keeper) parentRight(n Network, leaving bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if n.Parent == NoNetwork {
		return fmt.Errorf("network %q (%d) is no reservation but has the name of the pool's: %w", n.Name, n.ID, ErrWrongParent)
	}
	if !leaving && k.parent != nil && n.Parent != k.parent.ID {
		return fmt.Errorf("network %q (%d) was cut from network %d, the pool is on %d: %w", n.Name, n.ID, n.Parent, k.parent.ID, ErrWrongParent)
	}
	return nil
}

// AttributeOfficialService is what OpenNebula's own cloud-controller-manager writes on a
// range of its reservation, <cluster>-lb: whose the one address in it is.
const AttributeOfficialService = "LB_NAME"

// official reports whether the network is a reservation of OpenNebula's own
// cloud-controller-manager.
func (n Network) official() bool {
	return slices.ContainsFunc(n.Ranges, func(r Range) bool { return r.Attributes[AttributeOfficialService] != "" })
}

// ours reports whether the reservation carries our identity, and whether it
// carries any.
func (k *keeper) ours(n Network) (ours, named bool) {
	uid, pool := n.Attributes[AttributeClusterUID], n.Attributes[AttributePool]
	return uid == k.m.opts.Identity && pool == k.name, uid != ""
}

func (k *keeper) foreign(n Network) error {
	return fmt.Errorf("reservation %q (%d) is of cluster %q with UID %s, pool %q; this cluster has UID %s: %w",
		n.Name, n.ID, n.Attributes[AttributeCluster], n.Attributes[AttributeClusterUID], n.Attributes[AttributePool], k.m.opts.Identity, ErrForeign)
}

// settled waits until OpenNebula has made the reservation.
func (k *keeper) settled(ctx context.Context, n *Network) error {
	end := time.Now().Add(settleTime)
	for !n.Ready {
		if time.Now().After(end) {
			return fmt.Errorf("reservation %q (%d) is in state %s: %w", n.Name, n.ID, n.State, ErrNotReady)
		}
		if !sleep(ctx, settlePoll) {
			return ctx.Err()
		}
		fresh, err := k.networks.Get(ctx, n.ID)
		if err != nil {
			return fmt.Errorf("reservation %d: %w", n.ID, err)
		}
		*n = fresh
	}
	return nil
}

// sign writes our identity on the reservation and makes sure that it is there.
func (k *keeper) sign(ctx context.Context, n *Network) error {
	err := k.networks.Annotate(ctx, n.ID, map[string]string{
		AttributeCluster: k.m.opts.Cluster, AttributeClusterUID: k.m.opts.Identity, AttributePool: k.name,
		AttributeAlive: aliveText(time.Now()),
	})
	if err != nil {
		return fmt.Errorf("name reservation %q (%d) ours: %w", n.Name, n.ID, err)
	}
	if *n, err = k.networks.Get(ctx, n.ID); err != nil {
		return fmt.Errorf("reservation %d: %w", n.ID, err)
	}
	if ours, _ := k.ours(*n); !ours {
		return k.foreign(*n)
	}
	k.unnamed = time.Time{}
	return nil
}

// takeOver makes what was read the base of all decisions.
func (k *keeper) takeOver(n Network, readAt uint64) {
	k.lastRead, k.had, k.reservationRead = time.Now(), true, n
	if k.foreigner {
		k.foreigner = false
		k.m.adopted.Store(time.Now().UnixNano())
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.reservation, k.ready, k.doubt, k.filtered = n.ID, k.basis == k.pool.specSeq, false, n.filtered()
	k.index.apply(n, readAt, k.allows, k.store.Get)
	k.meet(k.store.Get)
	k.scribe.alive = AliveAt(n)
	k.attend(true)
	for _, h := range k.index.byAddr {
		k.doubt = k.doubt || h.suspect != 0
	}
	k.broadcast()
}

// setRemoved notes that nothing is reserved for the pool; returned says that
// there was a reservation of ours, which OpenNebula has back. The pool may be
// wanted again since that began: then the next check reserves anew.
func (k *keeper) setRemoved(returned bool) {
	k.forgetReservation()
	k.mu.Lock()
	again := k.removed
	k.removed = k.leaving()
	k.mu.Unlock()
	k.had = false
	if returned && !again {
		k.event(EventNormal, EventReservationReturned, netip.Addr{}, "the pool was removed; its reservation %q is back in OpenNebula", k.reservationName())
	}
}
