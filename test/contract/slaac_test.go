package contract

import (
	"encoding/xml"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/test/onesim"
)

// shownAddresses are the IPv6 addresses that OpenNebula itself writes about the
// leases of a network.
func shownAddresses(t *testing.T, w *world, id ipam.NetworkID) []netip.Addr {
	t.Helper()
	_, text, err := w.admin.call("one.vn.info", int(id), false)
	if err != nil {
		t.Fatal(err)
	}
	var x struct {
		Leases []struct {
			Global string `xml:"IP6_GLOBAL"`
			Local  string `xml:"IP6_ULA"`
		} `xml:"AR_POOL>AR>LEASES>LEASE"`
	}
	if err := xml.Unmarshal([]byte(text), &x); err != nil {
		t.Fatal(err)
	}
	var out []netip.Addr
	for _, l := range x.Leases {
		if l.Global == "" {
			l.Global = l.Local
		}
		out = append(out, ip(l.Global))
	}
	return out
}

// slaacNetwork has a range of IPv6 addresses, one of pairs, and one without a
// global prefix.
func slaacNetwork(w *world) ipam.NetworkID {
	return w.network("slaac",
		`TYPE="IP6",GLOBAL_PREFIX="2001:db8:258::",SIZE="8"`,
		`TYPE="IP4_6",IP="10.255.4.10",GLOBAL_PREFIX="2001:db8:259::",ULA_PREFIX="fd00:259::",SIZE="8"`,
		`TYPE="IP6",MAC="02:00:0a:ff:04:50",ULA_PREFIX="fd00:260::",SIZE="8"`)
}

// TestSLAACHold: the addresses that OpenNebula makes of MACs are held and released
// as others are, and are those that it shows.
func TestSLAACHold(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	net, c := slaacNetwork(w), w.client("")
	n := w.get(c, net)
	for i, r := range n.Ranges {
		if !r.First6.IsValid() || r.NoIPv6 != "" || r.First4.IsValid() != (i == 1) || r.Size != 8 {
			t.Fatalf("%+v", r)
		}
	}
	six, pair4, pair6, local := n.Ranges[0].First6.Next(), ip("10.255.4.12"), n.Ranges[1].First6.Next().Next(), ip("fd00:260::aff:feff:453")
	if pair6 != ip("2001:db8:259::aff:feff:40c") {
		t.Errorf("the pair of %s: %s", pair4, pair6)
	}
	fresh := w.client("") // has not read the network
	for _, a := range []netip.Addr{six, pair6, local} {
		if err := fresh.Hold(t.Context(), net, a); err != nil {
			t.Fatal(err)
		}
		if err := c.Hold(t.Context(), net, a); !errors.Is(err, ipam.ErrInUse) {
			t.Errorf("%s again: %v", a, err)
		}
	}
	if err := c.Hold(t.Context(), net, pair4); !errors.Is(err, ipam.ErrInUse) {
		t.Errorf("the other half of the pair: %v", err)
	}
	if got := held(w.get(c, net)); !slices.Equal(got, []netip.Addr{six, pair4, pair6, local}) {
		t.Errorf("on hold: %v", got)
	}
	if got := shownAddresses(t, w, net); !slices.Equal(got, []netip.Addr{six, pair6, local}) {
		t.Errorf("OpenNebula calls them %v", got)
	}
	for _, a := range []netip.Addr{six, pair4, local, local} {
		if err := c.Release(t.Context(), net, a); err != nil {
			t.Error(err)
		}
	}
	if got := held(w.get(c, net)); len(got) != 0 {
		t.Errorf("still on hold: %v", got)
	}
}

