package virtualip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
)

// ErrReleased says that the address has begun to be released, or its object is being
// deleted; nobody can join it any more.
var ErrReleased = errors.New("address is being released")

// changeAttempts is how often a change is decided anew because somebody else
// wrote the object in between; node agents write their status into it too.
const changeAttempts = 10

// Own puts a Service on an address that has at least one, or renews what a
// Service of it has: traffic policy, interfaces, router, sharing key and ports.
// admit decides on the very object that is then written, compare-and-swap: what
// it has seen is still so when the write succeeds. It may be called several
// times, and is not called if there is nothing to write. An address
// without Services can be owned while it is kept for the Service's name.
// ErrReleased, ipam.ErrNotFound: it is too late for that.
func (s *Store) Own(ctx context.Context, a netip.Addr, service v1alpha1.ServiceReference, d Detail, admit func(*v1alpha1.VirtualIP) error) (ipam.Record, error) {
	service.Ports, service.Retain = d.Ports, d.retain()
	return s.change(ctx, a, func(v *v1alpha1.VirtualIP) (map[string]any, error) {
		i := slices.IndexFunc(v.Spec.Services, func(r v1alpha1.ServiceReference) bool { return r.UID == service.UID })
		if i >= 0 && equality.Semantic.DeepEqual(v.Spec.Services[i], service) && sameDetail(v, d) {
			return nil, nil
		}
		if !v.DeletionTimestamp.IsZero() || len(v.Spec.Services) == 0 && !keptFor(v, service) {
			return nil, fmt.Errorf("VirtualIP %s: %w", v.Name, ErrReleased)
		}
		if err := admit(v); err != nil {
			return nil, err
		}
		refs := without(v.Spec.Services, service.UID)
		refs = append(refs, service)
		slices.SortFunc(refs, compareReferences)
		return map[string]any{
			"services": refs, "share": d.Share, "retain": nil, "releaseTime": nil,
			"trafficPolicy": d.TrafficPolicy, "interfaces": d.Interfaces, "router": d.Router,
			"nodeSelector": d.NodeSelector, "nodePreferences": d.NodePreferences,
		}, nil
	})
}

func sameDetail(v *v1alpha1.VirtualIP, d Detail) bool {
	return v.Spec.TrafficPolicy == d.TrafficPolicy && samePlace(v, d) && v.Spec.Share == d.Share &&
		(v.Spec.Router == nil) == (d.Router == nil) && (d.Router == nil || *v.Spec.Router == *d.Router)
}

// Place brings what d says of interfaces and nodes to all addresses of a pool that
// Services have. Those that have it already cost nothing.
func (s *Store) Place(ctx context.Context, pool string, d Detail) error {
	var errs []error
	for _, v := range s.Objects(func(v *v1alpha1.VirtualIP) bool { return v.Spec.Pool == pool && !samePlace(v, d) }) {
		a, err := netip.ParseAddr(v.Spec.Address)
		if err != nil {
			continue // not one of ours
		}
		_, err = s.change(ctx, a, func(v *v1alpha1.VirtualIP) (map[string]any, error) {
			if len(v.Spec.Services) == 0 || samePlace(v, d) {
				return nil, nil
			}
			return map[string]any{"interfaces": d.Interfaces, "nodeSelector": d.NodeSelector, "nodePreferences": d.NodePreferences}, nil
		})
		if !errors.Is(err, ipam.ErrNotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func samePlace(v *v1alpha1.VirtualIP, d Detail) bool {
	return slices.Equal(v.Spec.Interfaces, d.Interfaces) &&
		v.Spec.NodeSelector == d.NodeSelector && slices.Equal(v.Spec.NodePreferences, d.NodePreferences)
}

// Left is what became of an address that a Service was taken off.
type Left struct {
	// Services that have it still.
	Services int
	// Until is when it is released, if it is kept for the name of the Service.
	Until time.Time
}

// Disown takes a Service off an address. Without Services the address begins
// to be released, or, with retain and if the Service has asked for it, is kept
// for the next Service of its name.
func (s *Store) Disown(ctx context.Context, a netip.Addr, service types.UID, retain bool) (left Left, err error) {
	_, err = s.change(ctx, a, func(v *v1alpha1.VirtualIP) (map[string]any, error) {
		refs := without(v.Spec.Services, service)
		left = Left{Services: len(refs)}
		if len(refs) == len(v.Spec.Services) {
			return nil, nil
		}
		spec := map[string]any{"services": refs}
		if len(refs) == 0 {
			spec["releaseTime"] = metav1.Now()
			if last := v.Spec.Services[0]; retain && last.Retain != nil {
				left.Until = time.Now().Add(last.Retain.Duration)
				spec["retain"] = v1alpha1.Retention{Namespace: last.Namespace, Name: last.Name, Until: metav1.NewTime(left.Until)}
			}
		}
		return spec, nil
	})
	if errors.Is(err, ipam.ErrNotFound) {
		return Left{}, nil // no object: nothing to disown
	}
	return left, err
}

// retained reports whether an address without Services is kept for somebody. It
// ends by itself, when the time is over or the object is to be deleted.
func retained(v *v1alpha1.VirtualIP) bool {
	return len(v.Spec.Services) == 0 && v.Spec.Retain != nil && v.DeletionTimestamp.IsZero() && time.Now().Before(v.Spec.Retain.Until.Time)
}

// retainMargin is how long before its end a kept address is no longer handed
// out, so that nobody gets it at the moment at which IPAM begins to release it.
// It covers the clocks of two leaders too.
const retainMargin = 5 * time.Second

func keptFor(v *v1alpha1.VirtualIP, s v1alpha1.ServiceReference) bool {
	r := v.Spec.Retain
	return retained(v) && r.Namespace == s.Namespace && r.Name == s.Name && time.Until(r.Until.Time) > retainMargin
}

func without(refs []v1alpha1.ServiceReference, service types.UID) []v1alpha1.ServiceReference {
	return slices.DeleteFunc(slices.Clone(refs), func(r v1alpha1.ServiceReference) bool { return r.UID == service })
}

// change writes the part of the spec that decide returns, if the object is
// still the one that decide has seen; else it decides anew. A nil part changes
// nothing. Errors of decide are returned as they are.
func (s *Store) change(ctx context.Context, a netip.Addr, decide func(*v1alpha1.VirtualIP) (map[string]any, error)) (ipam.Record, error) {
	var conflict error
	for range changeAttempts {
		v, err := s.object(a)
		if err != nil {
			return ipam.Record{}, fmt.Errorf("VirtualIP of %s: %w", a, err)
		}
		spec, err := decide(v)
		if err != nil || spec == nil {
			s.mu.RLock()
			defer s.mu.RUnlock()
			return s.record(a, v), err
		}
		n, err := s.patch(ctx, v, map[string]any{
			"metadata": map[string]any{"resourceVersion": v.ResourceVersion}, "spec": spec,
		}, "")
		if err == nil {
			return s.written(n), nil
		}
		if !errors.Is(err, ipam.ErrConflict) {
			return ipam.Record{}, fmt.Errorf("write VirtualIP %s: %w", v.Name, err)
		}
		conflict = fmt.Errorf("write VirtualIP %s: %w", v.Name, err)
		if err := s.reread(ctx, v); err != nil {
			return ipam.Record{}, err
		}
	}
	return ipam.Record{}, conflict
}

// reread takes in what the API server has for an object that is outdated here.
func (s *Store) reread(ctx context.Context, v *v1alpha1.VirtualIP) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	n, err := s.client.Get(ctx, v.Name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read VirtualIP %s: %w", v.Name, translate(err))
	}
	s.put(n)
	return nil
}
