package announcer_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/onelb/onelb/loadbalancer/announcer"
	"github.com/onelb/onelb/loadbalancer/announcer/member"
	"github.com/onelb/onelb/loadbalancer/announcer/wire"
)

func drained(node string, change ...func(*announcer.Address)) *announcer.Cluster {
	c := wanted(change...)
	for i := range c.Nodes {
		c.Nodes[i].Draining = c.Nodes[i].Name == node
	}
	return c
}

// theirs makes another node the holder of record.
func theirs(a *announcer.Address) { a.Holder = &announcer.Holding{Node: "other", Epoch: 5} }

func TestRelievesALiveHolder(t *testing.T) {
	bubble(t, func(w *world) { w.members, w.answerer = live("me", "other"), stranger }, func(w *world) {
		w.SetCluster(wanted(theirs))
		after(10 * time.Second)
		expect(t, w, false, "while its holder is well")
		w.SetCluster(drained("other", theirs))
		after(announcer.HandOverDelay - time.Millisecond)
		expect(t, w, false, "before the holder knows")
		after(2 * time.Millisecond)
		expect(t, w, true, "although the holder answers")
		asked, announced, _ := w.counts()
		if c := w.lastClaim(); c.Node != "me" || c.Epoch != 6 || asked != 1 || announced != 1 {
			t.Errorf("claimed %+v, asked %d times, announced %d times", c, asked, announced)
		}
	})
	bubble(t, func(w *world) { w.members = live("me", "other"); w.members[1].Unwell = true }, func(w *world) {
		w.SetCluster(wanted(theirs))
		after(announcer.HandOverDelay + time.Millisecond)
		expect(t, w, true, "the holder says that it is unwell")
	})
}

// A holder of many addresses is relieved. It answers for those that were taken first
// while the others are still being taken.
func TestRelievesALiveHolderOfMany(t *testing.T) {
	bubble(t, func(w *world) { w.members = survivors("me", "other") }, func(w *world) {
		c := wanted(theirs)
		for len(c.Addresses) < 100 {
			next := c.Addresses[len(c.Addresses)-1]
			next.Address = next.Address.Next()
			c.Addresses = append(c.Addresses, next)
		}
		answered := 0
		w.late = func() bool {
			for a := range w.kernel {
				w.Sighted(wire.Sighting{Address: a, MAC: macOf("other"), Index: eth.Index})
				answered++
			}
			return false
		}
		w.SetCluster(c)
		after(10 * time.Second)
		drain := *c
		drain.Nodes = []announcer.Node{{Name: "me"}, {Name: "other", Draining: true}}
		w.SetCluster(&drain)
		after(announcer.HandOverDelay + announcer.Step)
		for _, a := range c.Addresses {
			if !w.has(a.Address) {
				t.Errorf("%s is not held", a.Address)
			}
		}
		if answered == 0 {
			t.Error("nothing was heard while they were taken")
		}
	})
}

// Of two candidates that could relieve a holder, the second one finds on the wire that
// the first one has: it may not have read its claim yet.
func TestIsForestalled(t *testing.T) {
	all := []announcer.Peer{{Name: "me", Live: true, Settled: true}, {Name: "third", Live: true, Settled: true}}
	order := takers(all, announcer.Subject{Address: vip4, Wanted: true, Claim: member.Claim{Address: vip4, Node: "other", Epoch: 5}})
	for name, mac := range map[string]net.HardwareAddr{
		"the first one": macOf(order[0]), "the holder": macOf("other"), "a stranger": stranger, "nobody": nil,
	} {
		bubble(t, func(w *world) { w.self, w.members = order[1], survivors("me", "other", "third") }, func(w *world) {
			w.SetCluster(three(theirs))
			after(10 * time.Second)
			heard := 0
			w.set(func() {
				w.late = func() bool { // what came while it waited for a processor
					if mac != nil && len(w.asked) > heard {
						w.Sighted(wire.Sighting{Address: vip4, MAC: mac, Index: eth.Index})
					}
					heard = len(w.asked)
					return false
				}
			})
			c := three(theirs)
			c.Nodes[1].Draining = true
			w.SetCluster(c)
			after(announcer.HandOverDelay + announcer.Step - time.Millisecond)
			expect(t, w, false, "before its turn")
			after(2 * time.Millisecond)
			expect(t, w, name != "the first one", name+" has it")
			after(10 * time.Second)
			expect(t, w, name != "the first one", name+" has it still")
			asked, _, _ := w.counts()
			if most := 20; asked == 0 || asked > most {
				t.Errorf("%s has it: asked %d times", name, asked)
			}
			w.set(func() { w.late = nil })
			after(announcer.Step + announcer.HandOverDelay)
			expect(t, w, true, "nobody answers any more, nor has claimed it")
		})
	}
}

