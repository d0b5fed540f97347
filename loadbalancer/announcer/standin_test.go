package announcer_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/onelb/onelb/loadbalancer/announcer"
	"github.com/onelb/onelb/loadbalancer/announcer/member"
	"github.com/onelb/onelb/loadbalancer/announcer/wire"
)

// three is a cluster of me and two others with one address.
func three(change ...func(*announcer.Address)) *announcer.Cluster {
	c := wanted(change...)
	c.Nodes = append(c.Nodes, announcer.Node{Name: "third"})
	return c
}

func TestStandsInOnTheSmallerSide(t *testing.T) {
	bubble(t, func(w *world) { w.members = live("me", "other", "third") }, func(w *world) {
		w.news = []member.Claim{{Address: vip4, Node: "other", Epoch: 5}}
		w.SetCluster(three())
		after(20 * time.Second)
		expect(t, w, false, "while its holder lives")
		w.set(func() { w.members = live("me") })
		after(time.Second)
		expect(t, w, false, "at once, though it may be this node that is cut off")
		after(3 * time.Second)
		expect(t, w, true, "after a long silence")
		if c := w.lastClaim(); !c.StandIn || c.Epoch != 6 || c.Node != "me" {
			t.Errorf("claimed %+v", c)
		}
		if n, _ := w.reports.counts(); n != 0 {
			t.Errorf("told %d times, at once", n)
		}
		after(20 * time.Second)
		h, told := w.reports.holder(vip4)
		if n, _ := w.reports.counts(); !told || h.Epoch != 6 || n != 1 {
			t.Errorf("after a while: told %+v and %d times", h, n)
		}
		w.set(func() { w.members = live("me", "other") })
		expect(t, w, false, "when the holder is back")
		if c := w.lastClaim(); !c.StandIn || !c.Released {
			t.Errorf("claimed %+v", c)
		}
	})
}

// The stand-in goes on for good if its side becomes the larger one and the holder
// does not come back.
func TestStandInBecomesLasting(t *testing.T) {
	bubble(t, func(w *world) { w.members = live("me", "other", "third") }, func(w *world) {
		w.news = []member.Claim{{Address: vip4, Node: "other", Epoch: 5}}
		w.SetCluster(three())
		after(time.Second)
		w.set(func() { w.members = live("me") })
		after(4 * time.Second)
		expect(t, w, true, "after a long silence")
		w.set(func() { w.members = live("me", "third") })
		after(time.Second)
		if c := w.lastClaim(); !c.StandIn {
			t.Errorf("claimed %+v before the others have told what they know", c)
		}
		after(3 * time.Second)
		expect(t, w, true, "with the others")
		w.mu.Lock()
		defer w.mu.Unlock()
		n := len(w.claims)
		if c := w.claims[n-2]; c.StandIn || c.Released || c.Epoch != 7 {
			t.Errorf("claimed %+v", c)
		}
		if c := w.claims[n-1]; !c.StandIn || !c.Released {
			t.Errorf("left %+v", c)
		}
	})
}

// On the larger side the holder says anew that it has the address when it hears of
// a stand-in. It goes on counting from one that the API server knows of.
func TestHolderOutlastsStandIn(t *testing.T) {
	bubble(t, func(w *world) { w.members = live("me", "other", "third") }, func(w *world) {
		w.news = []member.Claim{{Address: vip4, Node: "other", Epoch: 5, Released: true}}
		w.SetCluster(three())
		after(20 * time.Second)
		expect(t, w, true, "the only candidate that takes it")
		_, before, _ := w.counts()
		w.set(func() { w.news = []member.Claim{{Address: vip4, Node: "third", Epoch: 9, StandIn: true}} })
		after(2 * time.Second)
		expect(t, w, true, "in spite of a stand-in")
		if c := w.lastClaim(); c.Node != "me" || c.Epoch != 6 || c.StandIn {
			t.Errorf("claimed %+v", c)
		}
		named := three()
		named.Addresses[0].Holder = &announcer.Holding{Node: "third", Epoch: 9}
		w.SetCluster(named)
		after(10 * time.Second)
		if c := w.lastClaim(); c.Node != "me" || c.Epoch != 10 || c.StandIn {
			t.Errorf("claimed %+v", c)
		}
		if _, now, _ := w.counts(); now < before+4 {
			t.Errorf("announced %d times", now-before)
		}
	})
}

// What the API server says is never passed on to the others, and no reason for a
// holder to claim anew: in a partition both sides write there.
func TestHearsay(t *testing.T) {
	bubble(t, func(w *world) { w.members = live("me", "other") }, func(w *world) {
		w.SetCluster(wanted())
		after(20 * time.Second)
		expect(t, w, true, "nobody else wants it")
		w.set(func() { w.members = live("me") })
		for epoch := range 5 {
			w.SetCluster(wanted(func(a *announcer.Address) {
				a.Holder = &announcer.Holding{Node: "other", Epoch: int64(epoch) + 2}
			}))
			after(5 * time.Second)
			expect(t, w, true, "while apart")
			if c := w.lastClaim(); c.Node != "me" || c.Epoch != 1 {
				t.Errorf("claimed %+v", c)
			}
		}
	})
}

// A node's link that delays everything: that nobody answers means nothing while
// other nodes that live do not answer either.
func TestControl(t *testing.T) {
	third := netip.MustParseAddr("10.77.0.13")
	for name, c := range map[string]struct {
		delay time.Duration // of the other node's answers; 0: none comes
		held  map[time.Duration]bool
	}{
		"good link": {time.Millisecond, map[time.Duration]bool{50 * time.Millisecond: false, 100 * time.Millisecond: true}},
		"slow link": {400 * time.Millisecond, map[time.Duration]bool{time.Second: false, 1500 * time.Millisecond: true}},
		"deaf":      {0, map[time.Duration]bool{1900 * time.Millisecond: false, 2200 * time.Millisecond: true}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(w *world) {
				w.members = live("me", "other", "third")
				w.news = []member.Claim{{Address: vip4, Node: "other", Epoch: 5}}
				w.on = func(on int, a netip.Addr) {
					if a == third && c.delay > 0 {
						go func() { // not time.AfterFunc, whose goroutines the race detector does not bear in a bubble
							time.Sleep(c.delay)
							w.Sighted(wire.Sighting{Address: third, MAC: stranger, Index: on})
						}()
					}
				}
			}, func(w *world) {
				all := three()
				all.Nodes[2].Addresses, all.Nodes[2].Excluded = []netip.Addr{third}, true // this node is the only candidate
				w.SetCluster(all)
				after(20 * time.Second)
				w.set(func() { w.members = live("me", "third") })
				began := time.Now()
				for range 300 {
					after(10 * time.Millisecond)
					passed := time.Since(began)
					if want, checked := c.held[passed]; checked {
						expect(t, w, want, passed.String())
					}
				}
			})
		})
	}
}
