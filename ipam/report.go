package ipam

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"k8s.io/klog/v2"
)

// reportGap is the least time between two status reports that differ in
// numbers only.
const reportGap = 250 * time.Millisecond

// report tells the world if the pool's status has changed.
func (k *keeper) report(ctx context.Context) {
	k.mu.Lock()
	rough := k.ready == k.reported.Ready && k.reason() == k.reported.Reason && k.reportedAt.Add(reportGap).After(time.Now())
	if rough {
		k.unreported = true
		k.mu.Unlock()
		return
	}
	s := k.status()
	k.mu.Unlock()
	k.unreported = false
	if s == k.reported {
		return
	}
	old := k.reported
	k.reported, k.reportedAt = s, time.Now()
	if k.m.opts.OnStatus != nil {
		k.m.opts.OnStatus(s)
	}
	k.announce(ctx, old, s)
}

// announce makes events of what changed about being ready.
func (k *keeper) announce(ctx context.Context, old, s PoolStatus) {
	switch {
	case s.Reason == ReasonRemoved || s.Reason == ReasonLeaving || s.Reason == ReasonPending:
	case s.Ready && !old.Ready:
		klog.FromContext(ctx).Info("Pool is ready", "network", s.NetworkID, "reservation", s.ReservationID)
		k.event(EventNormal, EventPoolReady, netip.Addr{}, "%s", s.Message)
	case !s.Ready && (old.Ready || old.Reason != s.Reason):
		k.event(EventWarning, EventPoolNotReady, netip.Addr{}, "%s", s.Message)
	}
}

// available notes that a pass went well.
func (k *keeper) available() {
	k.mu.Lock()
	if k.trouble != nil {
		k.trouble = nil
		k.broadcast()
	}
	k.mu.Unlock()
	if k.down != nil {
		k.down = nil
		k.event(EventNormal, EventOpenNebulaAvailable, netip.Addr{}, "OpenNebula answers again")
	}
}

// unavailable notes why a pass failed. A pool that was ready stays so unless
// the error says that its reservation or network is not what it was.
func (k *keeper) unavailable(err error) {
	k.mu.Lock()
	k.trouble = err
	if !passing(err) {
		k.ready = false
	}
	ready := k.ready
	k.broadcast()
	k.mu.Unlock()
	away := errors.Is(err, ErrUnavailable) || errors.Is(err, ErrUnauthenticated)
	if ready && away && k.down == nil {
		k.down = err
		k.event(EventWarning, EventOpenNebulaUnavailable, netip.Addr{},
			"%v%s; addresses that are reserved ahead are still given", err, hint(err))
	}
}
