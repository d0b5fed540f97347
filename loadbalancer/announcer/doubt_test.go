package announcer_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/onelb/onelb/loadbalancer/announcer"
	"github.com/onelb/onelb/loadbalancer/announcer/member"
	"github.com/onelb/onelb/loadbalancer/announcer/wire"
)

// doubting is live with doubts about one of them.
func doubting(name string, names ...string) []member.Member {
	out := live(names...)
	for i := range out {
		out[i].Doubted = out[i].Name == name
	}
	return out
}

// What a doubted node holds is asked for, and taken if nobody answers; if its kernel
// answers, nothing happens.
func TestDoubtedHolder(t *testing.T) {
	for _, answers := range []bool{false, true} {
		bubble(t, func(w *world) { w.members = live("me", "other", "third") }, func(w *world) {
			w.news = []member.Claim{{Address: vip4, Node: "other", Epoch: 5}}
			c := three()
			c.Nodes[2].Excluded = true // this node is the only candidate
			w.SetCluster(c)
			after(20 * time.Second)
			expect(t, w, false, "while its holder lives")
			if answers {
				w.set(func() { w.answerer = stranger })
			}
			w.set(func() { w.members = doubting("other", "me", "other", "third") })
			after(100 * time.Millisecond)
			expect(t, w, !answers, "in doubt")
			asked, _, _ := w.counts()
			if asked == 0 {
				t.Error("did not ask")
			}
			w.set(func() { w.members = live("me", "other", "third") })
			after(time.Second)
			if now, _, _ := w.counts(); answers && now > asked+1 {
				t.Error("goes on asking")
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.state.Damped || !w.state.Settled {
				t.Errorf("this node says of itself %+v", w.state)
			}
		})
	}
}

// A doubted node keeps its place among the candidates, though not for what it has.
func TestDoubtedCandidate(t *testing.T) {
	all := peers(4)
	for i := range 50 {
		s := subject(i)
		s.Claim = member.Claim{Address: s.Address, Node: "node-03", Epoch: 3}
		before := slices.Clone(all)
		before[3].Live = false
		order := takers(before, s)
		for _, name := range order {
			doubts := slices.Clone(before)
			doubts[slices.IndexFunc(doubts, func(p announcer.Peer) bool { return p.Name == name })].Doubted = true
			if got := takers(doubts, s); !slices.Equal(got, order) {
				t.Errorf("%s: with %s in doubt %v take it, else %v", s.Address, name, got, order)
			}
		}
		holder := slices.Clone(all)
		holder[3].Doubted = true
		if got := takers(holder, s); !slices.Equal(got, order) {
			t.Errorf("%s: from a doubted holder %v take it, from a dead one %v", s.Address, got, order)
		}
	}
}

// A node that hears no other agent is not cut off if most nodes answer on the wire.
func TestReachesMostNodes(t *testing.T) {
	third := netip.MustParseAddr("10.77.0.13")
	for _, answers := range []bool{true, false} {
		bubble(t, func(w *world) {
			w.members = live("me", "other", "third")
			w.news = []member.Claim{{Address: vip4, Node: "other", Epoch: 5}}
			w.on = func(on int, a netip.Addr) {
				if a == third && answers {
					w.Sighted(wire.Sighting{Address: third, MAC: stranger, Index: on})
				}
			}
		}, func(w *world) {
			c := three()
			c.Nodes[2].Addresses, c.Nodes[2].Excluded = []netip.Addr{third}, true // this node is the only candidate
			w.SetCluster(c)
			after(20 * time.Second)
			w.set(func() {
				w.members = doubting("other", "me", "other", "third")
				w.members[2].Doubted = true
			})
			after(200 * time.Millisecond)
			expect(t, w, answers, "alone as far as gossip goes")
			after(2 * time.Second)
			expect(t, w, true, "after a long silence")
		})
	}
}

// That this agent reads the answers of live nodes late, since it waits for a processor,
// does not make its link a slow one.
func TestLateReaderIsNoSlowLink(t *testing.T) {
	third := netip.MustParseAddr("10.77.0.13")
	bubble(t, func(w *world) {
		w.members = live("me", "other", "third")
		w.news = []member.Claim{{Address: vip4, Node: "other", Epoch: 5}}
		w.on = func(on int, a netip.Addr) {
			if a == third {
				w.slow = 0
				w.Sighted(wire.Sighting{Address: third, MAC: stranger, Index: on})
			}
		}
	}, func(w *world) {
		c := three()
		c.Nodes[2].Addresses, c.Nodes[2].Excluded = []netip.Addr{third}, true // this node is the only candidate
		w.SetCluster(c)
		after(20 * time.Second)
		w.set(func() { w.members, w.slow = live("me", "third"), 200*time.Millisecond })
		after(800 * time.Millisecond)
		expect(t, w, true, "after a stall of 400 ms")
	})
}
