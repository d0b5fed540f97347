package virtualip

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
)

// Detail is the part of a VirtualIP's spec that IPAM does not look at. It is
// what ipam.Record.Detail holds for records that this store is to write; of those
// that it returns, ask [DetailOf].
type Detail struct {
	Role          v1alpha1.Role
	TrafficPolicy v1alpha1.TrafficPolicy
	Interfaces    []string
	// NodeSelector and NodePreferences as in the VirtualIP's spec.
	NodeSelector    string
	NodePreferences []v1alpha1.NodeWeight
	Router          *v1alpha1.VirtualIPRouter
	// Guarded: only nodes that the guard names may hold the address. It counts
	// when the object is made, and never changes.
	Guarded bool
	// Share is the key with which Services share the address; empty: none does.
	Share string
	// Ports are what the Service that the address is made for, or that owns it
	// by [Store.Own], has of a shared address. Empty in what the store returns.
	Ports []string
	// Retain is for how long the address is kept for the name of that Service
	// when it goes as the last one. Zero in what the store returns.
	Retain time.Duration
}

// stored is the Detail of records that the store returns: they are made in
// thousands and kept, and few are asked for it.
type stored struct{ v *v1alpha1.VirtualIP }

// DetailOf returns the Detail of a record, whether the store has made it or the
// caller. A record without has the zero Detail.
func DetailOf(r ipam.Record) Detail {
	s, ok := r.Detail.(stored)
	if !ok {
		d, _ := r.Detail.(Detail)
		return d
	}
	return Detail{
		Role:          s.v.Spec.Role,
		TrafficPolicy: s.v.Spec.TrafficPolicy,
		Interfaces:    s.v.Spec.Interfaces,
		NodeSelector:  s.v.Spec.NodeSelector, NodePreferences: s.v.Spec.NodePreferences,
		Router:  s.v.Spec.Router,
		Share:   s.v.Spec.Share,
		Guarded: s.v.Spec.Guard != nil,
	}
}

// newObject makes the VirtualIP for a record that is to be created.
func newObject(r ipam.Record) *v1alpha1.VirtualIP {
	d, ok := r.Detail.(Detail)
	if !ok { // a claim, which nobody will ever hold
		d = Detail{Role: v1alpha1.RoleL2, TrafficPolicy: v1alpha1.TrafficPolicyCluster}
	}
	var guard *v1alpha1.Guard
	if d.Guarded {
		guard = &v1alpha1.Guard{}
	}
	return &v1alpha1.VirtualIP{
		ObjectMeta: metav1.ObjectMeta{
			Name:       v1alpha1.VirtualIPName(r.Address),
			Finalizers: []string{v1alpha1.AddressFinalizer},
		},
		Spec: v1alpha1.VirtualIPSpec{
			Address:       r.Address.String(),
			Pool:          r.Pool,
			Role:          d.Role,
			Services:      references(r.Owners, d),
			Share:         d.Share,
			TrafficPolicy: d.TrafficPolicy,
			Interfaces:    slices.Clone(d.Interfaces),
			NodeSelector:  d.NodeSelector, NodePreferences: slices.Clone(d.NodePreferences),
			Router: d.Router.DeepCopy(),
			Direct: direct(r),
			Guard:  guard,
		},
	}
}

func references(owners []ipam.Owner, d Detail) []v1alpha1.ServiceReference {
	refs := make([]v1alpha1.ServiceReference, 0, len(owners))
	for _, o := range owners {
		refs = append(refs, v1alpha1.ServiceReference{Namespace: o.Namespace, Name: o.Name, UID: types.UID(o.UID), Ports: d.Ports, Retain: d.retain()})
	}
	slices.SortFunc(refs, compareReferences)
	return refs
}

func (d Detail) retain() *metav1.Duration {
	if d.Retain == 0 {
		return nil
	}
	return &metav1.Duration{Duration: d.Retain}
}

func compareReferences(a, b v1alpha1.ServiceReference) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.UID, b.UID))
}

// record converts an object. The object's address was checked when it was taken in.
func (s *Store) record(a netip.Addr, v *v1alpha1.VirtualIP) ipam.Record {
	r := ipam.Record{
		Address: a,
		ID:      string(v.UID),
		Pool:    v.Spec.Pool,
		Phase:   phase(v),
		OnHold:  apimeta.IsStatusConditionTrue(v.Status.Conditions, v1alpha1.VirtualIPOnHold),
		Version: v.ResourceVersion,
		Detail:  stored{v},
	}
	r.Share, r.Inner = v.Spec.Share, v.Spec.Role == v1alpha1.RoleInner
	if k := v.Spec.Retain; k != nil && len(v.Spec.Services) == 0 {
		r.Kept, r.KeptUntil = ipam.Owner{Namespace: k.Namespace, Name: k.Name}, k.Until.Time
	}
	if n := len(v.Spec.Services); n > 0 {
		r.Owners = make([]ipam.Owner, 0, n)
	}
	for _, o := range v.Spec.Services {
		r.Owners = append(r.Owners, ipam.Owner{Namespace: o.Namespace, Name: o.Name, UID: string(o.UID)})
	}
	if v.Spec.Direct != nil {
		recordDirect(&r, v)
	}
	if t := v.Status.ReleasedAt; t != nil {
		r.ReleasedAt = t.Time
	}
	if r.Phase == ipam.Releasing {
		r.Announced = s.announced(v)
	}
	return r
}

func phase(v *v1alpha1.VirtualIP) ipam.Phase {
	switch {
	case len(v.Spec.Services) > 0, retained(v):
		return ipam.Active
	case claimed(v):
		return claimPhase(v.Spec.Direct.State)
	case v.Status.Phase == v1alpha1.PhaseQuarantined:
		return ipam.Quarantined
	default:
		return ipam.Releasing
	}
}

func phaseName(p ipam.Phase) v1alpha1.Phase {
	switch p {
	case ipam.Active:
		return v1alpha1.PhaseActive
	case ipam.Quarantined:
		return v1alpha1.PhaseQuarantined
	case ipam.Claiming, ipam.Ahead, ipam.Ending, ipam.SetAside:
		return v1alpha1.Phase(stateOf(p, false))
	case ipam.Releasing:
	}
	return v1alpha1.PhaseReleasing
}