// TestSLAACReservation goes through the life of a reservation of such addresses,
// with USE on the parent alone.
func TestSLAACReservation(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	parent, c := slaacNetwork(w), w.client("plain")
	from := w.get(c, parent).Ranges
	first := []netip.Addr{from[0].First6.Next(), from[1].First6.Next(), from[2].First6}
	r := ipam.ReserveRequest{Parent: parent, Name: w.prefix + "-lb", Into: ipam.NoNetwork, Size: 3, Range: 0, First: first[0]}
	id, err := c.Reserve(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	w.ready(c, id)
	for i := range 2 {
		r.Into, r.Range, r.First = id, ipam.RangeID(i+1), first[i+1]
		if _, err := c.Reserve(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Reserve(t.Context(), r); !errors.Is(err, ipam.ErrNoSpace) {
		t.Errorf("a reserved address: %v", err)
	}
	r.First, r.Size = first[2].Next(), 8
	if _, err := c.Reserve(t.Context(), r); !errors.Is(err, ipam.ErrNoSpace) {
		t.Errorf("over the end of the range: %v", err)
	}
	same := func(what string) {
		t.Helper()
		got := w.get(c, id).Ranges
		if len(got) != 3 {
			t.Fatalf("%s: %+v", what, got)
		}
		for i, r := range got {
			if r.First6 != first[i] || r.Size != 3 || r.ParentRange != ipam.RangeID(i) || r.Kind != from[i].Kind {
				t.Errorf("%s: %+v", what, r)
			}
		}
	}
	same("as made")
	for _, a := range first {
		if err := c.Hold(t.Context(), id, a.Next()); err != nil {
			t.Fatal(err)
		}
	}
	if got := shownAddresses(t, w, id); !slices.Equal(got, []netip.Addr{first[0].Next(), first[1].Next(), first[2].Next()}) {
		t.Errorf("OpenNebula calls them %v", got)
	}
	for _, r := range w.get(c, parent).Ranges { // our own reservation is visible to us
		if len(r.Leases) != 3 || r.Leases[0].User == "" || r.Leases[0].IP6 != first[r.ID] {
			t.Errorf("the parent: %+v", r)
		}
	}
	// Attributes of a range replace all that it has, and its prefix is one of them.
	writer := w.client("plain")
	for i := range ipam.RangeID(3) {
		if err := writer.AnnotateRange(t.Context(), id, i, map[string]string{"RACK": "7"}); err != nil {
			t.Fatal(err)
		}
		if err := writer.AnnotateRange(t.Context(), id, i, nil); err != nil {
			t.Fatal(err)
		}
	}
	same("annotated")
	for i, a := range first {
		if err := c.FreeRange(t.Context(), id, ipam.RangeID(i)); !errors.Is(err, ipam.ErrInUse) {
			t.Errorf("free range %d: %v", i, err)
		}
		if err := c.Release(t.Context(), id, a.Next()); err != nil {
			t.Error(err)
		}
	}
	if err := c.FreeRange(t.Context(), id, 0); err != nil {
		t.Error(err)
	}
	if err := c.DeleteReservation(t.Context(), id); err != nil {
		t.Error(err)
	}
	for _, r := range w.eventually(c, parent, func(n ipam.Network) bool { return n.Ranges[0].Used+n.Ranges[1].Used+n.Ranges[2].Used == 0 }).Ranges {
		if r.Used != 0 {
			t.Errorf("left in the parent: %+v", r)
		}
	}
}

// TestSameMACs: two ranges may have the same MAC addresses under two prefixes; a
// hold in one leaves the other as it is.
func TestSameMACs(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	net, c := w.network("macs",
		`TYPE="IP6",MAC="02:00:0a:ff:05:10",GLOBAL_PREFIX="2001:db8:261::",SIZE="4"`,
		`TYPE="IP6",MAC="02:00:0a:ff:05:10",GLOBAL_PREFIX="2001:db8:262::",SIZE="4"`), w.client("")
	a, b := ip("2001:db8:261::aff:feff:511"), ip("2001:db8:262::aff:feff:511")
	if err := errors.Join(c.Hold(t.Context(), net, b), c.Release(t.Context(), net, a)); err != nil {
		t.Fatal(err)
	}
	if got := held(w.get(c, net)); !slices.Equal(got, []netip.Addr{b}) {
		t.Errorf("on hold: %v", got)
	}
	if err := errors.Join(c.Hold(t.Context(), net, a), c.Release(t.Context(), net, b)); err != nil {
		t.Fatal(err)
	}
	if got := held(w.get(c, net)); !slices.Equal(got, []netip.Addr{a}) {
		t.Errorf("on hold: %v", got)
	}
}

// TestPrefixIsCleared is why the client sends a range's prefixes along with other
// attributes: what one.vn.update_ar does not get is gone, and the range's IPv6
// addresses with it, also those on hold.
func TestPrefixIsCleared(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	net, c := slaacNetwork(w), w.client("")
	a := w.get(c, net).Ranges[0].First6
	if err := c.Hold(t.Context(), net, a); err != nil {
		t.Fatal(err)
	}
	w.admin.must(t, "one.vn.update_ar", int(net), `AR=[AR_ID="0",RACK="7"]`)
	r := w.get(c, net).Ranges[0]
	if r.First6.IsValid() || !strings.Contains(r.NoIPv6, "GLOBAL_PREFIX") || r.Used != 1 || len(r.Leases) != 0 {
		t.Errorf("%+v", r)
	}
	w.admin.must(t, "one.vn.update_ar", int(net), `AR=[AR_ID="0",GLOBAL_PREFIX="2001:db8:258::"]`)
	if got := held(w.get(c, net)); !slices.Equal(got, []netip.Addr{a}) {
		t.Errorf("on hold: %v", got)
	}
}
