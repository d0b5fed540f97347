package services

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/provider/one"
	"github.com/onelb/onelb/test/e2e/kit"
	"github.com/onelb/onelb/test/lab"
)

type password string

func (p password) Read() (string, error) { return string(p), nil }
func (p password) String() string        { return "the test's credentials" }

// TestAdminsHands: somebody releases a hold, deletes the reservation, edits or
// empties a VirtualIP. All of it is repaired, and the Service goes on answering.
func TestAdminsHands(t *testing.T) {
	w := newWorld(t)
	w.Pool("hands", `network: {name: public}, exposure: Router, router: {name: edge}, quarantine: 1s, ranges: [{start: 203.0.113.180, end: 203.0.113.187}], chunkSize: 4`)
	w.PoolIs("hands", metav1.ConditionTrue, "Reserved")
	w.Create(web, "hands", kit.V4, kit.InPool("hands"))
	a := w.Served(web, "hands")[0]
	w.NothingLeft()
	reservation := func() (int, error) {
		n, err := w.OneSim().VNetNamed(lab.OneUser, lab.ClusterName+"-hands")
		return n.ID, err
	}

	t.Log("a hold is released in OpenNebula")
	id, err := reservation()
	w.Must(err)
	w.Must(w.OneSim().Release(id, a))
	w.Patch("hands", `{"quarantine":"2s"}`) // compares now rather than within minutes
	w.Eventually("the hold to be back", func(context.Context) error { return w.onHold(a) })
	w.Said("AddressPool", "hands", "HoldRepaired", a.String())
	w.Answers(web, "hands", a)

	t.Log("the reservation is deleted")
	w.Must(w.OneSim().Release(id, a))
	front := httptest.NewServer(w.OneSim().Handler())
	defer front.Close()
	admin, err := one.New(one.Options{Endpoint: front.URL + "/RPC2", Credentials: password("oneadmin:opennebula")})
	w.Must(err)
	w.Must(admin.DeleteReservation(t.Context(), ipam.NetworkID(id)))
	w.Patch("hands", `{"quarantine":"1s"}`)
	w.Eventually("another reservation, with the address on hold", func(context.Context) error {
		now, err := reservation()
		if err != nil || now == id {
			return fmt.Errorf("reservation %d: %w", now, err)
		}
		if !slices.Contains(w.OneSim().Holds(now), a) {
			return errors.New("it is not on hold")
		}
		return nil
	})
	again, err := reservation()
	w.Must(err)
	w.Said("AddressPool", "hands", "ReservationCreated", fmt.Sprintf("(%d)", again))
	w.Shows("hands", a)
	w.Answers(web, "hands", a)

	t.Log("the VirtualIP is edited")
	patch := func(body string) {
		if out, err := w.Kubectl(w.Context(), "patch", "vip", a.String(), "--type=merge", "-p", body); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	patch(`{"spec":{"trafficPolicy":"Local","interfaces":["eth9"]}}`)
	w.Eventually("the edit to be undone", func(ctx context.Context) error {
		v, err := w.VirtualIP(ctx, a)
		if err == nil && (v.Spec.TrafficPolicy != "Cluster" || len(v.Spec.Interfaces) > 0) {
			err = fmt.Errorf("it says %+v", v.Spec)
		}
		return err
	})
	w.Served(web, "hands")

	t.Log("the VirtualIP is emptied: the address is given back in order, and the Service gets one")
	patch(`{"spec":{"services":[]}}`)
	w.Eventually("the Service to show what it has", func(ctx context.Context) error {
		svc := w.Get("hands")
		for _, shown := range kit.Shown(svc) {
			v, err := w.VirtualIP(ctx, shown)
			if err != nil || len(v.Spec.Services) != 1 || v.Spec.Services[0].UID != svc.UID {
				return fmt.Errorf("it shows %s, whose VirtualIP is %+v: %w", shown, v, err)
			}
		}
		return nil
	})
	w.Served(web, "hands")
	w.Remove("hands")
	w.NothingLeft()
}
