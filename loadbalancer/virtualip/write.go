package virtualip

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/onelb/onelb/api/courtesy"
	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
)

// goneFor is how long the UIDs of removed objects are remembered: far longer
// than a watch lags.
const goneFor = 10 * time.Minute

// Create makes the VirtualIP of a record. ipam.ErrTaken: there is one.
//
// A record without owners is a claim: IPAM keeps an address from everybody
// while it gives it back to OpenNebula. It has no detail, and its phase and
// time of release are written second, since they are status: until then it
// counts as being released, never as active.
func (s *Store) Create(ctx context.Context, r ipam.Record) (ipam.Record, error) {
	if _, ok := r.Detail.(Detail); !ok && len(r.Owners) > 0 {
		return r, fmt.Errorf("create VirtualIP %s: detail is a %T, not a virtualip.Detail", r.Address, r.Detail)
	}
	cctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	v, err := s.client.Create(cctx, newObject(r), metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return r, fmt.Errorf("create VirtualIP %s: %w", r.Address, ipam.ErrTaken)
	}
	if err != nil {
		return r, fmt.Errorf("create VirtualIP %s: %w", r.Address, err)
	}
	created := s.written(v)
	if r.Phase == ipam.Active || r.Direct {
		return created, nil
	}
	created.Phase, created.ReleasedAt = r.Phase, r.ReleasedAt
	return s.Update(ctx, created)
}

// Update writes phase, hold and time of release into the status.
func (s *Store) Update(ctx context.Context, r ipam.Record) (ipam.Record, error) {
	v, err := s.object(r.Address)
	if err != nil {
		return r, fmt.Errorf("update VirtualIP %s: %w", r.Address, err)
	}
	if r.ID != string(v.UID) {
		return r, fmt.Errorf("update VirtualIP %s: %w", r.Address, ipam.ErrConflict)
	}
	status := map[string]any{
		"phase":      phaseName(r.Phase),
		"conditions": withHold(v, r),
		"releasedAt": nil,
	}
	if !r.ReleasedAt.IsZero() {
		status["releasedAt"] = metav1.NewTime(r.ReleasedAt)
	}
	if r.Phase == ipam.Active {
		ctx = courtesy.Later(ctx) // that it is on hold: nobody waits for it
	}
	n, err := s.patch(ctx, v, map[string]any{"status": status}, "status")
	if err != nil {
		return r, fmt.Errorf("update status of VirtualIP %s: %w", r.Address, err)
	}
	return s.written(n), nil
}

func withHold(v *v1alpha1.VirtualIP, r ipam.Record) []metav1.Condition {
	conditions := slices.Clone(v.Status.Conditions)
	c := metav1.Condition{
		Type: v1alpha1.VirtualIPOnHold, Status: metav1.ConditionFalse, Reason: "NotOnHold",
		Message: "The address is not on hold in OpenNebula.", ObservedGeneration: v.Generation,
	}
	if r.Phase == ipam.SetAside {
		c.Status, c.Reason, c.Message = metav1.ConditionUnknown, string(v1alpha1.PhaseSetAside), setAsideMessage
	}
	if r.OnHold {
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, "Held", "The address is on hold in OpenNebula."
	}
	apimeta.SetStatusCondition(&conditions, c)
	return conditions
}

// Delete removes a record's object, if it still is the record's version.
func (s *Store) Delete(ctx context.Context, r ipam.Record) error {
	v, err := s.object(r.Address)
	if err != nil || r.ID != string(v.UID) {
		return nil // gone, or a later object
	}
	if !is(v, r) {
		return fmt.Errorf("delete VirtualIP %s: %w", r.Address, ipam.ErrConflict)
	}
	if err := s.delete(ctx, v); err != nil {
		return fmt.Errorf("delete VirtualIP %s: %w", r.Address, err)
	}
	return nil
}

// delete asks for the deletion first and takes the finalizer off second: after
// a crash between the two the object is still there and still a record.
func (s *Store) delete(ctx context.Context, v *v1alpha1.VirtualIP) error {
	if err := s.end(ctx, v); err != nil {
		return err
	}
	s.forget(v)
	return nil
}

// end removes the object from the API and leaves the store as it is.
func (s *Store) end(ctx context.Context, v *v1alpha1.VirtualIP) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if v.DeletionTimestamp.IsZero() {
		err := s.client.Delete(ctx, v.Name, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &v.UID, ResourceVersion: &v.ResourceVersion},
		})
		if err != nil && !apierrors.IsNotFound(err) {
			return translate(err)
		}
	}
	others := slices.DeleteFunc(slices.Clone(v.Finalizers), func(f string) bool { return f == v1alpha1.AddressFinalizer })
	_, err := s.patch(ctx, v, map[string]any{"metadata": map[string]any{"finalizers": others}}, "")
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	return nil
}

