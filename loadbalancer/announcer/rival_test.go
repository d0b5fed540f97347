package announcer_test

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/onelb/onelb/loadbalancer/announcer"
	"github.com/onelb/onelb/loadbalancer/announcer/member"
	"github.com/onelb/onelb/loadbalancer/announcer/wire"
)

// mac is what the others see of the world's node: each has another one.
func (w *world) mac() net.HardwareAddr { return macOf(w.self) }

func macOf(node string) net.HardwareAddr { return net.HardwareAddr{2, 7, 7, 7, 7, node[0]} }

// question is one that another host puts: its kernel answers, its agent listens.
func (w *world) question(from net.HardwareAddr, a netip.Addr, to net.HardwareAddr) {
	if to != nil && !slices.Equal(to, w.mac()) {
		return
	}
	if to == nil {
		w.Asked(wire.Sighting{Address: a, MAC: from, Index: eth.Index})
	}
	if w.has(a) {
		w.peer.Sighted(wire.Sighting{Address: a, MAC: w.mac(), Index: eth.Index})
	}
}

// survivors are the members of those names, with hardware addresses.
func survivors(names ...string) []member.Member {
	out := live(names...)
	for i, m := range out {
		out[i].MACs = string(macOf(m.Name))
	}
	return out
}

// Two survivors lose each other's gossip for a moment, just when the address of an
// agent that is gone ends. Both believe that it is their turn; one of them takes it.
func TestSurvivorsThatSuspectEachOther(t *testing.T) {
	for name, views := range map[string]struct {
		first, second bool // who loses the other one
		gone          bool // at once, without an answer of the old holder
	}{
		"both":                 {first: true, second: true},
		"the second one":       {second: true},
		"the first one":        {first: true},
		"both, power off":      {first: true, second: true, gone: true},
		"the second, poweroff": {second: true, gone: true},
	} {
		for offset := range 20 {
			synctest.Test(t, func(t *testing.T) {
				all := []announcer.Peer{{Name: "a", Live: true, Settled: true}, {Name: "b", Live: true, Settled: true}}
				order := takers(all, announcer.Subject{Address: vip4, Wanted: true, Claim: member.Claim{Address: vip4, Node: "gone", Epoch: 5}})
				first, second := newWorld(t, order[0]), newWorld(t, order[1])
				first.peer, second.peer = second, first
				both := []*world{first, second}
				cluster := wanted(func(a *announcer.Address) { a.Holder = &announcer.Holding{Node: "gone", Epoch: 5} })
				cluster.Nodes = []announcer.Node{{Name: "a"}, {Name: "b"}, {Name: "gone"}}
				for _, w := range both {
					w.members = survivors("a", "b", "gone")
					w.start()
					w.SetCluster(cluster)
				}
				after(20 * time.Second)
				dead := func(w *world, suspects bool) {
					names := []string{"a", "b"}
					if suspects {
						names = []string{w.self}
					}
					w.set(func() { w.members = survivors(names...) })
				}
				if !views.gone {
					for _, w := range both {
						w.set(func() { w.answerer = macOf("gone") })
						dead(w, false)
					}
					after(3 * time.Second)
				}
				dead(first, views.first)
				dead(second, views.second)
				after(time.Duration(offset) * time.Millisecond)
				for _, w := range both {
					w.mu.Lock()
					w.answerer = nil
					w.mu.Unlock()
				}
				began, taken := time.Now(), time.Duration(0)
				for range 4000 {
					after(time.Millisecond)
					if first.has(vip4) && second.has(vip4) {
						t.Fatalf("%s lost, %d ms: both have it after %v", name, offset, time.Since(began))
					}
					if taken == 0 && (first.has(vip4) || second.has(vip4)) {
						taken = time.Since(began)
					}
				}
				if !first.has(vip4) && !second.has(vip4) {
					t.Errorf("%s lost, %d ms: nobody took it", name, offset)
				}
				// Alone of three, a node waits 2 s unless the holder answered just now.
				if limit := 2300 * time.Millisecond; taken > limit || !views.gone && taken > 900*time.Millisecond {
					t.Errorf("%s lost, %d ms: taken after %v", name, offset, taken)
				}
				for _, w := range both {
					w.stop()
				}
			})
		}
	}
}

