package contract

import (
	"errors"
	"strings"
	"testing"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/test/onesim"
)

func TestFindByNameAndID(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	id := w.pool4(8)
	c := w.client("plain")
	byName, err := c.Find(t.Context(), ipam.NetworkQuery{Name: w.prefix + "-ip4"})
	if err != nil || byName.ID != id || byName.Parent != ipam.NoNetwork || !byName.Ready {
		t.Fatalf("%+v, %v", byName, err)
	}
	if byID, err := c.Find(t.Context(), ipam.NetworkQuery{ID: &id}); err != nil || byID.Name != byName.Name {
		t.Errorf("%+v, %v", byID, err)
	}
	r := byName.Ranges[0]
	if r.Kind != ipam.RangeIP4 || r.First4 != ip("10.255.0.10") || r.Size != 8 || r.Used != 0 || r.ParentRange != -1 {
		t.Errorf("%+v", r)
	}
	if byName.Attributes["GATEWAY"] != "10.255.0.1" {
		t.Errorf("%v", byName.Attributes)
	}
}

func TestAmbiguousName(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	parent := w.pool4(8)
	name := w.prefix + "-twice"
	own := w.networkOf(w.admin, name, `TYPE="IP4",IP="10.255.1.10",SIZE="2"`)
	c := w.client("plain")
	reservation := w.reserve(c, parent, "twice", 1)
	_, err := c.Find(t.Context(), ipam.NetworkQuery{Name: name})
	if !errors.Is(err, ipam.ErrAmbiguous) || !strings.Contains(err.Error(), reservation.Owner) {
		t.Fatalf("got %v", err)
	}
	if n, err := c.Find(t.Context(), ipam.NetworkQuery{Name: name, Owner: reservation.Owner}); err != nil || n.ID != reservation.ID {
		t.Errorf("%d, %v", n.ID, err)
	}
	if n, err := c.Find(t.Context(), ipam.NetworkQuery{Name: name, Owner: w.get(c, own).Owner}); err != nil || n.ID != own {
		t.Errorf("%d, %v", n.ID, err)
	}
}

func TestFindReservationIsOurOwn(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	parent := w.pool4(8)
	theirs, ours := w.client("theirs"), w.client("ours")
	w.reserve(theirs, parent, "lb", 1)
	if _, err := ours.FindReservation(t.Context(), w.prefix+"-lb"); !errors.Is(err, ipam.ErrNotFound) {
		t.Fatalf("a reservation of somebody else: %v", err)
	}
	made := w.reserve(ours, parent, "lb", 2) // names are unique per owner only
	got, err := ours.FindReservation(t.Context(), w.prefix+"-lb")
	if err != nil || got.ID != made.ID || got.Parent != parent || got.Ranges[0].ParentRange != 0 || got.Ranges[0].Size != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := w.client("").FindReservation(t.Context(), w.prefix+"-ip4"); !errors.Is(err, ipam.ErrExists) {
		t.Errorf("a network that is no reservation: %v", err)
	}
}
