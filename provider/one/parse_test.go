package one

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/onelb/onelb/ipam"
)

var compareAddrs = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func addr(s string) netip.Addr {
	if s == "" {
		return netip.Addr{}
	}
	return netip.MustParseAddr(s)
}

func mustNetwork(t *testing.T, name string) ipam.Network {
	t.Helper()
	n, err := parseNetwork([]byte(testdata(t, name)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestParseReservation(t *testing.T) {
	got := mustNetwork(t, "vnet-reservation")
	want := ipam.Network{
		ID: 8, Name: "k8s-lb", Owner: "k8s", Parent: 1, Ready: true, State: "READY",
		Attributes: map[string]string{ // the two vectors K8S_LB are left out
			"BRIDGE": "br-public", "BRIDGE_TYPE": "linux", "K8S_CLUSTER": "c1", "K8S_OWNED": "default/web",
			"MINE": "1", "OUTER_VLAN_ID": "", "PHYDEV": "", "VLAN_ID": "", "VN_MAD": "dummy",
		},
		Ranges: []ipam.Range{
			{
				ID: 0, Kind: ipam.RangeIP4, First4: addr("10.12.0.204"), Attributes: map[string]string{"K8S_SVC": "default/web", "K8S_UID": "0001"}, Size: 2, ParentRange: 0, Used: 1,
				Leases: []ipam.Lease{{IP4: addr("10.12.0.204"), Held: true}},
			},
			{ID: 1, Kind: ipam.RangeIP4, First4: addr("10.12.0.206"), Size: 1},
			{ID: 2, Kind: ipam.RangeIP4, First4: addr("10.12.0.217"), Size: 1},
		},
	}
	if diff := cmp.Diff(want, got, compareAddrs); diff != "" {
		t.Error(diff)
	}
}

func TestParseMixedRanges(t *testing.T) {
	n := mustNetwork(t, "vnet-mixed")
	if n.Parent != ipam.NoNetwork || len(n.Ranges) != 3 {
		t.Fatalf("%+v", n)
	}
	r := n.Ranges[0]
	if r.ParentRange != -1 || r.Used != len(r.Leases) {
		t.Errorf("range 0: %+v", r)
	}
	users := map[string]string{}
	for _, l := range r.Leases {
		users[l.IP4.String()] = l.User
		if l.Held != (l.User == "") {
			t.Errorf("%+v", l)
		}
	}
	// A lease of virtual router 0 is neither one of VM 0 nor a hold.
	for a, want := range map[string]string{"10.12.0.200": "VROUTER 0", "10.12.0.201": "VM 3", "10.12.0.210": ""} {
		if got, ok := users[a]; !ok || got != want {
			t.Errorf("%s: %q, %v", a, got, ok)
		}
	}
	slaac := n.Ranges[1]
	if slaac.First6 != addr("2001:db8:12:1:0:aff:fe0c:10a") || slaac.First4 != addr("10.12.1.10") || slaac.NoIPv6 != "" {
		t.Errorf("%+v", slaac)
	}
	held := []ipam.Lease{{IP4: addr("10.12.1.12"), IP6: addr("2001:db8:12:1:0:aff:fe0c:10c"), Held: true}}
	if diff := cmp.Diff(held, slaac.Leases, compareAddrs); diff != "" || slaac.Used != 1 {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"GLOBAL_PREFIX": "2001:db8:12:1::", "ULA_PREFIX": "fd00:12:1::"}, slaac.Attributes); diff != "" {
		t.Error(diff)
	}
	if v6 := n.Ranges[2]; v6.First6 != addr("2001:db8:12:2::10") || v6.First4.IsValid() || v6.Kind != ipam.RangeIP6 {
		t.Errorf("%+v", v6)
	}
}

func TestParsePairsAndEther(t *testing.T) {
	pairs := mustNetwork(t, "vnet-pairs").Ranges[0]
	want := []ipam.Lease{
		{IP4: addr("10.13.0.12"), IP6: addr("2001:db8:13::12"), Held: true},
		{IP4: addr("10.13.0.13"), IP6: addr("2001:db8:13::13"), Held: true},
	}
	if diff := cmp.Diff(want, pairs.Leases, compareAddrs); diff != "" {
		t.Error(diff)
	}
	if ether := mustNetwork(t, "vnet-ether").Ranges[0]; len(ether.Leases) != 0 || ether.Used != 1 || ether.First4.IsValid() {
		t.Errorf("%+v", ether)
	}
}

func TestParseStates(t *testing.T) {
	for name, want := range map[string]string{"vnet-deleting": "LOCK_DELETE", "vnet-error": "ERROR"} {
		if n := mustNetwork(t, name); n.Ready || n.State != want {
			t.Errorf("%s: %v %s", name, n.Ready, n.State)
		}
	}
	for state, ready := range map[string]bool{"0": false, "2": false, "4": false, "6": true, "99": false} {
		n, err := parseNetwork([]byte("<VNET><ID>1</ID><STATE>" + state + "</STATE></VNET>"))
		if err != nil || n.Ready != ready || n.State == "" {
			t.Errorf("state %s: %+v, %v", state, n, err)
		}
	}
}

func TestParseSharedRange(t *testing.T) {
	leases := mustNetwork(t, "vnet-shared").Ranges[0].Leases
	var users []string
	for _, l := range leases {
		users = append(users, l.IP4.String()+" "+l.User)
	}
	if len(leases) < 3 || leases[0].User != "" {
		t.Errorf("%q", users)
	}
}

func TestParseNetworkRefuses(t *testing.T) {
	for _, body := range []string{
		"", "<VNET/>", "<VNET><ID>x</ID></VNET>", "<VNET><ID>-1</ID><STATE>1</STATE></VNET>", "<VNET><ID>1</ID></VNET>",
		"<VNET><ID>1</ID><STATE>1</STATE><PARENT_NETWORK_ID>a</PARENT_NETWORK_ID></VNET>",
		"<VNET><ID>1</ID><STATE>1</STATE><AR_POOL><AR><SIZE>1</SIZE></AR></AR_POOL></VNET>",
		"<VNET><ID>1</ID><STATE>1</STATE><AR_POOL><AR><AR_ID>0</AR_ID><SIZE>-1</SIZE></AR></AR_POOL></VNET>",
		"<VNET><ID>1</ID><STATE>1</STATE><AR_POOL><AR><AR_ID>0</AR_ID><TYPE>IP4</TYPE><IP>::1</IP></AR></AR_POOL></VNET>",
		"<VNET><ID>1</ID><STATE>1</STATE><AR_POOL><AR><AR_ID>0</AR_ID><TYPE>IP6_STATIC</TYPE><IP6>1.2.3.4</IP6></AR></AR_POOL></VNET>",
		"<VNET><ID>1</ID><STATE>1</STATE><AR_POOL><AR><AR_ID>0</AR_ID><TYPE>IP4</TYPE><LEASES><LEASE><IP>?</IP></LEASE></LEASES></AR></AR_POOL></VNET>",
		"<HOST><ID>1</ID><STATE>1</STATE></HOST>",
	} {
		if n, err := parseNetwork([]byte(body)); err == nil {
			t.Errorf("%q became %+v", body, n)
		}
	}
}

func TestParseVM(t *testing.T) {
	vm, err := parseVM([]byte(testdata(t, "vm-nics")))
	if err != nil {
		t.Fatal(err)
	}
	nics := vm.NICs
	vm.NICs = nil
	want := VM{
		ID: 0, Name: "node-1", Owner: "k8s", State: VMActive, LCMState: 3, Host: "dummy-host", ClusterID: 0,
		CPU: 0.1, VCPU: 1, MemoryMB: 64, Attributes: map[string]string{"ONLY": "this"},
		Rules: []Rule{{Protocol: "ALL"}, {Inbound: true, Protocol: "ALL"}},
	}
	if diff := cmp.Diff(want, vm); diff != "" {
		t.Error(diff)
	}
	wantNICs := []NIC{
		{ID: 0, Name: "NIC0", ParentNetworkID: -1, Network: "private", NetworkID: 0, Addresses: []netip.Addr{addr("172.20.0.100")}, SecurityGroups: []int{0}},
		{ID: 1, Name: "NIC1", ParentNetworkID: -1, Network: "public", NetworkID: 1, Addresses: []netip.Addr{addr("10.12.0.209")}, SecurityGroups: []int{0}},
		{ID: 2, Name: "NIC2", ParentNetworkID: -1, Network: "public", NetworkID: 1, Addresses: []netip.Addr{addr("10.12.0.218")}, SecurityGroups: []int{0}},
		{ID: 3, Name: "NIC0_ALIAS3", ParentNetworkID: -1, Alias: true, Network: "public", NetworkID: 1, Addresses: []netip.Addr{addr("10.12.0.210")}, SecurityGroups: []int{0}},
		{ID: 4, Name: "NIC0_ALIAS4", ParentNetworkID: -1, Alias: true, Network: "public", NetworkID: 1, Addresses: []netip.Addr{addr("10.12.0.217")}, SecurityGroups: []int{0}},
		{ID: 5, Name: "NIC5", ParentNetworkID: -1, Network: "public", NetworkID: 1, Addresses: []netip.Addr{addr("2001:db8:12:2::15")}, SecurityGroups: []int{0}},
		{ID: 6, Name: "NIC6", ParentNetworkID: -1, Network: "v6", NetworkID: 3, Addresses: []netip.Addr{addr("10.13.0.10"), addr("2001:db8:13::10")}, SecurityGroups: []int{0}},
		{ID: 7, Name: "NIC7", ParentNetworkID: -1, Network: "ether", NetworkID: 2, SecurityGroups: []int{0}},
	}
	if diff := cmp.Diff(wantNICs, nics, compareAddrs); diff != "" {
		t.Error(diff)
	}
}

func TestParseVMVariants(t *testing.T) {
	parse := func(name string) VM {
		vm, err := parseVM([]byte(testdata(t, name)))
		if err != nil {
			t.Fatal(err)
		}
		return vm
	}
	if vm := parse("vm-done"); vm.State != VMDone || vm.State.String() != "DONE" {
		t.Errorf("%+v", vm)
	}
	if vm := parse("vm-hold"); vm.State != VMHold || vm.Host != "" || vm.ClusterID != -1 || vm.UUID == "" {
		t.Errorf("%+v", vm)
	}
	if vm := parse("vm-router"); !vm.VirtualRouter || vm.UUID != "6db56fc4-5004-413a-8b23-70ba724f1885" {
		t.Errorf("%+v", vm)
	}
	vm := parse("vm-attaching")
	if vm.LCMState.String() != "HOTPLUG_NIC" {
		t.Errorf("%s", vm.LCMState)
	}
	attaching := 0
	for _, n := range vm.NICs {
		if n.Attaching {
			attaching++
		}
	}
	if attaching != 1 {
		t.Errorf("%+v", vm.NICs)
	}
	vm, err := parseVM([]byte(`<VM><ID>1</ID><STATE>3</STATE><TEMPLATE>
		<PCI><TYPE>NIC</TYPE><NIC_ID>2</NIC_ID><IP>10.0.0.2</IP></PCI><PCI><CLASS>0300</CLASS></PCI>
		<NIC><NIC_ID>1</NIC_ID><IP>10.0.0.1</IP><IP6_GLOBAL>2001:db8::1</IP6_GLOBAL><IP6_ULA>fd00::1</IP6_ULA><IP6_LINK>fe80::1</IP6_LINK></NIC></TEMPLATE>
		<HISTORY_RECORDS><HISTORY><SEQ>1</SEQ><HOSTNAME>new</HOSTNAME><CID>101</CID></HISTORY>
		<HISTORY><SEQ>0</SEQ><HOSTNAME>old</HOSTNAME><CID>100</CID></HISTORY></HISTORY_RECORDS></VM>`))
	want := []NIC{
		{ID: 1, NetworkID: -1, ParentNetworkID: -1, Addresses: []netip.Addr{addr("10.0.0.1"), addr("2001:db8::1"), addr("fd00::1")}},
		{ID: 2, NetworkID: -1, ParentNetworkID: -1, Addresses: []netip.Addr{addr("10.0.0.2")}},
	}
	if diff := cmp.Diff(want, vm.NICs, compareAddrs); diff != "" || err != nil || vm.Host != "new" || vm.ClusterID != 101 {
		t.Error(diff, err, vm)
	}
}

// TestParseVMPoolKeepsGoing: a machine of somebody else that makes no sense must
// not hide ours.
func TestParseVMPoolKeepsGoing(t *testing.T) {
	vms, err := parseVMPool([]byte(`<VM_POOL>
		<VM><ID>2</ID><NAME>odd</NAME><STATE>3</STATE><TEMPLATE><NIC><NIC_ID>0</NIC_ID><IP>nonsense</IP></NIC></TEMPLATE></VM>
		<VM><ID>1</ID><NAME>node-1</NAME><STATE>3</STATE></VM></VM_POOL>`))
	if err != nil || len(vms) != 2 || vms[0].ID != 1 || vms[0].Err != nil || vms[1].Err == nil || vms[1].Name != "odd" {
		t.Fatalf("%+v, %v", vms, err)
	}
	for _, body := range []string{"", "<VM/>", "<VM_POOL><VM><NAME>x</NAME></VM></VM_POOL>", "<VM_POOL><VM>"} {
		if vms, err := parseVMPool([]byte(body)); err == nil {
			t.Errorf("%q became %+v", body, vms)
		}
	}
}

func TestParsePlaces(t *testing.T) {
	got, err := parsePlaces([]byte("<ZONE_POOL><ZONE><ID>0</ID><NAME>OpenNebula</NAME></ZONE><ZONE><ID>100</ID><NAME>b</NAME><TEMPLATE><ROOM>B</ROOM><V><A>1</A></V></TEMPLATE></ZONE></ZONE_POOL>"), "ZONE_POOL", "ZONE")
	if diff := cmp.Diff(map[int]Place{0: {Name: "OpenNebula"}, 100: {Name: "b", Attributes: map[string]string{"ROOM": "B"}}}, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	for _, body := range []string{"", "<X/>", "<ZONE_POOL><HOST><ID>0</ID></HOST></ZONE_POOL>", "<ZONE_POOL><ZONE/></ZONE_POOL>"} {
		if got, err := parsePlaces([]byte(body), "ZONE_POOL", "ZONE"); err == nil {
			t.Errorf("%q became %v", body, got)
		}
	}
}

func addSeeds(f *testing.F, prefix string) {
	f.Helper()
	files, err := filepath.Glob("testdata/" + prefix + "*.xml")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
}

func FuzzParseNetwork(f *testing.F) {
	addSeeds(f, "vnet")
	f.Fuzz(func(t *testing.T, body []byte) {
		n, err := parseNetwork(body)
		if err != nil {
			return
		}
		if n.ID < 0 || n.State == "" || n.Attributes == nil || n.Parent < ipam.NoNetwork {
			t.Errorf("%+v", n)
		}
		for _, r := range n.Ranges {
			if r.ID < 0 || r.Size < 0 || r.Used < 0 || r.First4.IsValid() && !r.First4.Is4() || r.First6.IsValid() && !r.First6.Is6() {
				t.Errorf("%+v", r)
			}
		}
	})
}

func FuzzParseVM(f *testing.F) {
	addSeeds(f, "vm")
	f.Fuzz(func(t *testing.T, body []byte) {
		vm, err := parseVM(body)
		if err == nil && (vm.ID < 0 || vm.Attributes == nil || vm.Err != nil) {
			t.Errorf("%+v", vm)
		}
		pool := "<VM_POOL>" + string(body) + "</VM_POOL>"
		if vms, err := parseVMPool([]byte(pool)); err == nil && strings.Count(pool, "<VM>") == 0 && len(vms) > 1 {
			t.Errorf("%+v", vms)
		}
	})
}

func FuzzEnvelope(f *testing.F) {
	for _, s := range []string{okText("x"), okID(1), failure(0x400, "x"), fault(-506, "x"), responseHead + responseTail} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		fe := &frontEnd{t: t}
		c := fe.client(Options{Endpoint: "http://127.0.0.1:1/RPC2"})
		c.http.Transport = &transport{base: canned(body), limit: 1 << 20}
		_, _ = c.callText(t.Context(), "one.vn.info", 1, false)
		_, _ = c.callID(t.Context(), "one.vn.hold", 1, "x")
	})
}
