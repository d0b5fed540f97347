package virtualip

import (
	"context"
	"fmt"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
)

// Records of pools without reservation. What is known of the hold stands in the
// spec, beside the Services, so that both change in one write.

const setAsideMessage = "Nobody knows whether the hold that the address has in OpenNebula is ours. " +
	"Release it there if nobody needs it, or delete this VirtualIP if it is somebody else's."

var _ ipam.Claims = (*Store)(nil)

func direct(r ipam.Record) *v1alpha1.DirectHold {
	if !r.Direct {
		return nil
	}
	return &v1alpha1.DirectHold{NetworkID: int32(r.Network), State: stateOf(r.Phase, r.OnHold)} //nolint:gosec // OpenNebula's IDs are 32 bits
}

func stateOf(p ipam.Phase, onHold bool) v1alpha1.DirectState {
	switch p {
	case ipam.Claiming:
		return v1alpha1.DirectClaiming
	case ipam.Ahead:
		return v1alpha1.DirectAhead
	case ipam.Ending:
		return v1alpha1.DirectEnding
	case ipam.SetAside:
		return v1alpha1.DirectSetAside
	case ipam.Active, ipam.Releasing, ipam.Quarantined:
	}
	if onHold {
		return v1alpha1.DirectHeld
	}
	return v1alpha1.DirectDoubtful
}

// claimed reports whether the address is with IPAM: nobody has it, nor is it
// being released.
func claimed(v *v1alpha1.VirtualIP) bool {
	return v.Spec.Direct != nil && v.Spec.Direct.State != v1alpha1.DirectHeld && v.Spec.Direct.State != v1alpha1.DirectDoubtful
}

func claimPhase(s v1alpha1.DirectState) ipam.Phase {
	switch s {
	case v1alpha1.DirectClaiming:
		return ipam.Claiming
	case v1alpha1.DirectAhead:
		return ipam.Ahead
	case v1alpha1.DirectEnding:
		return ipam.Ending
	case v1alpha1.DirectSetAside, v1alpha1.DirectHeld, v1alpha1.DirectDoubtful:
	}
	return ipam.SetAside
}

// recordDirect completes the record of an address without reservation.
func recordDirect(r *ipam.Record, v *v1alpha1.VirtualIP) {
	d := v.Spec.Direct
	r.Direct, r.Network = true, ipam.NetworkID(d.NetworkID)
	r.OnHold = d.State == v1alpha1.DirectAhead || d.State == v1alpha1.DirectHeld
	r.Unwanted = claimed(v) && !v.DeletionTimestamp.IsZero() && !d.Kept
	shown := metav1.ConditionFalse
	switch {
	case r.OnHold:
		shown = metav1.ConditionTrue
	case r.Phase == ipam.SetAside:
		shown = metav1.ConditionUnknown
	}
	c := apimeta.FindStatusCondition(v.Status.Conditions, v1alpha1.VirtualIPOnHold)
	r.Stale = v.Status.Phase != phaseName(r.Phase) || c == nil || c.Status != shown
}

// Mark writes where the hold of a record stands, compare-and-swap. What is left
// in the status of the address' last use goes first: with it, the next release
// would pass for one that is over.
func (s *Store) Mark(ctx context.Context, r ipam.Record) (ipam.Record, error) {
	v, err := s.object(r.Address)
	if err != nil {
		return r, fmt.Errorf("mark VirtualIP %s: %w", r.Address, err)
	}
	if !is(v, r) || v.Spec.Direct == nil {
		return r, fmt.Errorf("mark VirtualIP %s: %w", r.Address, ipam.ErrConflict)
	}
	state := stateOf(r.Phase, r.OnHold)
	if r.Phase >= ipam.Claiming && v.Status.Phase == v1alpha1.PhaseQuarantined {
		v, err = s.patch(ctx, v, map[string]any{
			"metadata": map[string]any{"resourceVersion": v.ResourceVersion},
			"status":   map[string]any{"phase": phaseName(r.Phase), "releasedAt": nil, "holder": nil, "router": nil},
		}, "status")
		if err != nil {
			return r, fmt.Errorf("mark VirtualIP %s: %w", r.Address, err)
		}
		s.put(v)
	}
	var kept any // nil removes it
	if state == v1alpha1.DirectSetAside && !v.DeletionTimestamp.IsZero() {
		kept = true
	}
	n, err := s.patch(ctx, v, map[string]any{
		"metadata": map[string]any{"resourceVersion": v.ResourceVersion},
		"spec":     map[string]any{"direct": map[string]any{"state": state, "kept": kept}},
	}, "")
	if err != nil {
		return r, fmt.Errorf("mark VirtualIP %s: %w", r.Address, err)
	}
	return s.written(n), nil
}

// Take gives an address that is kept ahead to the owners of the record.
func (s *Store) Take(ctx context.Context, r ipam.Record) (ipam.Record, error) {
	d, ok := r.Detail.(Detail)
	if !ok {
		return r, fmt.Errorf("take VirtualIP %s: detail is a %T, not a virtualip.Detail", r.Address, r.Detail)
	}
	return s.change(ctx, r.Address, func(v *v1alpha1.VirtualIP) (map[string]any, error) {
		if phase(v) != ipam.Ahead || v.Spec.Pool != r.Pool || !v.DeletionTimestamp.IsZero() {
			return nil, fmt.Errorf("take VirtualIP %s: %w", v.Name, ipam.ErrTaken)
		}
		return map[string]any{
			"services": references(r.Owners, d), "share": d.Share, "retain": nil, "releaseTime": nil, "role": d.Role,
			"trafficPolicy": d.TrafficPolicy, "interfaces": d.Interfaces, "router": d.Router,
			"direct": map[string]any{"state": v1alpha1.DirectHeld},
		}, nil
	})
}
