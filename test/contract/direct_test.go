package contract

import (
	"errors"
	"fmt"
	"testing"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/test/onesim"
)

// TestHoldsOfAManager is what pools without reservation need: with USE and
// MANAGE on one network, and nothing else, a plain user sees all leases of it,
// and holds and releases there.
func TestHoldsOfAManager(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	w.needAdmin("it makes an access rule")
	net := w.pool4(4)
	if err := w.client("").Hold(t.Context(), net, ip("10.255.0.11")); err != nil {
		t.Fatal(err)
	}
	c := w.client("manager")
	rule, _, err := w.admin.call("one.acl.addrule", fmt.Sprintf("0x%x", 0x100000000+w.user("manager").id),
		fmt.Sprintf("0x%x", 0x4100000000+int(net)), "0x3", "0x100000000")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _, err := w.admin.call("one.acl.delrule", rule)
		w.complain(err)
	})
	n := w.get(c, net)
	if r := n.Ranges[0]; len(r.Leases) != 1 || r.Used != 1 || !r.Leases[0].Held || n.Parent != ipam.NoNetwork {
		t.Errorf("%+v", n)
	}
	if err := c.Hold(t.Context(), net, ip("10.255.0.11")); !errors.Is(err, ipam.ErrInUse) {
		t.Errorf("hold of another's: %v", err)
	}
	if err := c.Hold(t.Context(), net, ip("10.255.0.12")); err != nil {
		t.Fatal(err)
	}
	if err := c.Hold(t.Context(), net, ip("10.255.0.12")); !errors.Is(err, ipam.ErrInUse) {
		t.Errorf("a second hold, which is why a lost answer leaves a doubt: %v", err)
	}
	if err := c.Release(t.Context(), net, ip("10.255.0.12")); err != nil {
		t.Error(err)
	}
	if r := w.get(c, net).Ranges[0]; len(r.Leases) != 1 || r.Leases[0].IP4 != ip("10.255.0.11") {
		t.Errorf("%+v", r)
	}
}

func TestListOfReservations(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	parent := w.pool4(8)
	theirs, ours := w.client("theirs"), w.client("ours")
	w.reserve(theirs, parent, "lb", 1)
	late := w.reserve(ours, parent, "late", 1)
	made := w.reserve(ours, parent, "lb", 2)
	if err := ours.Annotate(t.Context(), made.ID, map[string]string{ipam.AttributeClusterUID: "uid"}); err != nil {
		t.Fatal(err)
	}
	list, err := ours.Reservations(t.Context())
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	if l := list[0]; l.ID != late.ID || l.Name != w.prefix+"-late" || l.Attributes[ipam.AttributeClusterUID] != "" {
		t.Errorf("%+v", l)
	}
	if l := list[1]; l.ID != made.ID || l.Attributes[ipam.AttributeClusterUID] != "uid" {
		t.Errorf("%+v", l)
	}
}
