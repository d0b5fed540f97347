package contract

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/provider/one"
	"github.com/onelb/onelb/test/onesim"
)

// What IPAM does about a reservation over its life, with the rights of a plain
// user. The model test of package ipam has many more histories of it; these show
// that a front-end answers as they assume.

// often makes a manager compare with OpenNebula all the time.
func often(o *ipam.Options) {
	o.Interval, o.OrphanGrace = 100*time.Millisecond, 200*time.Millisecond
}

func four(id ipam.NetworkID) ipam.PoolSpec {
	return ipam.PoolSpec{
		Name: "four", Generation: 1, Network: ipam.NetworkQuery{ID: &id},
		ChunkSize: 2, ReserveAhead: 1, Quarantine: 100 * time.Millisecond,
	}
}

// reservation reads the reservation of the pool "four".
func (w *world) reservation(c *one.Client) ipam.Network {
	w.t.Helper()
	n, err := c.FindReservation(w.t.Context(), w.prefix+"-four")
	if err != nil {
		w.t.Fatal(err)
	}
	return w.get(c, n.ID)
}

func TestDriftIsRepaired(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	net := w.pool4(8)
	c := w.client("plain")
	m := manageWith(w, c, often, four(net))
	a := m.give("four", ipam.IPv4, "web")
	res := w.reservation(c).ID

	if err := w.client("").Release(t.Context(), res, a); err != nil {
		t.Fatal(err)
	}
	if n := w.eventually(c, res, func(n ipam.Network) bool { return isHeld(n, a) }); !isHeld(n, a) {
		t.Fatalf("the administrator released %s, and it stayed so: %+v", a, n.Ranges)
	}
	m.wait("an event of it", func() bool { return m.told(ipam.EventHoldRepaired) })

	stray := w.free(res)
	if err := c.Hold(t.Context(), res, stray); err != nil {
		t.Fatal(err)
	}
	if n := w.eventually(c, res, func(n ipam.Network) bool { return !isHeld(n, stray) }); isHeld(n, stray) {
		t.Fatalf("a hold for nobody stays: %+v", n.Ranges)
	}
	m.wait("an event of it", func() bool { return m.told(ipam.EventOrphanReleased) })
	if !isHeld(w.get(c, res), a) {
		t.Errorf("the hold of %s went with it", a)
	}
}

// free is an address of a network that nobody has.
func (w *world) free(id ipam.NetworkID) netip.Addr {
	w.t.Helper()
	n := w.get(w.client(""), id)
	for _, r := range n.Ranges {
		for i, a := 0, r.First4; i < r.Size; i, a = i+1, a.Next() {
			if _, leased := leaseOf(n, a); !leased {
				return a
			}
		}
	}
	w.t.Fatalf("network %d has no free address: %+v", id, n.Ranges)
	return netip.Addr{}
}

// TestDeletedReservation: an administrator deletes it with addresses in use. They are
// reserved again, the same ones, as long as nobody else has been given them.
func TestDeletedReservation(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	net := w.pool4(8)
	c := w.client("plain")
	m := manageWith(w, c, often, four(net))
	var given []netip.Addr
	for i := range 3 {
		given = append(given, m.give("four", ipam.IPv4, fmt.Sprintf("web-%d", i)))
	}
	res := w.reservation(c).ID
	m.wait("the administrator's deletion", func() bool { // holds are put back meanwhile
		w.releaseAll(int(res))
		_, _, err := w.admin.call("one.vn.delete", int(res))
		return err == nil
	})
	m.wait("a new reservation with all addresses on hold", func() bool {
		n, err := c.FindReservation(t.Context(), w.prefix+"-four")
		if err != nil || n.ID == res {
			return false
		}
		n, err = c.Get(t.Context(), n.ID)
		for _, a := range given {
			if err != nil || !isHeld(n, a) {
				return false
			}
		}
		return true
	})
	m.wait("an event of it", func() bool { return m.told(ipam.EventAddressRecovered) })
}

