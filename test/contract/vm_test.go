package contract

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/provider/one"
	"github.com/onelb/onelb/test/onesim"
)

// machine makes a virtual machine that stays on hold: it needs no host and has
// its leases all the same.
func (w *world) machine(by raw, name string, nets ...ipam.NetworkID) int {
	w.t.Helper()
	var template strings.Builder
	fmt.Fprintf(&template, "NAME=%q\nCPU=\"0.1\"\nVCPU=\"2\"\nMEMORY=\"64\"\nONELB_TEST=\"a \\\"b\\\"\"\n", w.prefix+"-"+name)
	for _, n := range nets {
		fmt.Fprintf(&template, "NIC=[NETWORK_ID=\"%d\"]\n", n)
	}
	return by.must(w.t, "one.vm.allocate", template.String(), true)
}

func TestVirtualMachine(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	net := w.network("pairs", `TYPE="IP4_6_STATIC",IP="10.255.3.10",IP6="2001:db8:257::10",PREFIX_LENGTH="64",SIZE="4"`)
	slaac := w.network("slaac", `TYPE="IP4_6",IP="10.255.2.10",GLOBAL_PREFIX="2001:db8:256::",ULA_PREFIX="fd00:256::",SIZE="4"`)
	id := w.machine(w.admin, "vm", net, slaac)
	c := w.clientWith("", one.Options{CacheTTL: time.Millisecond})
	vm, err := c.VM(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if vm.Name != w.prefix+"-vm" || vm.State != one.VMHold || vm.Host != "" || vm.VCPU != 2 || vm.MemoryMB != 64 || len(vm.NICs) != 2 {
		t.Errorf("%+v", vm)
	}
	if n := vm.NICs[0]; n.Network != w.prefix+"-pairs" || n.NetworkID != int(net) || !slices.Equal(n.Addresses, addrs("10.255.3.10", "2001:db8:257::10")) {
		t.Errorf("%+v", n)
	}
	if n := vm.NICs[1]; len(n.Addresses) != 3 || n.Addresses[0] != ip("10.255.2.10") ||
		!netip.MustParsePrefix("2001:db8:256::/64").Contains(n.Addresses[1]) || !netip.MustParsePrefix("fd00:256::/64").Contains(n.Addresses[2]) {
		t.Errorf("%+v", n)
	}
	vms, err := c.VMs(t.Context())
	if i := slices.IndexFunc(vms, func(v one.VM) bool { return v.ID == id }); err != nil || i < 0 || vms[i].Name != vm.Name || len(vms[i].NICs) != 2 {
		t.Errorf("the list: %+v, %v", vms, err)
	}
	if _, err := w.client("plain").VM(t.Context(), id); !errors.Is(err, ipam.ErrDenied) {
		t.Errorf("somebody else: %v", err)
	}

	// A machine that was terminated leaves the list, but not OpenNebula.
	w.admin.must(t, "one.vm.action", "terminate-hard", id)
	time.Sleep(2 * time.Millisecond)
	for deadline := time.Now().Add(2 * time.Minute); vm.State != one.VMDone; time.Sleep(10 * time.Millisecond) {
		if vm, err = c.VM(t.Context(), id); err != nil || time.Now().After(deadline) {
			t.Fatalf("%s, %v", vm.State, err)
		}
	}
	vms, err = c.VMs(t.Context())
	if err != nil || slices.ContainsFunc(vms, func(v one.VM) bool { return v.ID == id }) {
		t.Errorf("the list: %+v, %v", vms, err)
	}
	if n := w.get(c, net); n.Ranges[0].Used != 0 {
		t.Errorf("its leases: %+v", n.Ranges)
	}
}
