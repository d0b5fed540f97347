package contract

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/provider/one"
	"github.com/onelb/onelb/test/onesim"
)

// TestMergeContext: what is given is merged into a machine's context, also an empty
// value; nothing else changes. On hold, a machine takes it at once.
func TestMergeContext(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	net := w.pool4(4)
	id := w.admin.must(t, "one.vm.allocate", fmt.Sprintf(
		"NAME=%q\nCPU=\"0.1\"\nMEMORY=\"64\"\nNIC=[NETWORK_ID=\"%d\"]\nCONTEXT=[NETWORK=\"YES\",TOKEN=\"YES\",THEIRS=\" a  b,c=[d] \\\"e\\\" <&> \",EMPTY=\"\",PASSWORD=\"secret\"]\n",
		w.prefix+"-context", net), true)
	t.Cleanup(func() { _, _, _ = w.admin.call("one.vm.action", "terminate-hard", id) })
	c := w.client("")
	before := w.contextOf(c, id)
	if before["THEIRS"] != ` a  b,c=[d] "e" <&> ` || before["ETH0_IP"] == "" || before["NETWORK"] != "YES" {
		t.Fatalf("context %q", before)
	}
	for _, variables := range []map[string]string{
		{"ONEAPP_VNF_NAT4_PORT_FWD10": "10.255.0.10:80:10.0.0.1:80", "ONELB_CLUSTER_1": "cluster=a identity=b token=1", "ONELB_B": "x"},
		{"ONEAPP_VNF_NAT4_PORT_FWD10": "10.255.0.11:80:10.0.0.1:81", "ONELB_B": ""},
	} {
		if err := c.MergeContext(t.Context(), id, variables); err != nil {
			t.Fatal(err)
		}
		maps.Copy(before, variables)
		if got := w.contextOf(c, id); !maps.Equal(got, before) {
			t.Errorf("context\n%q\nwant\n%q", got, before)
		}
	}
	for _, value := range []string{`a"`, `a\`, "$USER", "a\nb", "a]"} {
		if err := c.MergeContext(t.Context(), id, map[string]string{"A": value}); err == nil {
			t.Errorf("%q was sent", value)
		}
	}
	if err := w.client("plain").MergeContext(t.Context(), id, map[string]string{"A": "1"}); !errors.Is(err, ipam.ErrDenied) {
		t.Errorf("somebody else: %v, want ErrDenied", err)
	}
	if err := c.MergeContext(t.Context(), 4711000, map[string]string{"A": "1"}); !errors.Is(err, ipam.ErrNotFound) {
		t.Errorf("no such machine: %v, want ErrNotFound", err)
	}
}

func (w *world) contextOf(c *one.Client, id int) map[string]string {
	w.t.Helper()
	vm, err := c.VMContext(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return vm.Context
}

// TestVirtualRouterContext: a user with USE on a virtual router, and USE and MANAGE
// on its machines, changes their contexts; a machine in HOTPLUG takes no other one.
func TestVirtualRouterContext(t *testing.T) {
	w := newWorld(t, onesim.Options{Delays: onesim.Delays{Context: 300 * time.Millisecond}})
	w.simOnly("machines have to run, which needs a host")
	net := w.pool4(8)
	host, err := w.sim.AddHost(w.prefix + "-host")
	if err != nil {
		t.Fatal(err)
	}
	id, vms, err := w.sim.AddVRouter(onesim.VRouterSpec{
		Name: w.prefix + "-vr", Host: host, NICs: []onesim.NICSpec{{Network: int(net)}}, VMs: []string{"vr-0", "vr-1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	c := w.client("k8s")
	if _, err := c.VirtualRouterMachines(t.Context(), id); !errors.Is(err, ipam.ErrDenied) {
		t.Errorf("without a right: %v, want ErrDenied", err)
	}
	if _, err := w.client("").VirtualRouterMachines(t.Context(), 4711); !errors.Is(err, ipam.ErrNotFound) {
		t.Errorf("no such router: %v, want ErrNotFound", err)
	}
	w.mayUse(w.users["k8s"], "VROUTER", id)
	got, err := c.VirtualRouterMachines(t.Context(), id)
	if err != nil || !slices.Equal(got, vms) {
		t.Fatalf("%v, %v, want %v", got, err, vms)
	}
	w.mayUse(w.users["k8s"], "VM", vms[0])
	vm, err := c.VMContext(t.Context(), vms[0])
	if err != nil || vm.VirtualRouterID != id || !vm.VirtualRouter || vm.Context["ETH0_IP"] == "" || vm.Context["VROUTER_ID"] != fmt.Sprint(id) {
		t.Fatalf("%+v, %v", vm, err)
	}
	if err := c.MergeContext(t.Context(), vms[0], map[string]string{"A": "1"}); !errors.Is(err, ipam.ErrDenied) {
		t.Errorf("with USE alone: %v, want ErrDenied", err)
	}
	w.may(w.users["k8s"], "VM", vms[0], rightManage)
	if err := c.MergeContext(t.Context(), vms[0], map[string]string{"A": "1"}); err != nil {
		t.Fatal(err)
	}
	if err := c.MergeContext(t.Context(), vms[0], map[string]string{"A": "2"}); !errors.Is(err, ipam.ErrNotReady) {
		t.Errorf("in HOTPLUG: %v, want ErrNotReady", err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		vm, err = c.VMContext(t.Context(), vms[0])
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("%s, %v", vm.LCMState, err)
		}
		if vm.LCMState == one.LCMRunning {
			break
		}
	}
	if vm.Context["A"] != "1" {
		t.Errorf("context %q", vm.Context)
	}
}
