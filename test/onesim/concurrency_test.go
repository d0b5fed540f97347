package onesim

import (
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestOneWinner: of many clients that hold or reserve one address exactly one succeeds, and nothing is left of the others.
func TestOneWinner(t *testing.T) {
	s := newSim(t, Options{})
	var wins atomic.Int32
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if _, err := s.do(asAdmin, "one.vn.hold", 0, `LEASES=[IP="10.0.0.10"]`); err == nil {
				wins.Add(1)
			}
			_, err := s.do(asK8s, "one.vn.reserve", 0, fmt.Sprintf(`SIZE=1 NAME=r%d AR_ID=0 IP=10.0.0.20`, i))
			if err == nil {
				wins.Add(100)
			}
			_, _ = s.do(asK8s, "one.vnpool.info", -2, -1, -1)
		})
	}
	wg.Wait()
	if wins.Load() != 101 {
		t.Errorf("%d holds and %d reservations won, want one each", wins.Load()%100, wins.Load()/100)
	}
	if got := s.Reservations(0); len(got) != 1 {
		t.Errorf("reservations %v, want one", got)
	}
}

// TestLockCreate: a reservation is in LOCK_CREATE for as long as its driver needs.
func TestLockCreate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, Options{Delays: Delays{Create: 9 * time.Millisecond, Delete: 18 * time.Millisecond}})
		id := must(t, s, asK8s, "one.vn.reserve", 0, `SIZE=2 NAME=r`).(int)
		first := func() error { _, err := s.do(asK8s, "one.vn.hold", id, `LEASES=[IP="10.0.0.10"]`); return err }
		wantCode(t, first(), CodeAction)
		time.Sleep(8 * time.Millisecond)
		wantCode(t, first(), CodeAction)
		time.Sleep(time.Millisecond)
		if err := first(); err != nil {
			t.Fatal(err)
		}
		must(t, s, asK8s, "one.vn.release", id, `LEASES=[IP="10.0.0.10"]`)
		must(t, s, asK8s, "one.vn.delete", id)
		if v, err := s.VNet(id); err != nil || v.State != "LOCK_DELETE" {
			t.Errorf("after delete: %+v %v", v, err)
		}
		time.Sleep(18 * time.Millisecond)
		if _, err := s.VNet(id); err == nil {
			t.Error("the network is still there")
		}
	})
}

// TestHotplug: one at a time, and a failing driver takes the NIC away again.
func TestHotplug(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, Options{Delays: Delays{Hotplug: 39 * time.Millisecond}})
		id, err := s.AddVM(VMSpec{Name: "v", Owner: "k8s", NICs: []NICSpec{{Network: 0}}})
		if err != nil {
			t.Fatal(err)
		}
		alias := `NIC_ALIAS=[NETWORK_ID="0",PARENT="NIC0",IP="10.0.0.50"]`
		if err := s.FailDriver("attachnic", id, 1); err != nil {
			t.Fatal(err)
		}
		for _, want := range []int{1, 2} {
			must(t, s, asK8s, "one.vm.attachnic", id, alias)
			_, err = s.do(asK8s, "one.vm.detachnic", id, 0)
			wantCode(t, err, CodeAction)
			if v, _ := s.VM(id); v.State != "HOTPLUG_NIC" || len(v.NICs) != 2 {
				t.Errorf("in flight: %+v", v)
			}
			time.Sleep(39 * time.Millisecond)
			if v, _ := s.VM(id); v.State != "RUNNING" || len(v.NICs) != want {
				t.Errorf("afterwards: %+v, want %d NICs", v, want)
			}
		}
	})
}

// TestLatency: writers wait for each other, readers do not.
func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, Options{Latency: map[string]time.Duration{"*": 10 * time.Millisecond}})
		for _, tc := range []struct {
			method string
			args   []any
			want   time.Duration
		}{
			{"one.vn.release", []any{0, `LEASES=[IP="10.0.0.10"]`}, 50 * time.Millisecond},
			{"one.vn.info", []any{0}, 10 * time.Millisecond},
		} {
			begin := time.Now()
			var wg sync.WaitGroup
			for range 5 {
				wg.Go(func() { _, _ = s.do(asAdmin, tc.method, tc.args...) })
			}
			wg.Wait()
			if took := time.Since(begin); took != tc.want {
				t.Errorf("5 times %s took %s, want %s", tc.method, took, tc.want)
			}
		}
	})
}

// TestRestart: the state and the address survive a stop.
func TestRestart(t *testing.T) {
	s := newSim(t, Options{})
	endpoint, stop, err := s.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := endpoint[len("http://") : len(endpoint)-len("/RPC2")]
	for i := range 3 {
		ip := netip.MustParseAddr("10.0.0.10")
		for range i {
			ip = ip.Next()
		}
		if status, _, err := post(within(t, time.Minute), endpoint, hold(ip.String())); err != nil || status != http.StatusOK {
			t.Fatal(status, err)
		}
		stop()
		if _, _, err := post(within(t, time.Minute), endpoint, hold("10.0.0.50")); err == nil {
			t.Fatal("a stopped server answered")
		}
		if _, stop, err = s.Start(addr); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	if got := len(s.Holds(0)); got != 3 {
		t.Errorf("%d holds, want 3", got)
	}
}

// TestManyHolds: 10,000 holds in one network stay correct; BenchmarkHold10000 tells what they cost.
func TestManyHolds(t *testing.T) {
	s := manyHolds(t)
	if got := len(s.Holds(1)); got != 10000 {
		t.Fatalf("%d holds", got)
	}
	must(t, s, asAdmin, "one.vn.info", 1)
	must(t, s, asAdmin, "one.vn.release", 1, `LEASES=[IP="10.1.19.136"]`)
	if got := len(s.Holds(1)); got != 9999 {
		t.Errorf("%d holds after a release", got)
	}
}

func manyHolds(t testing.TB) *Sim {
	s := newSim(t, Options{})
	if _, err := s.AddVNet("", `NAME="big" BRIDGE="b" AR=[TYPE="IP4",IP="10.1.0.0",SIZE="65536"]`); err != nil {
		t.Fatal(err)
	}
	ip := netip.MustParseAddr("10.1.0.1")
	for range 10000 {
		must(t, s, asAdmin, "one.vn.hold", 1, `LEASES=[IP="`+ip.String()+`"]`)
		ip = ip.Next()
	}
	return s
}

func BenchmarkHold10000(b *testing.B) {
	s := manyHolds(b)
	for b.Loop() {
		must(b, s, asAdmin, "one.vn.hold", 1, `LEASES=[IP="10.1.200.1"]`)
		must(b, s, asAdmin, "one.vn.release", 1, `LEASES=[IP="10.1.200.1"]`)
	}
}

func BenchmarkInfo10000(b *testing.B) {
	s := manyHolds(b)
	for b.Loop() {
		must(b, s, asAdmin, "one.vn.info", 1)
	}
}

func BenchmarkPool10000(b *testing.B) {
	s := manyHolds(b)
	for b.Loop() {
		must(b, s, asAdmin, "one.vnpool.info", -2, -1, -1)
	}
}