// Two candidates for the address of a drained node each see the other one as damped, so
// each is the first one for itself. One of them waits.
func TestRelieversThatSeeEachOtherLast(t *testing.T) {
	for offset := -20; offset <= 20; offset++ {
		synctest.Test(t, func(t *testing.T) {
			a, b := newWorld(t, "a"), newWorld(t, "b")
			a.peer, b.peer = b, a
			both := []*world{a, b}
			cluster := func(draining bool) *announcer.Cluster {
				c := wanted(func(a *announcer.Address) { a.Holder = &announcer.Holding{Node: "old", Epoch: 5} })
				c.Nodes = []announcer.Node{{Name: "a"}, {Name: "b"}, {Name: "old", Draining: draining}}
				return c
			}
			for i, w := range both {
				w.members, w.answerer = survivors("a", "b", "old"), macOf("old")
				for j, m := range w.members {
					w.members[j].Damped = m.Name == both[1-i].self
				}
				// Long ago the other one stood in for the holder.
				w.news = []member.Claim{{Address: vip4, Node: both[1-i].self, Epoch: 3, StandIn: true}}
				w.start()
				w.SetCluster(cluster(false))
			}
			after(10 * time.Second)
			if offset < 0 {
				both[0], both[1] = b, a
			}
			both[0].SetCluster(cluster(true))
			after(time.Duration(max(offset, -offset)) * time.Millisecond)
			both[1].SetCluster(cluster(true))
			for ms := range 5000 {
				after(time.Millisecond)
				if a.has(vip4) && b.has(vip4) {
					t.Fatalf("%d ms apart: both have it after %d ms", offset, ms)
				}
				if limit := 700; ms == limit && !a.has(vip4) && !b.has(vip4) {
					t.Errorf("%d ms apart: nobody has it after %d ms", offset, ms)
				}
			}
			for _, w := range both {
				w.stop()
			}
		})
	}
}

// A node with many addresses is slow to ask for all of them. That it is late is no
// reason to begin again and again.
func TestManyQuestionsTakeTime(t *testing.T) {
	bubble(t, func(w *world) { w.slow = 300 * time.Microsecond }, func(w *world) {
		c := wanted()
		for i := range 1000 {
			a := c.Addresses[0]
			a.Address = netip.AddrFrom4([4]byte{10, 77, byte(1 + i/250), byte(1 + i%250)})
			a.Interfaces = []string{"eth0"}
			c.Addresses = append(c.Addresses, a)
		}
		w.SetCluster(c)
		after(5 * time.Second)
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.kernel) != len(c.Addresses) {
			t.Errorf("took %d of %d", len(w.kernel), len(c.Addresses))
		}
	})
}

// What came while this agent waited for a processor is heard before silence counts;
// if something was lost, it asks again, though not for ever.
func TestCatchesUp(t *testing.T) {
	bubble(t, nil, func(w *world) {
		theirs := false
		w.mu.Lock()
		w.late = func() bool {
			if theirs {
				w.Sighted(wire.Sighting{Address: vip4, MAC: stranger, Index: eth.Index})
			}
			return false
		}
		theirs = true
		w.mu.Unlock()
		w.SetCluster(wanted(func(a *announcer.Address) { a.Holder = &announcer.Holding{Node: "other", Epoch: 5} }))
		after(time.Second)
		expect(t, w, false, "with answers that nobody has read")
		w.mu.Lock()
		theirs = false
		w.mu.Unlock()
		after(time.Second)
		expect(t, w, true, "after they have ended")
	})
	bubble(t, func(w *world) { w.late = func() bool { return true } }, func(w *world) {
		w.SetCluster(wanted())
		after(75 * time.Millisecond)
		expect(t, w, false, "when answers may have been lost")
		after(time.Second)
		expect(t, w, true, "in a flood without end")
	})
}

// Of many addresses that are taken at once, those are left out that another host
// announces while the kernel is given the others.
func TestOvertaken(t *testing.T) {
	bubble(t, nil, func(w *world) {
		c := wanted()
		for i := range 200 {
			a := c.Addresses[0]
			a.Address = netip.AddrFrom4([4]byte{10, 77, 0, byte(1 + i)})
			if a.Address != vip4 {
				c.Addresses = append(c.Addresses, a)
			}
		}
		theirs := map[netip.Addr]bool{}
		w.mu.Lock()
		w.late = func() bool { // with the lock
			if len(w.kernel) == 0 || len(theirs) > 0 {
				return false
			}
			for _, a := range c.Addresses {
				if _, mine := w.kernel[a.Address]; !mine {
					theirs[a.Address] = true
					w.Sighted(wire.Sighting{Address: a.Address, MAC: stranger, Index: eth.Index})
				}
			}
			return false
		}
		w.mu.Unlock()
		w.SetCluster(c)
		after(70 * time.Millisecond)
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(theirs) == 0 || len(w.kernel)+len(theirs) != len(c.Addresses) {
			t.Errorf("took %d of %d, though another one announced %d", len(w.kernel), len(c.Addresses), len(theirs))
		}
		for a := range theirs {
			if _, taken := w.kernel[a]; taken {
				t.Errorf("took %s, too", a)
			}
		}
	})
}
