package contract

import (
	"errors"
	"maps"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/test/onesim"
)

// TestOwnersOfARange: what is written about the addresses of a range stands
// there as it was written, replaces what stood there, and harms neither leases
// nor the range itself. USE on the parent is enough.
func TestOwnersOfARange(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	parent := w.network("owners", `TYPE="IP4",IP="10.255.0.10",SIZE="300"`, `TYPE="IP6_STATIC",IP6="2001:db8:255::10",PREFIX_LENGTH="64",SIZE="8"`)
	c := w.client("plain")
	n := w.reserve(c, parent, "lb", 256)
	_, err := c.Reserve(t.Context(), ipam.ReserveRequest{Parent: parent, Into: n.ID, Size: 4, Range: 1})
	if err != nil {
		t.Fatal(err)
	}
	first := n.Ranges[0].First4
	if err := c.Hold(t.Context(), n.ID, first); err != nil {
		t.Fatal(err)
	}
	titles := map[netip.Addr]ipam.Title{}
	for a := first; len(titles) < 256; a = a.Next() {
		titles[a] = ipam.Title{Owners: []ipam.Owner{{Namespace: strings.Repeat("n", 40), Name: strings.Repeat("s", 40)}}, Share: "a.b_C", Until: time.Unix(1_800_000_000, 0).UTC()}
	}
	text, complete := ipam.Titles(titles)
	if !complete {
		t.Fatal("does not fit")
	}
	for _, r := range w.get(c, n.ID).Ranges {
		attributes := maps.Clone(r.Attributes)
		if attributes == nil {
			attributes = map[string]string{}
		}
		attributes["RACK"], attributes[ipam.AttributeOwners] = "7", text
		if err := c.AnnotateRange(t.Context(), n.ID, r.ID, attributes); err != nil {
			t.Fatal(err)
		}
	}
	got := w.get(c, n.ID)
	for _, r := range got.Ranges {
		if r.Attributes["RACK"] != "7" || !maps.EqualFunc(ipam.ParseTitles(r.Attributes[ipam.AttributeOwners]), titles, func(a, b ipam.Title) bool { return a.Until.Equal(b.Until) && a.Share == b.Share }) {
			t.Errorf("range %d: %.200v", r.ID, r.Attributes)
		}
	}
	if l := got.Ranges[1].Attributes["PREFIX_LENGTH"]; l != "64" {
		t.Errorf("prefix length %q", l)
	}
	if h := held(got); len(h) != 1 || h[0] != first || got.Ranges[0].Size != 256 || got.Ranges[1].First6 != ip("2001:db8:255::10") {
		t.Errorf("on hold: %v, %+v", h, got.Ranges)
	}
	if err := c.AnnotateRange(t.Context(), n.ID, 1, map[string]string{"PREFIX_LENGTH": "64"}); err != nil {
		t.Fatal(err)
	}
	if a := w.get(c, n.ID).Ranges[1].Attributes; a[ipam.AttributeOwners] != "" || a["RACK"] != "" {
		t.Errorf("%.200v: want all replaced", a)
	}
	if err := c.AnnotateRange(t.Context(), n.ID, 0, nil); err != nil {
		t.Fatal(err)
	}
	if a := w.get(c, n.ID).Ranges[0].Attributes; len(a) > 0 {
		t.Errorf("%.200v: want none", a)
	}
	if err := c.AnnotateRange(t.Context(), n.ID, 55, nil); !errors.Is(err, ipam.ErrNotFound) {
		t.Errorf("no such range: %v", err)
	}
	if err := w.client("other").AnnotateRange(t.Context(), n.ID, 0, nil); !errors.Is(err, ipam.ErrDenied) {
		t.Errorf("somebody else: %v", err)
	}
}

// TestListTellsReservations: a list is enough to tell a reservation, which
// inherits the attributes of its network, from the network itself.
func TestListTellsReservations(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	parent, c := w.pool4(4), w.client("plain")
	if err := w.client("").Annotate(t.Context(), parent, map[string]string{ipam.AttributePool: "offered"}); err != nil {
		t.Fatal(err)
	}
	n := w.reserve(c, parent, "lb", 2)
	all, err := c.Networks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, l := range all {
		switch l.ID { //nolint:exhaustive // an id, not one of a few
		case parent:
			seen++
			if l.Parent != ipam.NoNetwork || l.Attributes[ipam.AttributePool] != "offered" {
				t.Errorf("%+v", l)
			}
		case n.ID:
			seen++
			if l.Parent != parent || l.Name != n.Name {
				t.Errorf("%+v", l)
			}
		}
	}
	own, err := c.OwnNetworks(t.Context())
	if err != nil || seen != 2 || len(own) != 1 || own[0].ID != n.ID || own[0].Parent != parent {
		t.Errorf("%d of 2 seen; own: %+v, %v", seen, own, err)
	}
}
