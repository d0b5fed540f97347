package contract

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/test/onesim"
)

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range texts {
		out = append(out, ip(s))
	}
	return out
}

func vmName(id int) string { return fmt.Sprintf("VM %d", id) }

// TestReserve goes through a reservation's life with USE on the parent alone.
func TestReserve(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	parent, c := w.pool4(8), w.client("plain")
	r := w.reserve(c, parent, "lb", 3)
	if len(r.Ranges) != 1 || r.Ranges[0].Size != 3 || r.Parent != parent || r.Attributes["GATEWAY"] != "10.255.0.1" {
		t.Fatalf("%+v", r)
	}
	request := ipam.ReserveRequest{Parent: parent, Name: r.Name, Into: ipam.NoNetwork, Size: 1}
	if _, err := c.Reserve(t.Context(), request); !errors.Is(err, ipam.ErrExists) {
		t.Errorf("the same name: %v", err)
	}
	request = ipam.ReserveRequest{Parent: parent, Into: r.ID, Size: 1, First: ip("10.255.0.17")}
	if id, err := c.Reserve(t.Context(), request); err != nil || id != r.ID {
		t.Errorf("one more range: %d, %v", id, err)
	}
	if _, err := c.Reserve(t.Context(), request); !errors.Is(err, ipam.ErrNoSpace) {
		t.Errorf("a reserved address: %v", err)
	}
	request = ipam.ReserveRequest{Parent: parent, Into: r.ID, Size: 5}
	if _, err := c.Reserve(t.Context(), request); !errors.Is(err, ipam.ErrNoSpace) {
		t.Errorf("more than is free in one piece: %v", err)
	}
	n := w.get(c, r.ID)
	if len(n.Ranges) != 2 || n.Ranges[1].First4 != ip("10.255.0.17") || n.Ranges[1].Size != 1 || n.Ranges[1].ParentRange != 0 {
		t.Errorf("%+v", n.Ranges)
	}
	first := n.Ranges[0].First4
	if err := c.Hold(t.Context(), r.ID, first); err != nil {
		t.Fatal(err)
	}
	// The parent shows who reserved and nothing of the hold.
	leases := w.get(w.client(""), parent).Ranges[0].Leases
	if len(leases) != 4 || leases[0].Held || leases[0].User != fmt.Sprintf("VNET %d", r.ID) {
		t.Errorf("parent: %+v", leases)
	}
	if err := w.client("").Hold(t.Context(), parent, first); !errors.Is(err, ipam.ErrInUse) {
		t.Errorf("a reserved address in the parent: %v", err)
	}
	if err := w.client("other").Hold(t.Context(), r.ID, n.Ranges[1].First4); !errors.Is(err, ipam.ErrDenied) {
		t.Errorf("somebody else in our reservation: %v", err)
	}
}

