package appliance

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/onelb/onelb/loadbalancer/router"
)

// TestWritesAndTakesBack follows one appliance from the first entry to the last.
func TestWritesAndTakesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeOne(t)
		c, stop := start(t, options(f))
		defer stop()
		d := document([]uint16{80, 443}, []uint16{53})
		generation := c.Set(d)
		if err := c.Wait(t.Context(), generation); err != nil {
			t.Fatal(err)
		}
		const number = "1733741"
		want := `ONEAPP_VNF_NAT4_ENABLED=YES
ONEAPP_VNF_NAT4_PORT_FWD` + number + `0000=203.0.113.100:80:10.20.0.100:80
ONEAPP_VNF_NAT4_PORT_FWD` + number + `0001=203.0.113.100:443:10.20.0.100:443
ONEAPP_VNF_NAT4_PORT_FWD` + number + `0002=203.0.113.101:53:10.20.0.101:53
ONEAPP_VROUTER_ETH0_VIP` + number + `0000=203.0.113.100/32
ONEAPP_VROUTER_ETH0_VIP` + number + `0001=203.0.113.101/32
ONELB_CLUSTER_` + number + `=cluster=lab identity=` + identity + ` token=1
ONELB_NAT4_ENABLED=YES
`
		for _, id := range []int{3, 4} {
			if got := f.ours(id); got != want {
				t.Errorf("VM %d has\n%swant\n%s", id, got, want)
			}
		}
		// The same again, in another order, and for long: no write.
		for i, j := 0, len(d.Frontends)-1; i < j; i, j = i+1, j-1 {
			d.Frontends[i], d.Frontends[j] = d.Frontends[j], d.Frontends[i]
		}
		if again := c.Set(d); again != generation {
			t.Errorf("generation %d after %d for the same document", again, generation)
		}
		time.Sleep(time.Hour)
		if n := f.written(); n != 1 {
			t.Errorf("%d writes, want 1", n)
		}
		if err := c.Wait(t.Context(), c.Set(router.Document{})); err != nil {
			t.Fatal(err)
		}
		if a, b := f.ours(3), f.ours(4); a+b != "" {
			t.Errorf("left over:\n%s%s", a, b)
		}
	})
}

// TestBurst: a hundred Services that come within some seconds are few writes.
func TestBurst(t *testing.T) {
	for _, pause := range []time.Duration{0, 20 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			f := newFakeOne(t)
			c, stop := start(t, options(f))
			defer stop()
			var ports [][]uint16
			for range 100 {
				ports = append(ports, []uint16{80})
				c.Set(document(ports...))
				time.Sleep(pause)
			}
			eventually(t, "all current", current(c))
			if n := f.written(); n > 3 || n == 0 {
				t.Errorf("one each %s: %d writes, want 3 at most", pause, n)
			}
			if f.ours(3) != f.ours(4) || f.ours(3) != wanted(options(f), document(ports...)) {
				t.Errorf("the instances differ, or have something else:\n%s", f.ours(3))
			}
		})
	}
}

// TestDrift: what an admin changes of ours is put right, a new instance is like the others.
func TestDrift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeOne(t)
		c, stop := start(t, options(f))
		defer stop()
		d := document([]uint16{80}, []uint16{443})
		c.Set(d)
		eventually(t, "all current", current(c))
		o := newOwner("lab", identity, 1)
		right := func() bool { return f.ours(3) == wanted(options(f), d) && f.ours(4) == f.ours(3) }
		for what, change := range map[string]func(m *Machine){
			"an entry edited":     func(m *Machine) { m.Context[o.forward(1)] = "1.2.3.4:1:2.3.4.5:2" },
			"an entry emptied":    func(m *Machine) { m.Context[o.forward(0)] = "" },
			"an address removed":  func(m *Machine) { delete(m.Context, o.vip(0, 0)) },
			"an entry added":      func(m *Machine) { m.Context[o.forward(77)] = "203.0.113.9:1:10.20.0.9:2" },
			"the ledger removed":  func(m *Machine) { delete(m.Context, o.ledger()) },
			"NAT turned to empty": func(m *Machine) { m.Context[natVariable] = "" },
			"all replaced":        func(m *Machine) { m.Context = others() },
		} {
			f.edit(4, change)
			eventually(t, what+" is put right", right)
		}
		f.mu.Lock()
		f.machines[9] = &Machine{ID: 9, State: "RUNNING", Ready: true, Context: others()}
		f.mu.Unlock()
		eventually(t, "the new instance has it too", func() bool { return f.ours(9) == f.ours(3) })
	})
}

