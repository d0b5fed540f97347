package contract

import (
	"errors"
	"testing"
	"time"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/provider/one"
	"github.com/onelb/onelb/test/onesim"
)

// TestAliasOfSharedRange follows one address of a SHARED range: on hold, it is
// an alias of two machines; one hotplug at a time; outside of SHARED ranges a
// hold and an alias exclude each other.
func TestAliasOfSharedRange(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	w.simOnly("machines have to run, which needs a host")
	net := w.network("lan", `TYPE="IP4",IP="10.255.7.10",SIZE="8"`, `TYPE="IP4",IP="10.255.7.100",SIZE="4",SHARED="YES"`)
	c := w.client("")
	host, err := w.sim.AddHost(w.prefix + "-host")
	if err != nil {
		t.Fatal(err)
	}
	var vms []int
	for _, name := range []string{"a", "b"} {
		id, err := w.sim.AddVM(onesim.VMSpec{Name: w.prefix + name, Host: host, NICs: []onesim.NICSpec{{Network: int(net)}}})
		if err != nil {
			t.Fatal(err)
		}
		vms = append(vms, id)
	}
	id, err := c.Reserve(t.Context(), ipam.ReserveRequest{
		Parent: net, Name: w.prefix + "-vip", Into: ipam.NoNetwork, Size: 2, Range: 1, First: ip("10.255.7.100"),
	})
	if err != nil {
		t.Fatal(err)
	}
	res := w.ready(c, id)
	if len(res.Ranges) != 1 || !res.Ranges[0].Shared || w.get(c, net).Ranges[0].Shared {
		t.Fatalf("ranges %+v", res.Ranges)
	}
	a := ip("10.255.7.100")
	if err := c.Hold(t.Context(), id, a); err != nil {
		t.Fatal(err)
	}
	for _, vm := range vms {
		if err := c.AttachAlias(t.Context(), vm, int(id), "NIC0", a); err != nil {
			t.Fatal(err)
		}
		if err := c.AttachAlias(t.Context(), vm, int(id), "NIC0", ip("10.255.7.101")); !errors.Is(err, ipam.ErrNotReady) {
			t.Errorf("a second hotplug at once: %v, want ErrNotReady", err)
		}
		n := w.alias(c, vm, int(id))
		if len(n.Addresses) != 1 || n.Addresses[0] != a || !n.External || n.ParentNetworkID != int(net) {
			t.Errorf("alias %+v", n)
		}
	}
	if r := w.get(c, id).Ranges[0]; len(r.Leases) != 3 || r.Used != 1 || !r.Leases[0].Held {
		t.Errorf("leases %+v, used %d", r.Leases, r.Used)
	}
	if err := c.DetachNIC(t.Context(), vms[0], w.alias(c, vms[0], int(id)).ID); err != nil {
		t.Fatal(err)
	}
	if err := c.DetachNIC(t.Context(), vms[1], 77); !errors.Is(err, ipam.ErrNotFound) {
		t.Errorf("a NIC that is not there: %v, want ErrNotFound", err)
	}
	if err := c.AttachAlias(t.Context(), vms[1], int(id), "NIC9", a); !errors.Is(err, ipam.ErrNotFound) {
		t.Errorf("a parent that is not there: %v, want ErrNotFound", err)
	}

	plain := w.network("plain", `TYPE="IP4",IP="10.255.8.10",SIZE="4"`)
	if err := c.Hold(t.Context(), plain, ip("10.255.8.11")); err != nil {
		t.Fatal(err)
	}
	if err := c.AttachAlias(t.Context(), vms[1], int(plain), "NIC0", ip("10.255.8.11")); !errors.Is(err, ipam.ErrInUse) {
		t.Errorf("an address on hold in a range that is not SHARED: %v, want ErrInUse", err)
	}
}

// alias waits until a machine has an alias in the network.
func (w *world) alias(c *one.Client, vm, network int) one.NIC {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		m, err := c.VM(w.t.Context(), vm)
		if err != nil || time.Now().After(deadline) {
			w.t.Fatalf("no alias: %+v, %v", m, err)
		}
		for _, n := range m.NICs {
			if n.Alias && n.NetworkID == network && !n.Attaching && m.LCMState == one.LCMRunning {
				return n
			}
		}
	}
}