// TestRebuiltCluster: all that Kubernetes knew is lost. OpenNebula tells whose each address was.
func TestRebuiltCluster(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	net := w.pool4(8)
	c := w.client("plain")
	before := manage(w, c, four(net))
	given := map[string]netip.Addr{}
	for i := range 3 {
		name := fmt.Sprintf("web-%d", i)
		given[name] = before.give("four", ipam.IPv4, name)
	}
	before.wait("the owners in OpenNebula", func() bool {
		titles := 0
		for _, r := range w.reservation(c).Ranges {
			titles += len(ipam.ParseTitles(r.Attributes[ipam.AttributeOwners]))
		}
		return titles == len(given)
	})
	before.stop()

	after := manageWith(w, c, often, four(net))
	for name, a := range given {
		var found []ipam.Former
		after.wait("what was "+name+"'s", func() bool {
			found = after.Formers(ipam.Owner{Namespace: "default", Name: name})
			return len(found) > 0
		})
		if len(found) != 1 || found[0].Address != a || found[0].Pool != "four" {
			t.Errorf("%s had %s: %+v", name, a, found)
		}
	}
	if a := after.give("four", ipam.IPv4, "new"); a == given["web-0"] || a == given["web-1"] || a == given["web-2"] {
		t.Errorf("a new Service was given %s, which is kept for another", a)
	}
	rec, err := after.Allocate(t.Context(), ipam.Request{
		Pool: "four", Want: given["web-1"], Owner: ipam.Owner{Namespace: "default", Name: "web-1", UID: "reborn"}, Detail: detail(),
	})
	if err != nil || rec.Address != given["web-1"] {
		t.Errorf("%+v, %v", rec, err)
	}
}

// TestForeignReservation: the name of another cluster was chosen again.
func TestForeignReservation(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	net := w.pool4(8)
	c := w.client("plain")
	first := manage(w, c, four(net))
	a := first.give("four", ipam.IPv4, "web")
	first.stop()
	was := w.reservation(c)

	second := manageWith(w, c, func(o *ipam.Options) { often(o); o.Identity = "another" }, four(net))
	_, err := second.Allocate(t.Context(), ipam.Request{Pool: "four", Family: ipam.IPv4, Owner: ipam.Owner{Namespace: "default", Name: "web", UID: "u"}, Detail: detail()})
	if !errors.Is(err, ipam.ErrForeign) {
		t.Errorf("an address of another cluster's reservation: %v", err)
	}
	second.wait("an event of it", func() bool { return second.told(ipam.EventPoolNotReady) })
	second.stop()
	if n := w.reservation(c); n.ID != was.ID || !isHeld(n, a) || n.Attributes[ipam.AttributeClusterUID] != "uid" {
		t.Errorf("the reservation was touched: %+v, then %+v", was, n)
	}
}

// TestFragmentedParent: no two free addresses stand side by side.
func TestFragmentedParent(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	net := w.pool4(8)
	for _, a := range []string{"10.255.0.11", "10.255.0.13", "10.255.0.15", "10.255.0.17"} {
		if err := w.client("").Hold(t.Context(), net, ip(a)); err != nil {
			t.Fatal(err)
		}
	}
	c := w.client("plain")
	m := manage(w, c, four(net))
	given := map[netip.Addr]bool{}
	for i := range 4 {
		given[m.give("four", ipam.IPv4, fmt.Sprintf("web-%d", i))] = true
	}
	if len(given) != 4 {
		t.Errorf("%d of 4 addresses: %v", len(given), given)
	}
	_, err := m.Allocate(t.Context(), ipam.Request{Pool: "four", Family: ipam.IPv4, Owner: ipam.Owner{Namespace: "default", Name: "more", UID: "more"}, Detail: detail()})
	if !errors.Is(err, ipam.ErrNoSpace) {
		t.Errorf("a fifth one: %v", err)
	}
}

// TestAbandonedReservation: the pool's objects were removed by force, or a call to reserve
// was finished after its caller had given up.
func TestAbandonedReservation(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	net := w.pool4(8)
	c := w.client("plain")
	left := w.reserve(c, net, "four", 2)
	if err := c.Annotate(t.Context(), left.ID, map[string]string{ipam.AttributeClusterUID: "uid", ipam.AttributePool: "four"}); err != nil {
		t.Fatal(err)
	}
	theirs := w.reserve(c, net, "five", 2)
	if err := c.Annotate(t.Context(), theirs.ID, map[string]string{ipam.AttributeClusterUID: "another", ipam.AttributePool: "five"}); err != nil {
		t.Fatal(err)
	}
	m := manageWith(w, c, often)
	m.wait("the reservation goes back", func() bool {
		_, err := c.Get(t.Context(), left.ID)
		return errors.Is(err, ipam.ErrNotFound)
	})
	m.wait("an event of it", func() bool { return m.told(ipam.EventOrphanReservation) })
	if n := w.get(c, theirs.ID); n.Attributes[ipam.AttributeClusterUID] != "another" {
		t.Errorf("another cluster's: %+v", n)
	}
}
