package virtualip

import (
	"errors"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
)

func TestLifeWithoutReservation(t *testing.T) {
	s, c := newStore(t)
	ctx := t.Context()
	r, err := s.Create(ctx, ipam.Record{Address: addr, Pool: "p", Phase: ipam.Claiming, Direct: true, Network: 7})
	if err != nil || r.Phase != ipam.Claiming || !r.Direct || r.Network != 7 || r.OnHold {
		t.Fatalf("%+v %v", r, err)
	}
	if _, err := s.Take(ctx, ipam.Record{Address: addr, Pool: "p", Owners: []ipam.Owner{owner}, Detail: detail}); !errors.Is(err, ipam.ErrTaken) {
		t.Errorf("taken before it is on hold: %v", err)
	}
	old := r
	r.Phase, r.OnHold = ipam.Ahead, true
	if r, err = s.Mark(ctx, r); err != nil || r.Phase != ipam.Ahead || !r.OnHold {
		t.Fatalf("%+v %v", r, err)
	}
	old.Phase = ipam.SetAside
	if _, err := s.Mark(ctx, old); !errors.Is(err, ipam.ErrConflict) {
		t.Errorf("mark of an outdated record: %v", err)
	}
	router := Detail{Role: v1alpha1.RoleRouter, TrafficPolicy: v1alpha1.TrafficPolicyLocal, Router: &v1alpha1.VirtualIPRouter{Name: "edge", Forward: v1alpha1.ForwardNodePort}}
	if r, err = s.Take(ctx, ipam.Record{Address: addr, Pool: "p", Owners: []ipam.Owner{owner}, Detail: router}); err != nil || r.Phase != ipam.Active || !r.OnHold || !r.Stale {
		t.Fatalf("%+v %v", r, err)
	}
	v, err := c.VirtualIPs().Get(ctx, addr.String(), metav1.GetOptions{})
	if err != nil || v.Spec.Role != v1alpha1.RoleRouter || v.Spec.Router.Name != "edge" || v.Spec.Direct.State != v1alpha1.DirectHeld || v.Spec.Direct.NetworkID != 7 {
		t.Errorf("%+v %v", v.Spec, err)
	}
	if _, err := secondStore(t, c).Take(ctx, ipam.Record{Address: addr, Pool: "p", Owners: []ipam.Owner{{UID: "u2"}}, Detail: detail}); !errors.Is(err, ipam.ErrTaken) {
		t.Errorf("taken twice: %v", err)
	}
	if r, err = s.Update(ctx, r); err != nil || r.Stale {
		t.Fatalf("%+v %v", r, err)
	}
	if _, err := s.Disown(ctx, addr, "u1", false); err != nil {
		t.Fatal(err)
	}
	r, _ = s.Get(addr)
	if r.Phase != ipam.Releasing || !r.OnHold {
		t.Fatalf("%+v", r)
	}
	r.Phase, r.ReleasedAt = ipam.Quarantined, time.Now()
	if r, err = s.Update(ctx, r); err != nil || r.Phase != ipam.Quarantined {
		t.Fatalf("%+v %v", r, err)
	}
	r.Phase = ipam.Ahead
	if r, err = s.Mark(ctx, r); err != nil || r.Phase != ipam.Ahead || !r.ReleasedAt.IsZero() {
		t.Fatalf("%+v %v", r, err)
	}
	// What is left of the last use must not make the next release a short one.
	if _, err = s.Take(ctx, ipam.Record{Address: addr, Pool: "p", Owners: []ipam.Owner{owner}, Detail: detail}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Disown(ctx, addr, "u1", false); err != nil {
		t.Fatal(err)
	}
	if r, _ = s.Get(addr); r.Phase != ipam.Releasing {
		t.Errorf("released a second time: %+v", r)
	}
}

func TestTakeAgainstAnOutdatedView(t *testing.T) {
	s, c := newStore(t)
	ctx := t.Context()
	r, err := s.Create(ctx, ipam.Record{Address: addr, Pool: "p", Phase: ipam.Claiming, Direct: true, Network: 7})
	if err != nil {
		t.Fatal(err)
	}
	deaf := deafStore(t, c)
	v, err := c.VirtualIPs().Get(ctx, addr.String(), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r.Phase, r.OnHold = ipam.Ahead, true
	if r, err = s.Mark(ctx, r); err != nil {
		t.Fatal(err)
	}
	v = v.DeepCopy()
	v.Spec.Direct.State = v1alpha1.DirectAhead // as it was once
	deaf.put(v)
	r.Phase, r.OnHold = ipam.Ending, false
	if r, err = s.Mark(ctx, r); err != nil {
		t.Fatal(err)
	}
	if got, err := deaf.Take(ctx, ipam.Record{Address: addr, Pool: "p", Owners: []ipam.Owner{owner}, Detail: detail}); !errors.Is(err, ipam.ErrTaken) {
		t.Errorf("%+v %v", got, err)
	}
	r.Phase = ipam.SetAside
	if r, err = s.Mark(ctx, r); err != nil {
		t.Fatal(err)
	}
	if r, err = s.Update(ctx, r); err != nil || r.Phase != ipam.SetAside || r.Stale {
		t.Fatalf("%+v %v", r, err)
	}
	v, _ = c.VirtualIPs().Get(ctx, addr.String(), metav1.GetOptions{})
	if v.Spec.Direct.Kept {
		t.Error("kept, although nobody has deleted it")
	}
	if cond := v.Status.Conditions[0]; cond.Status != metav1.ConditionUnknown || cond.Reason != "SetAside" || v.Status.Phase != v1alpha1.PhaseSetAside {
		t.Errorf("%+v", v.Status)
	}
	if err := c.VirtualIPs().Delete(ctx, v.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		if r, _ = s.Get(addr); r.Unwanted {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%+v", r)
		}
	}
	// Had it been deleted before it was set aside, that would not say whose the hold is.
	if r, err = s.Mark(ctx, r); err != nil || r.Unwanted {
		t.Fatalf("%+v %v", r, err)
	}
	r.Phase, r.OnHold = ipam.Ahead, true
	if r, err = s.Mark(ctx, r); err != nil || !r.Unwanted {
		t.Fatalf("%+v %v", r, err)
	}
	if err := s.Delete(ctx, r); err != nil {
		t.Error(err)
	}
}