// TestBusyInstance: nothing is written while one is in HOTPLUG, then all are; one
// that stays so does not hold the other up for ever.
func TestBusyInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeOne(t)
		f.edit(3, func(*Machine) { f.set(3, "HOTPLUG") })
		c, stop := start(t, options(f))
		defer stop()
		c.Set(document([]uint16{80}))
		time.Sleep(20 * time.Second)
		if n := f.written(); n != 0 {
			t.Errorf("%d writes beside an instance that will be ready soon", n)
		}
		f.edit(3, func(*Machine) { f.set(3, "RUNNING") })
		eventually(t, "all current", current(c))
		f.edit(3, func(*Machine) { f.set(3, "HOTPLUG") })
		if err := c.Wait(t.Context(), c.Set(document([]uint16{80, 81}))); err != nil {
			t.Errorf("all wait for the one that stays busy: %v", err)
		}
		if !strings.Contains(f.ours(4), ":81:") {
			t.Error("the other one is not written to")
		}
		if i := c.State().Instances[0]; i.Reachable || i.Err == nil || i.Err.Error() != "virtual machine 3 stays in state HOTPLUG: see onevm show 3" {
			t.Errorf("%+v", i)
		}
		f.edit(3, func(*Machine) { f.set(3, "RUNNING") })
		eventually(t, "all current", current(c))
	})
}

// TestStates: an instance that takes no context is unreachable, one that is off is not, and
// nothing is done as long as none runs.
func TestStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeOne(t)
		f.edit(3, func(*Machine) { f.set(3, "UNKNOWN") })
		f.edit(4, func(*Machine) { f.set(4, "POWEROFF") })
		c, stop := start(t, options(f))
		defer stop()
		generation := c.Set(document([]uint16{80}))
		const off = "no instance runs: VM 4 is in POWEROFF; start it"
		if err := c.Wait(t.Context(), generation); !errors.Is(err, router.ErrUnreachable) || !strings.Contains(err.Error(), off) {
			t.Errorf("%v, want %q", err, off)
		}
		eventually(t, "the one that is off has its context for when it starts", func() bool { return c.State().Instances[1].Current })
		s := c.State()
		if len(s.Instances) != 2 || s.Instances[0].Reachable || !strings.Contains(s.Instances[0].Err.Error(), "UNKNOWN") || !s.Instances[1].Current {
			t.Errorf("%+v", s.Instances)
		}
		if p := s.Instances[1].Problems; len(p) != 1 || p[0] != off {
			t.Errorf("problems %q", p)
		}
		if !s.Instances[0].WasMaster || s.Instances[1].WasMaster {
			t.Error("the one that keeps its old context may answer, and the other one may not")
		}
		f.edit(4, func(*Machine) { f.set(4, "RUNNING") })
		eventually(t, "it is seen to run", func() bool { return c.Wait(t.Context(), generation) == nil })
		f.edit(4, func(*Machine) { f.set(4, "SUSPENDED") })
		if err := c.Wait(t.Context(), c.Set(document([]uint16{81}))); !errors.Is(err, router.ErrUnreachable) {
			t.Errorf("no instance takes a context: %v", err)
		}
		f.edit(3, func(*Machine) { f.set(3, "DONE") })
		f.edit(4, func(*Machine) { f.set(4, "RUNNING") })
		eventually(t, "the one that is left is current", func() bool { return len(c.State().Instances) == 1 && current(c)() })

		f.mu.Lock()
		f.down = errors.New("oned is away")
		f.mu.Unlock()
		eventually(t, "unreachable", func() bool { return !c.State().Instances[0].Reachable })
		if err := c.Wait(t.Context(), c.Set(document([]uint16{82}))); !errors.Is(err, router.ErrUnreachable) || !strings.Contains(err.Error(), "oned is away") {
			t.Errorf("OpenNebula is away: %v", err)
		}
		f.mu.Lock()
		f.down = nil
		f.mu.Unlock()
		eventually(t, "it goes on", current(c))
	})
}

