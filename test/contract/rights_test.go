package contract

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/provider/one"
	"github.com/onelb/onelb/test/onesim"
)

// TestLeastRights makes every call of the provider as a user with the rights of
// docs/reference/opennebula-permissions.md and no others: a group in no VDC, USE
// on one network and one VM, and a quota.
func TestLeastRights(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	parent := w.pool4(8)
	vm := w.machine(w.admin, "node", parent)
	stranger := w.machine(w.admin, "stranger")
	u := w.user("plain")
	w.mayUse(u, "VM", vm)
	w.admin.must(t, "one.user.quota", u.id, fmt.Sprintf(`NETWORK=[ID="%d",LEASES="5"]`, parent))
	c, ctx := w.client("plain"), t.Context()
	before := w.calls()
	ok := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	ok("Check", second(c.Check(ctx)))
	ok("Find", second(c.Find(ctx, ipam.NetworkQuery{Name: w.prefix + "-ip4"})))
	r := w.reserve(c, parent, "lb", 2)
	ok("Annotate", c.Annotate(ctx, r.ID, map[string]string{"ONELB_CLUSTER": "lab"}))
	found, err := c.FindReservation(ctx, r.Name)
	if ok("FindReservation", err); found.Attributes["ONELB_CLUSTER"] != "lab" {
		t.Errorf("%+v", found)
	}
	ok("grow", second(c.Reserve(ctx, ipam.ReserveRequest{Parent: parent, Into: r.ID, Size: 2})))
	grown := w.get(c, r.ID)
	a := grown.Ranges[0].First4
	ok("AnnotateRange", c.AnnotateRange(ctx, r.ID, grown.Ranges[0].ID, map[string]string{"ONELB_X": "1"}))
	ok("Hold", c.Hold(ctx, r.ID, a))
	if got := held(w.get(c, r.ID)); !slices.Contains(got, a) {
		t.Errorf("on hold: %v", got)
	}
	ok("Release", c.Release(ctx, r.ID, a))
	ok("FreeRange", c.FreeRange(ctx, r.ID, grown.Ranges[len(grown.Ranges)-1].ID))
	ok("DeleteReservation", c.DeleteReservation(ctx, r.ID))
	ok("VM", second(c.VM(ctx, vm)))
	vms, err := c.VMs(ctx)
	if ok("VMs", err); !slices.ContainsFunc(vms, func(v one.VM) bool { return v.ID == vm }) || slices.ContainsFunc(vms, func(v one.VM) bool { return v.ID == stranger }) {
		t.Errorf("VMs %+v, want %d and not %d", vms, vm, stranger)
	}
	ok("ZoneName", second(c.ZoneName(ctx)))
	if _, err := c.Cluster(ctx, 0); err != nil && !errors.Is(err, ipam.ErrNotFound) {
		t.Errorf("Cluster: %v", err)
	}
	if _, err := c.Host(ctx, 0); err != nil && !errors.Is(err, ipam.ErrNotFound) {
		t.Errorf("Host: %v", err)
	}
	ok("Token", second(c.Token(ctx)))

	t.Log("and what it must not")
	// Aliases (guard: alias) need MANAGE on the machine.
	if err := c.AttachAlias(ctx, vm, int(parent), "NIC0", a); !errors.Is(err, ipam.ErrDenied) {
		t.Errorf("an alias without MANAGE: %v", err)
	}
	if err := c.DetachNIC(ctx, vm, 0); !errors.Is(err, ipam.ErrDenied) {
		t.Errorf("a detach without MANAGE: %v", err)
	}
	// Stock appliances (driver: appliance) need rights on the virtual router and its machines.
	if err := c.MergeContext(ctx, vm, map[string]string{"ONELB_X": "1"}); !errors.Is(err, ipam.ErrDenied) {
		t.Errorf("a new context without MANAGE: %v", err)
	}
	if _, err := c.VirtualRouterMachines(ctx, 0); !errors.Is(err, ipam.ErrDenied) && !errors.Is(err, ipam.ErrNotFound) {
		t.Errorf("a virtual router: %v", err)
	}
	if _, err := c.VM(ctx, stranger); !errors.Is(err, ipam.ErrDenied) {
		t.Errorf("another VM: %v", err)
	}
	if err := c.Hold(ctx, parent, ip("10.255.0.15")); !errors.Is(err, ipam.ErrDenied) {
		t.Errorf("a hold in the parent: %v", err)
	}
	if _, err := c.Reserve(ctx, ipam.ReserveRequest{Parent: parent, Name: w.prefix + "-large", Into: ipam.NoNetwork, Size: 6}); !errors.Is(err, ipam.ErrDenied) {
		t.Errorf("more than the quota: %v", err)
	}
	w.allMade(before)
}

// calls are those that the simulated front-end has got.
func (w *world) calls() map[string]int {
	if w.sim == nil {
		return nil
	}
	return maps.Clone(w.sim.Calls())
}

// allMade fails the test if a call that the provider's source names was not made.
// On a real front-end nobody counts.
func (w *world) allMade(before map[string]int) {
	w.t.Helper()
	if w.sim == nil {
		return
	}
	now := w.sim.Calls()
	for _, method := range providersCalls(w.t) {
		// Asked only of a federation, which the simulator is none of.
		if now[method] == before[method] && method != "one.system.config" {
			w.t.Errorf("no call of %s, which provider/one makes", method)
		}
	}
}

var literal = regexp.MustCompile(`"(one\.[a-z]+\.[a-z_]+)"`)

// providersCalls are the methods that the source of package one names.
func providersCalls(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../../provider/one/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	found := map[string]bool{"one.vn.hold": true, "one.vn.release": true} // put together of two parts
	for _, f := range files {
		if ok, _ := filepath.Match("*_test.go", filepath.Base(f)); ok {
			continue
		}
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range literal.FindAllSubmatch(text, -1) {
			found[string(m[1])] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}