func TestIsRelieved(t *testing.T) {
	prepare := func(w *world) { w.members = live("me", "other") }
	bubble(t, prepare, func(w *world) {
		w.SetCluster(wanted())
		after(time.Second)
		w.SetCluster(drained("me"))
		after(time.Minute)
		expect(t, w, true, "as long as nobody else has it")
		w.Sighted(wire.Sighting{Address: vip4, MAC: stranger, Index: eth.Index})
		after(0)
		expect(t, w, false, "when the successor announces itself")
		if c := w.lastClaim(); c.Node != "me" || !c.Released {
			t.Errorf("claimed %+v", c)
		}
	})
	bubble(t, prepare, func(w *world) {
		w.SetCluster(wanted())
		after(time.Second)
		w.SetUnwell(true)
		after(time.Second)
		expect(t, w, true, "as long as nobody else has it")
		w.mu.Lock()
		if !w.state.Unwell {
			t.Error("the others are not told")
		}
		w.mu.Unlock()
		w.set(func() { w.news = []member.Claim{{Address: vip4, Node: "other", Epoch: 2}} })
		expect(t, w, false, "when the successor's claim is heard")
	})
	bubble(t, prepare, func(w *world) {
		w.SetCluster(wanted())
		after(time.Second)
		c := wanted()
		c.Nodes[0].Excluded = true
		w.SetCluster(c)
		after(4 * time.Second)
		expect(t, w, true, "while somebody may take it")
		after(2 * time.Second)
		expect(t, w, false, "an excluded node does not wait for ever")
	})
	bubble(t, nil, func(w *world) {
		w.SetCluster(wanted())
		after(time.Second)
		w.SetCluster(drained("me"))
		after(time.Minute)
		w.Sighted(wire.Sighting{Address: vip4, MAC: stranger, Index: eth.Index})
		after(time.Second)
		expect(t, w, true, "there is nobody who could take it")
	})
}

// watcher asks the wire for an address all the time and notes the answers. It counts
// in questions, not by the clock: while it waits for a processor it asks nothing.
type watcher struct {
	mu    sync.Mutex
	asked int
	seen  []answer
	stop  func()
}

type answer struct {
	question int // that was put last
	mac      string
}

const (
	watchEvery = 5 * time.Millisecond
	// second is as many questions as fit into one.
	second = int(time.Second / watchEvery)
)

func (h *host) watch(a netip.Addr) *watcher {
	t := h.lan.t
	t.Helper()
	x := &watcher{}
	w, err := wire.New(wire.Options{Enter: h.Do, Seen: func(s wire.Sighting) {
		if s.Address == a {
			x.mu.Lock()
			x.seen = append(x.seen, answer{x.asked, s.MAC.String()})
			x.mu.Unlock()
		}
	}})
	must(t, err)
	on := interfaceOf(t, h)
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { must(t, w.Run(ctx)) })
	all.Go(func() {
		ticker := time.NewTicker(watchEvery)
		defer ticker.Stop()
		for ctx.Err() == nil {
			w.CatchUp()
			x.mu.Lock()
			x.asked++
			x.mu.Unlock()
			if err := w.Ask(on, a, nil); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
			<-ticker.C
		}
	})
	var once sync.Once
	x.stop = func() { once.Do(func() { cancel(); all.Wait() }) }
	t.Cleanup(x.stop)
	return x
}

// gap is the largest number of questions in a row without an answer; both, from the
// first answer of a host to the last one of that before it. Zero: never two.
func (x *watcher) gap() (gap, both int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	first, last := map[string]int{}, map[string]int{}
	for i, s := range x.seen {
		if i > 0 {
			gap = max(gap, s.question-x.seen[i-1].question-1)
		}
		if _, known := first[s.mac]; !known {
			first[s.mac] = i
		}
		last[s.mac] = i
	}
	for m := range first {
		for n := range last {
			if first[m] > first[n] && last[n] > first[m] {
				both = max(both, 1+x.seen[last[n]].question-x.seen[first[m]].question)
			}
		}
	}
	return gap, both
}

func (x *watcher) macs() map[string]bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	out := map[string]bool{}
	for _, s := range x.seen {
		out[s.mac] = true
	}
	return out
}

// more waits for some more answers.
func (x *watcher) more(t *testing.T) {
	t.Helper()
	count := func() int {
		x.mu.Lock()
		defer x.mu.Unlock()
		return len(x.seen)
	}
	enough := count() + 50
	eventually(t, "it answers", func() bool { return count() >= enough })
}