// TestVainWrites: what is refused, or does not last, is written again, but ever more rarely,
// and told.
func TestVainWrites(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(f *fakeOne, on bool)
		text string
	}{
		"refused": {func(f *fakeOne, on bool) {
			if f.denied = nil; on {
				f.denied = errors.New("not authorized")
			}
		}, "not authorized"},
		"forgotten": {func(f *fakeOne, on bool) { f.forgets = on }, "does not have what was written to its context"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeOne(t)
				c.set(f, true)
				client, stop := start(t, options(f))
				defer stop()
				generation := client.Set(document([]uint16{80}))
				if err := client.Wait(t.Context(), generation); !errors.Is(err, router.ErrUnreachable) || !strings.Contains(err.Error(), c.text) {
					t.Errorf("%v, want %q", err, c.text)
				}
				time.Sleep(time.Hour)
				f.mu.Lock()
				if most := 2 * 130; f.asked > most { // two instances, each 30 s
					t.Errorf("%d calls in an hour, want %d at most", f.asked, most)
				}
				c.set(f, false)
				f.mu.Unlock()
				time.Sleep(time.Minute)
				if err := client.Wait(t.Context(), generation); err != nil {
					t.Error(err)
				}
				if s := client.State(); s.Instances[0].Err != nil || !current(client)() {
					t.Errorf("%+v", s.Instances)
				}
			})
		})
	}
}

// TestTwoClusters share an appliance, and the switch that the first has turned on
// stays until the last has gone.
func TestTwoClusters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeOne(t)
		f.shared = true
		a, stopA := start(t, options(f))
		defer stopA()
		o := options(f)
		o.Cluster, o.Identity = "other", "another-identity"
		b, stopB := start(t, o)
		defer stopB()
		ofB := document(nil, nil, []uint16{80, 443})
		a.Set(document([]uint16{80}))
		b.Set(ofB)
		eventually(t, "both current", func() bool { return current(a)() && current(b)() })
		lines := func(cluster string) (n int) {
			o := newOwner("", identity, 0)
			if cluster == "other" {
				o = newOwner("", "another-identity", 0)
			}
			for name, value := range f.context(3) {
				if value != "" && (o.owns(name) || name == o.ledger()) {
					n++
				}
			}
			return n
		}
		if lines("lab") != 3 || lines("other") != 4 {
			t.Errorf("lab has %d variables, other %d:\n%s", lines("lab"), lines("other"), f.ours(3))
		}
		a.Set(router.Document{})
		eventually(t, "the first has gone", func() bool { return current(a)() && lines("lab") == 0 })
		if v := f.context(3)[natVariable]; lines("other") != 4 || v != yes {
			t.Errorf("%s=%q, and left of the other:\n%s", natVariable, v, f.ours(3))
		}
		b.Set(router.Document{})
		eventually(t, "nothing is left", func() bool { return f.ours(3)+f.ours(4) == "" })
	})
}

// TestRefusesToWrite where another cluster or a newer leader has signed, or the
// operator has turned NAT off.
func TestRefusesToWrite(t *testing.T) {
	o := newOwner("lab", identity, 5)
	for name, c := range map[string]struct {
		variable, value string
		reason          router.Reason
	}{
		"cluster": {o.ledger(), "cluster=lab identity=other token=1", router.ReasonIdentity},
		"token":   {o.ledger(), "cluster=lab identity=" + identity + " token=6", router.ReasonStaleToken},
		"nat":     {natVariable, "NO", router.ReasonInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeOne(t)
				for _, id := range []int{3, 4} {
					f.edit(id, func(m *Machine) { m.Context[c.variable] = c.value })
				}
				opts := options(f)
				opts.Token = 5
				client, stop := start(t, opts)
				defer stop()
				err := client.Wait(t.Context(), client.Set(document([]uint16{80})))
				var rejected *router.RejectedError
				if !errors.As(err, &rejected) || rejected.Reason != c.reason {
					t.Errorf("%v, want %s", err, c.reason)
				}
				if n := f.written(); n != 0 || f.context(3)[c.variable] != c.value {
					t.Errorf("%d writes", n)
				}
			})
		})
	}
}