// TestReserveBeyondTheEnd: OpenNebula would accept it and lose the parent.
func TestReserveBeyondTheEnd(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	parent, c := w.pool4(2), w.client("plain")
	for _, r := range []ipam.ReserveRequest{
		{Size: 5, First: ip("10.255.0.10")},
		{Size: 2, First: ip("10.255.0.11")},
		{Size: 1, First: ip("10.255.0.12")},
		{Size: 1, First: ip("10.255.0.9")},
	} {
		r.Parent, r.Name, r.Into = parent, w.prefix+"-beyond", ipam.NoNetwork
		if _, err := c.Reserve(t.Context(), r); !errors.Is(err, ipam.ErrNoSpace) {
			t.Errorf("%d from %s: %v", r.Size, r.First, err)
		}
	}
	if n := w.get(c, parent); n.Ranges[0].Used != 0 {
		t.Errorf("%+v", n.Ranges)
	}
	if _, err := c.FindReservation(t.Context(), w.prefix+"-beyond"); !errors.Is(err, ipam.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func TestReserveAHeldAddress(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	parent := w.pool4(4)
	if err := w.client("").Hold(t.Context(), parent, ip("10.255.0.11")); err != nil {
		t.Fatal(err)
	}
	request := ipam.ReserveRequest{Parent: parent, Name: w.prefix + "-lb", Into: ipam.NoNetwork, Size: 1, First: ip("10.255.0.11")}
	if _, err := w.client("plain").Reserve(t.Context(), request); !errors.Is(err, ipam.ErrNoSpace) {
		t.Errorf("got %v", err)
	}
}

func TestReserveIPv6AndPairs(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	parent := w.network("v6",
		`TYPE="IP6_STATIC",IP6="2001:db8:255::10",PREFIX_LENGTH="64",SIZE="8"`,
		`TYPE="IP4_6_STATIC",IP="10.255.3.10",IP6="2001:db8:257::10",PREFIX_LENGTH="64",SIZE="8"`)
	c := w.client("plain")
	r := ipam.ReserveRequest{Parent: parent, Name: w.prefix + "-lb", Into: ipam.NoNetwork, Size: 2, Range: 0, First: ip("2001:db8:255::12")}
	id, err := c.Reserve(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	w.ready(c, id)
	r.Into, r.Range, r.First = id, 1, ip("10.255.3.14")
	if _, err := c.Reserve(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	n := w.get(c, id)
	if a, b := n.Ranges[0], n.Ranges[1]; a.First6 != ip("2001:db8:255::12") || a.Size != 2 || a.ParentRange != 0 ||
		b.First4 != ip("10.255.3.14") || b.First6 != ip("2001:db8:257::14") || b.Kind != ipam.RangeIP4IP6 || b.ParentRange != 1 {
		t.Errorf("%+v", n.Ranges)
	}
}

// TestFreshReservationIsLocked: a simulated front-end is slow enough to be seen in
// LOCK_CREATE; a real one may be faster than the test.
func TestFreshReservationIsLocked(t *testing.T) {
	w := newWorld(t, onesim.Options{ManualDrivers: true})
	if w.sim == nil {
		t.Log("a real front-end may have made the reservation before it is asked")
	}
	parent := w.settled(`TYPE="IP4",IP="10.255.0.10",SIZE="4"`)
	c := w.client("plain")
	id, err := c.Reserve(t.Context(), ipam.ReserveRequest{Parent: parent, Name: w.prefix + "-lb", Into: ipam.NoNetwork, Size: 2})
	if err != nil {
		t.Fatal(err)
	}
	n := w.get(c, id)
	hold, deletion := c.Hold(t.Context(), id, n.Ranges[0].First4), error(nil)
	if w.sim != nil {
		deletion = c.DeleteReservation(t.Context(), id)
		if n.Ready || n.State != "LOCK_CREATE" || !errors.Is(hold, ipam.ErrNotReady) || !errors.Is(deletion, ipam.ErrNotReady) {
			t.Errorf("%s; hold: %v; delete: %v", n.State, hold, deletion)
		}
		w.sim.Settle()
	} else if hold != nil && !errors.Is(hold, ipam.ErrNotReady) {
		t.Errorf("hold: %v", hold)
	}
	w.ready(c, id)
	if hold != nil {
		if err := c.Hold(t.Context(), id, n.Ranges[0].First4); err != nil {
			t.Errorf("once it is ready: %v", err)
		}
	}
}

// settled is a network that is made although the drivers stand still.
func (w *world) settled(ar string) ipam.NetworkID {
	w.t.Helper()
	if w.sim == nil {
		return w.network("ip4", ar)
	}
	id, err := w.sim.AddVNet("", fmt.Sprintf("NAME=%q\nBRIDGE=\"b\"\nAR=[%s]", w.prefix+"-ip4", ar))
	if err != nil {
		w.t.Fatal(err)
	}
	w.offer(ipam.NetworkID(id))
	return ipam.NetworkID(id)
}

func TestFreeRange(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	parent, c := w.pool4(8), w.client("plain")
	r := w.reserve(c, parent, "lb", 2)
	if _, err := c.Reserve(t.Context(), ipam.ReserveRequest{Parent: parent, Into: r.ID, Size: 2}); err != nil {
		t.Fatal(err)
	}
	second := w.get(c, r.ID).Ranges[1]
	if err := c.Hold(t.Context(), r.ID, second.First4); err != nil {
		t.Fatal(err)
	}
	if err := c.FreeRange(t.Context(), r.ID, second.ID); !errors.Is(err, ipam.ErrInUse) {
		t.Errorf("with a hold: %v", err)
	}
	if err := c.Release(t.Context(), r.ID, second.First4); err != nil {
		t.Fatal(err)
	}
	if err := c.FreeRange(t.Context(), r.ID, second.ID); err != nil {
		t.Error(err)
	}
	if err := c.FreeRange(t.Context(), r.ID, second.ID); !errors.Is(err, ipam.ErrNotFound) {
		t.Errorf("twice: %v", err)
	}
	if n := w.get(c, parent); n.Ranges[0].Used != 2 {
		t.Errorf("parent: %+v", n.Ranges)
	}
}

func TestDeleteReservation(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	parent, c := w.pool4(8), w.client("plain")
	r := w.reserve(c, parent, "lb", 2)
	first := r.Ranges[0].First4
	if err := c.Hold(t.Context(), r.ID, first); err != nil {
		t.Fatal(err)
	}
	if err := c.DeleteReservation(t.Context(), r.ID); !errors.Is(err, ipam.ErrInUse) {
		t.Errorf("with a hold: %v", err)
	}
	if err := w.client("other").DeleteReservation(t.Context(), r.ID); !errors.Is(err, ipam.ErrDenied) {
		t.Errorf("somebody else: %v", err)
	}
	if err := w.client("").DeleteReservation(t.Context(), parent); err == nil {
		t.Error("a network that is no reservation")
	}
	if err := c.Release(t.Context(), r.ID, first); err != nil {
		t.Fatal(err)
	}
	for range 3 { // while it is being deleted, and when it is gone
		if err := c.DeleteReservation(t.Context(), r.ID); err != nil {
			t.Error(err)
		}
	}
	if n := w.get(w.client(""), parent); n.Name != w.prefix+"-ip4" {
		t.Errorf("%+v", n)
	}
}

func TestQuota(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	parent, c := w.pool4(8), w.client("plain")
	w.admin.must(t, "one.user.quota", w.user("plain").id, fmt.Sprintf(`NETWORK=[ID="%d",LEASES="2"]`, parent))
	w.reserve(c, parent, "lb", 2)
	_, err := c.Reserve(t.Context(), ipam.ReserveRequest{Parent: parent, Name: w.prefix + "-more", Into: ipam.NoNetwork, Size: 1})
	if !errors.Is(err, ipam.ErrDenied) || !strings.Contains(err.Error(), "quota") {
		t.Errorf("got %v", err)
	}
}

func TestAnnotate(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	parent, c := w.pool4(8), w.client("plain")
	r := w.reserve(c, parent, "lb", 2)
	values := map[string]string{
		"ONELB_CLUSTER": "lab",
		"ONELB_QUOTES":  `a "b" \" 'c' ] BRIDGE="x"`,
		"ONELB_LINES":   "one\nBRIDGE=\"x\"\nthree",
		"ONELB_XML":     "</TEMPLATE> & <A>",
	}
	if err := c.Annotate(t.Context(), r.ID, values); err != nil {
		t.Fatal(err)
	}
	if err := c.Annotate(t.Context(), r.ID, map[string]string{"ONELB_CLUSTER": "other"}); err != nil {
		t.Fatal(err)
	}
	got := w.get(c, r.ID).Attributes
	values["ONELB_CLUSTER"] = "other"
	for name, want := range values {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
	for name, want := range r.Attributes {
		if got[name] != want {
			t.Errorf("the parent's %s was %q and is %q", name, want, got[name])
		}
	}
	if err := c.Annotate(t.Context(), r.ID, map[string]string{"BRIDGE": "br0"}); !errors.Is(err, ipam.ErrDenied) {
		t.Errorf("a restricted attribute: %v", err)
	}
}
