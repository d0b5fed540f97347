package onesim

import (
	"net/netip"
	"strings"
	"testing"
)

// TestReserveTraps are oned's defects that callers must know: they stay as they are.
func TestReserveTraps(t *testing.T) {
	s := newSim(t, Options{})
	if _, err := s.AddVNet("", `NAME="small" AR=[TYPE="IP4",IP="10.9.0.1",SIZE="2"]`); err != nil {
		t.Fatal(err)
	}
	child := must(t, s, asK8s, "one.vn.reserve", 1, `SIZE=5 NAME=c AR_ID=0 IP=10.9.0.1`).(int)
	_, err := s.do(asAdmin, "one.vn.info", 1)
	wantCode(t, err, CodeNoExists)
	must(t, s, asK8s, "one.vn.delete", child)
	_, err = s.do(asAdmin, "one.vn.info", 1)
	wantCode(t, err, CodeNoExists)
	if v, err := s.VNet(1); err != nil || !v.Broken {
		t.Errorf("%+v %v", v, err)
	}
}

// TestReserveGivesBack: what a reservation took is free again after free_ar and delete, also in the quota.
func TestReserveGivesBack(t *testing.T) {
	s := newSim(t, Options{})
	must(t, s, asAdmin, "one.user.quota", 2, `NETWORK=[ID="0",LEASES="6"]`)
	id := must(t, s, asK8s, "one.vn.reserve", 0, `SIZE=4 NAME=r`).(int)
	must(t, s, asK8s, "one.vn.reserve", 0, `SIZE=2 NETWORK_ID=`+itoa(id))
	_, err := s.do(asK8s, "one.vn.reserve", 0, `SIZE=1 NETWORK_ID=`+itoa(id))
	wantCode(t, err, CodeAuthorization)
	must(t, s, asK8s, "one.vn.free_ar", id, 1)
	must(t, s, asK8s, "one.vn.reserve", 0, `SIZE=2 NETWORK_ID=`+itoa(id))
	must(t, s, asK8s, "one.vn.delete", id)
	v, err := s.VNet(0)
	if err != nil || len(v.Ranges[0].Leases) != 0 {
		t.Errorf("leases left: %+v %v", v.Ranges, err)
	}
	must(t, s, asK8s, "one.vn.reserve", 0, `SIZE=6 NAME=again`)
}

// TestAuto takes addresses in turn and wraps.
func TestAuto(t *testing.T) {
	ar := &addrRange{typ: "IP4", ip: netip.MustParseAddr("10.0.0.1"), size: 3}
	var got []int
	for range 3 {
		i, ok := ar.pick()
		if !ok {
			t.Fatal("full too early")
		}
		ar.leases.add(i, ownerHold)
		got = append(got, i)
	}
	if _, ok := ar.pick(); ok {
		t.Error("a full range gave an address")
	}
	ar.leases.remove(1, ownerHold)
	if i, ok := ar.pick(); !ok || i != 1 || got[2] != 2 {
		t.Errorf("got %v, then %d %t", got, i, ok)
	}
}

func TestPickBlock(t *testing.T) {
	ar := &addrRange{typ: "IP4", ip: netip.MustParseAddr("10.0.0.1"), size: 6}
	ar.leases.add(2, ownerHold)
	for _, tc := range []struct {
		n, want int
		ok      bool
	}{{4, 0, false}, {3, 3, true}, {2, 0, true}, {1, 0, false}} {
		first, ok := ar.pickBlock(tc.n)
		if ok != tc.ok || ok && first != tc.want {
			t.Errorf("%d addresses: got %d %t, want %d %t", tc.n, first, ok, tc.want, tc.ok)
		}
		for i := range tc.n {
			if ok {
				ar.leases.add(first+i, ownerNet)
			}
		}
	}
}

func TestSharedRange(t *testing.T) {
	s := newSim(t, Options{})
	id, err := s.AddVNet("", `NAME="s" AR=[TYPE="IP4",IP="10.8.0.1",SIZE="2",SHARED="YES"]`)
	if err != nil {
		t.Fatal(err)
	}
	var vms []int
	for _, name := range []string{"a", "b"} {
		v, err := s.AddVM(VMSpec{Name: name, Owner: "k8s", NICs: []NICSpec{{Network: 0}}})
		if err != nil {
			t.Fatal(err)
		}
		vms = append(vms, v)
		must(t, s, asK8s, "one.vm.attachnic", v, `NIC_ALIAS=[NETWORK_ID="`+itoa(id)+`",PARENT="NIC0",IP="10.8.0.1"]`)
	}
	must(t, s, asAdmin, "one.vn.hold", id, `LEASES=[IP="10.8.0.1"]`)
	v, _ := s.VNet(id)
	if len(v.Ranges[0].Leases) != 3 {
		t.Errorf("leases %+v", v.Ranges[0].Leases)
	}
	must(t, s, asK8s, "one.vm.detachnic", vms[0], 1)
	if err := s.SetVMState(vms[1], "DONE"); err != nil {
		t.Fatal(err)
	}
	if v, _ = s.VNet(id); len(v.Ranges[0].Leases) != 1 {
		t.Errorf("leases after the VMs went: %+v", v.Ranges[0].Leases)
	}
}

func TestLeaseRequestErrors(t *testing.T) {
	s := newSim(t, Options{})
	for _, tc := range []struct{ text, want string }{
		{`LEASES=[IP="10.0.0.10",AR_ID="x"]`, "Wrong AR_ID"},
		{`LEASES=[]`, "Missing MAC"},
		{`LEASES="x"`, "Empty lease"},
		{`LEASES=[IP="10.0.0.110"]`, "not part of the address range"},
		{`LEASES=[IP="10.0.0.9"]`, "not part of the address range"},
		{`LEASES=[IP="::ffff:10.0.0.10"]`, "not part of the address range"},
	} {
		if _, err := s.do(asAdmin, "one.vn.hold", 0, tc.text); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", tc.text, err, tc.want)
		}
	}
}

func TestAllow(t *testing.T) {
	s := newSim(t, Options{})
	_, err := s.do(asK8s, "one.vn.hold", 0, `LEASES=[IP="10.0.0.10"]`)
	wantCode(t, err, CodeAuthorization)
	if err := s.Allow("k8s", "NET", 0, "MANAGE"); err != nil {
		t.Fatal(err)
	}
	must(t, s, asK8s, "one.vn.hold", 0, `LEASES=[IP="10.0.0.10"]`)
}

func TestHoldAPI(t *testing.T) {
	s := newSim(t, Options{})
	a := netip.MustParseAddr("10.0.0.10")
	if err := s.Hold(0, a); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{s.Hold(0, a), s.Hold(0, netip.MustParseAddr("10.0.1.1")), s.Hold(9, a)} {
		if err == nil {
			t.Error("a hold that cannot be succeeded")
		}
	}
	if err := s.Release(0, a); err != nil || len(s.Holds(0)) != 0 {
		t.Error(err, s.Holds(0))
	}
	if err := s.Release(0, a); err == nil {
		t.Error("a release without a hold succeeded")
	}
}
