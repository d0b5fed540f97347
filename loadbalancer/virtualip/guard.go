package virtualip

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
)

// Active reports whether somebody has the address, or it is kept for somebody:
// it is not being released.
func Active(v *v1alpha1.VirtualIP) bool { return phase(v) == ipam.Active }

// SetCandidates replaces the candidates of a guarded address by what decide
// makes of them, compare-and-swap: decide sees the very object that is then
// written, and may be called several times. It must not change what it is given.
// An object that is gone, or has no guard, is left alone.
func (s *Store) SetCandidates(ctx context.Context, a netip.Addr, decide func(*v1alpha1.VirtualIP) []v1alpha1.Candidate) error {
	_, err := s.change(ctx, a, func(v *v1alpha1.VirtualIP) (map[string]any, error) {
		if v.Spec.Guard == nil {
			return nil, nil
		}
		next := decide(v)
		if slices.Equal(next, v.Spec.Guard.Candidates) {
			return nil, nil
		}
		if next == nil {
			next = []v1alpha1.Candidate{} // a null would leave the list as it is
		}
		return map[string]any{"guard": map[string]any{"candidates": next}}, nil
	})
	if errors.Is(err, ipam.ErrNotFound) {
		return nil
	}
	return err
}