// A drained node hands its addresses over: somebody answers all the time.
func TestHandOver(t *testing.T) {
	l := newLAN(t)
	var hosts []*host
	var agents []*agent
	for range 3 {
		h := l.host()
		hosts = append(hosts, h)
		agents = append(agents, h.start(nil, lasting))
	}
	client := l.host()
	c := cluster(hosts, vip4, vip6)
	set(agents, c)
	held := func(x netip.Addr, not string) func() bool {
		return func() bool { h := holders(hosts, x); return len(h) == 1 && h[0].name != not }
	}
	for _, x := range []netip.Addr{vip4, vip6} {
		eventually(t, "it is held", held(x, ""))
	}
	for _, a := range agents {
		eventually(t, "all agents see each other", func() bool { return len(a.group.Members()) == len(agents) })
	}
	time.Sleep(1500 * time.Millisecond) // the claims spread, the last announcements are sent
	for _, x := range []netip.Addr{vip4, vip6} {
		t.Run(fmt.Sprint(x), func(t *testing.T) {
			watching := client.watch(x)
			watching.more(t)
			old := holders(hosts, x)[0].name
			c = cluster(hosts, vip4, vip6)
			for i := range c.Nodes {
				c.Nodes[i].Draining = c.Nodes[i].Name == old
			}
			set(agents, c)
			eventually(t, "another node has it alone", held(x, old))
			watching.more(t)
			watching.stop()
			handedOver(t, watching)
			if now := holders(hosts, x); len(now) != 1 || now[0].name == old {
				t.Errorf("%d holders", len(now))
			}
		})
	}
}

// handedOver checks that one node followed another, and that one of them always answered.
func handedOver(t *testing.T, w *watcher) {
	t.Helper()
	gap, both := w.gap()
	t.Logf("most questions without an answer %d, with answers of two nodes %d", gap, both)
	if n := len(w.macs()); gap > second || both > second || n != 2 {
		t.Errorf("this is no hand-over; %d answered", n)
	}
}

// The agent ends and is never started again, while its node lives on: the kernel
// answers for the addresses' lifetime, then another node, and never both.
func TestAgentEndsForGood(t *testing.T) {
	const lifetime = 5 * time.Second
	l := newLAN(t)
	var hosts []*host
	var agents []*agent
	for range 3 {
		h := l.host()
		hosts = append(hosts, h)
		agents = append(agents, h.start(nil, lifetime))
	}
	client := l.host()
	set(agents, cluster(hosts, vip4, vip6))
	eventually(t, "both addresses are held", func() bool {
		return len(holders(hosts, vip4)) == 1 && len(holders(hosts, vip6)) == 1
	})
	for _, a := range agents {
		eventually(t, "all agents see each other", func() bool { return len(a.group.Members()) == len(agents) })
	}
	time.Sleep(1500 * time.Millisecond) // the claims spread, the last announcements are sent
	watching := map[netip.Addr]*watcher{vip4: client.watch(vip4), vip6: client.watch(vip6)}
	began := time.Now()
	ended := map[string]bool{}
	for x, w := range watching {
		w.more(t)
		for _, a := range agents {
			if a.host == holders(hosts, x)[0] {
				ended[a.name] = true
				a.stop()
			}
		}
	}
	for x := range watching {
		eventually(t, "a live agent has it", func() bool {
			now := holders(hosts, x)
			if len(now) > 1 {
				t.Fatalf("%d nodes have %s after %v", len(now), x, time.Since(began))
			}
			return len(now) == 1 && !ended[now[0].name]
		})
	}
	if took := time.Since(began); took < announcer.RestartLifetime {
		t.Errorf("taken after %v: no time for a restart", took)
	}
	for x, w := range watching {
		w.more(t)
		w.stop()
		gap, both := w.gap()
		t.Logf("%s: most questions without an answer %d, with answers of two nodes %d", x, gap, both)
		if n := len(w.macs()); gap > 2*second || both > 0 || n != 2 {
			t.Errorf("the next holder is late, or early; %d answered", n)
		}
	}
}

// When a partition heals, the claim of the other side is heard before its agent is
// seen: the holder with the older claim does not claim anew, and lets go as soon as
// it sees the other one on the wire.
func TestYieldsWhenAPartitionHeals(t *testing.T) {
	bubble(t, nil, func(w *world) {
		w.SetCluster(wanted())
		after(10 * time.Second)
		w.set(func() { w.news = []member.Claim{{Address: vip4, Node: "other", Epoch: 2}} })
		after(time.Second)
		expect(t, w, true, "before they have met")
		if c := w.lastClaim(); c.Epoch != 1 {
			t.Errorf("claimed anew: %+v", c)
		}
		w.Sighted(wire.Sighting{Address: vip4, MAC: stranger, Index: eth.Index})
		after(0)
		expect(t, w, false, "when the other one is on the wire")
	})
	bubble(t, nil, func(w *world) {
		w.SetCluster(wanted())
		after(10 * time.Second)
		w.set(func() { w.news = []member.Claim{{Address: vip4, Node: "other", Epoch: 2}} })
		after(10 * time.Second)
		expect(t, w, true, "the other one never came")
		if c := w.lastClaim(); c.Node != "me" || c.Epoch != 3 {
			t.Errorf("claimed %+v", c)
		}
	})
}