func (s *Store) forget(v *v1alpha1.VirtualIP) {
	s.remove(v)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone[v.UID] = time.Now()
	maps.DeleteFunc(s.gone, func(_ types.UID, t time.Time) bool { return time.Since(t) > goneFor })
}

// SetRouterGeneration writes the generation of the router's document in which
// an address is programmed.
func (s *Store) SetRouterGeneration(ctx context.Context, a netip.Addr, generation uint64) error {
	v, err := s.object(a)
	if err != nil {
		return fmt.Errorf("update VirtualIP %s: %w", a, err)
	}
	n, err := s.patch(ctx, v, map[string]any{"status": map[string]any{
		"router": map[string]any{"generation": generation},
	}}, "status")
	if err != nil {
		return fmt.Errorf("update status of VirtualIP %s: %w", a, err)
	}
	s.written(n)
	return nil
}

// Restore makes an object anew that somebody asked to delete while Services
// still have its address: the deletion is finished and the object created
// again, unless another process was faster. The store keeps the record all the
// time, so that no router's document is made without the address in between;
// agents keep an address for a moment when its object vanishes. After an error,
// Restore may be called again with the same object.
func (s *Store) Restore(ctx context.Context, v *v1alpha1.VirtualIP) error {
	s.restoring.Lock()
	defer s.restoring.Unlock()
	a, err := netip.ParseAddr(v.Spec.Address)
	if err != nil {
		return fmt.Errorf("restore VirtualIP %s: %w", v.Name, err)
	}
	s.put(v) // unless more is known
	now, err := s.object(a)
	if err != nil || now.UID != v.UID {
		return nil //nolint:nilerr // done already
	}
	if v = now; len(v.Spec.Services) == 0 {
		return nil // released in the meantime
	}
	s.mu.Lock()
	s.kept[a] = v.UID
	s.mu.Unlock()
	if err := s.end(ctx, v); err != nil {
		return fmt.Errorf("restore VirtualIP %s: %w", v.Name, err)
	}
	n, err := s.createAnew(ctx, v)
	if err != nil {
		return fmt.Errorf("restore VirtualIP %s: %w", v.Name, err)
	}
	s.written(n)
	s.mu.Lock()
	delete(s.kept, a)
	s.mu.Unlock()
	if n.UID != v.UID { // else a finalizer of somebody else still keeps the old one
		s.forget(v)
	}
	return nil
}

// createAnew returns the object that takes the place of v.
func (s *Store) createAnew(ctx context.Context, v *v1alpha1.VirtualIP) (*v1alpha1.VirtualIP, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	n, err := s.client.Create(ctx, &v1alpha1.VirtualIP{
		ObjectMeta: metav1.ObjectMeta{Name: v.Name, Labels: v.Labels, Finalizers: []string{v1alpha1.AddressFinalizer}},
		Spec:       *v.Spec.DeepCopy(),
	}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return s.client.Get(ctx, v.Name, metav1.GetOptions{})
	}
	return n, err
}

// patch sends a merge patch that only fits the very object v.
func (s *Store) patch(ctx context.Context, v *v1alpha1.VirtualIP, body map[string]any, subresource string) (*v1alpha1.VirtualIP, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	meta, _ := body["metadata"].(map[string]any)
	if meta == nil {
		meta = map[string]any{}
	}
	meta["uid"] = v.UID
	body["metadata"] = meta
	data, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode patch: %w", err)
	}
	var sub []string
	if subresource != "" {
		sub = []string{subresource}
	}
	n, err := s.client.Patch(ctx, v.Name, types.MergePatchType, data, metav1.PatchOptions{}, sub...)
	if err != nil {
		return nil, translate(err)
	}
	return n, nil
}

// translate names the two answers that mean "not the object you think".
func translate(err error) error {
	switch {
	case apierrors.IsConflict(err):
		return fmt.Errorf("%w: %w", ipam.ErrConflict, err)
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%w: %w", ipam.ErrNotFound, err)
	}
	return err
}

func (s *Store) written(v *v1alpha1.VirtualIP) ipam.Record {
	s.put(v)
	a, err := netip.ParseAddr(v.Spec.Address)
	if err != nil {
		return ipam.Record{} // the API server does not store such an object
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.record(a, v)
}

func (s *Store) object(a netip.Addr) (*v1alpha1.VirtualIP, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	v := s.objects[a]
	if v == nil {
		return nil, ipam.ErrNotFound
	}
	return v, nil
}

// is reports whether the object is the one that the record was made of, and has
// not changed since.
func is(v *v1alpha1.VirtualIP, r ipam.Record) bool {
	return r.ID == string(v.UID) && r.Version == v.ResourceVersion
}