// TestNewLeaderWritesNothing where all is as it has to be.
func TestNewLeaderWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeOne(t)
		c, stop := start(t, options(f))
		d := document([]uint16{80})
		c.Set(d)
		eventually(t, "all current", current(c))
		stop()
		o := options(f)
		o.Token = 2
		c, stop = start(t, o)
		defer stop()
		c.Set(d)
		eventually(t, "all current", current(c))
		if n := f.written(); n != 1 {
			t.Errorf("%d writes", n)
		}
	})
}

// TestRefusal: what an instance cannot have is left out on all, and told.
func TestRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeOne(t)
		f.edit(4, func(m *Machine) { m.Context["ONEAPP_VROUTER_ETH1_VIP7"] = "203.0.113.101" })
		f.edit(3, func(m *Machine) { m.Context["ONEAPP_VNF_NAT4_PORT_FWD9"] = "8080:10.20.0.9" })
		c, stop := start(t, options(f))
		defer stop()
		d := document([]uint16{80}, []uint16{80}, []uint16{8080})
		elsewhere := document([]uint16{80}).Frontends[0]
		elsewhere.Address, elsewhere.Service = netip.MustParseAddr("198.51.100.7"), "default/elsewhere"
		d.Frontends = append(d.Frontends, elsewhere)
		if err := c.Wait(t.Context(), c.Set(d)); err != nil {
			t.Fatal(err)
		}
		for service, c2 := range map[string]struct{ address, text string }{
			"default/s0":        {"203.0.113.100", ""},
			"default/s1":        {"203.0.113.101", "ONEAPP_VROUTER_ETH1_VIP7"},
			"default/s2":        {"203.0.113.102", "ONEAPP_VNF_NAT4_PORT_FWD9"},
			"default/elsewhere": {"198.51.100.7", "no interface"},
		} {
			err := c.Refusal(netip.MustParseAddr(c2.address), service)
			if (err == nil) != (c2.text == "") || err != nil && !strings.Contains(err.Error(), c2.text) {
				t.Errorf("%s: %v, want %q", service, err, c2.text)
			}
		}
		if p := c.State().Instances[0].Problems; len(p) != 3 || !strings.HasPrefix(p[1], "Service default/s1 is closed on 203.0.113.101: ") {
			t.Errorf("problems %q", p)
		}
		f.edit(3, func(*Machine) { f.set(3, "UNKNOWN") })
		f.edit(4, func(m *Machine) { m.Context["ONEAPP_VNF_NAT4_PORT_FWD8"] = "80:10.20.0.9" })
		eventually(t, "it is told at one that is reachable", func() bool {
			s := c.State()
			return !s.Instances[0].Reachable && len(s.Instances[0].Problems) == 0 && len(s.Instances[1].Problems) == 4
		})
		f.edit(4, func(m *Machine) { delete(m.Context, "ONEAPP_VNF_NAT4_PORT_FWD8") })
		f.edit(3, func(*Machine) { f.set(3, "RUNNING") })
		eventually(t, "both are well again", current(c))
		for _, id := range []int{3, 4} {
			if text := f.ours(id); strings.Count(text, "_PORT_FWD1") != 1 || strings.Count(text, "_VIP1") != 1 {
				t.Errorf("VM %d:\n%s", id, text)
			}
		}
	})
}

// TestWithdraw takes all away, also from an instance that comes back later.
func TestWithdraw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeOne(t)
		c, stop := start(t, options(f))
		c.Set(document([]uint16{80}))
		eventually(t, "all current", current(c))
		stop()
		if !Signed(identity, f.context(3)) || Signed("other", f.context(3)) {
			t.Error("Signed")
		}
		f.edit(4, func(*Machine) { f.set(4, "UNKNOWN") })
		done := make(chan error, 1)
		go func() { done <- Withdraw(context.Background(), options(f)) }()
		time.Sleep(time.Minute)
		if f.ours(3) != "" || len(done) > 0 {
			t.Errorf("one instance is away: %d results, left:\n%s", len(done), f.ours(3))
		}
		f.edit(4, func(*Machine) { f.set(4, "RUNNING") })
		if err := <-done; err != nil || f.ours(4) != "" || Signed(identity, f.context(4)) {
			t.Errorf("%v, left:\n%s", err, f.ours(4))
		}
	})
}
