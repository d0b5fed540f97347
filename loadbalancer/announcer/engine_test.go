package announcer_test

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/onelb/onelb/loadbalancer/announcer"
	"github.com/onelb/onelb/loadbalancer/announcer/addr"
	"github.com/onelb/onelb/loadbalancer/announcer/member"
	"github.com/onelb/onelb/loadbalancer/announcer/wire"
)

// wanted is a cluster of me and other with one address.
func wanted(change ...func(*announcer.Address)) *announcer.Cluster {
	c := &announcer.Cluster{
		Nodes: []announcer.Node{{Name: "me"}, {Name: "other"}},
		Addresses: []announcer.Address{{
			Address: vip4, Services: []announcer.Service{{Namespace: "d", Name: "w", UID: "1"}},
		}},
	}
	for _, f := range change {
		f(&c.Addresses[0])
	}
	return c
}

func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func expect(t *testing.T, w *world, held bool, when string) {
	t.Helper()
	if got := w.has(vip4); got != held {
		t.Errorf("%s: held %v", when, got)
	}
}

func TestTakesAfterSilence(t *testing.T) {
	bubble(t, nil, func(w *world) {
		w.SetCluster(wanted())
		after(50 * time.Millisecond)
		expect(t, w, false, "while it asks")
		after(20 * time.Millisecond)
		expect(t, w, true, "after four questions")
		if asked, _, _ := w.counts(); asked != 4 {
			t.Errorf("asked %d times", asked)
		}
		after(100 * time.Second)
		all := w.announcements()
		var got []time.Duration
		for _, a := range all[:4] {
			got = append(got, a.Sub(all[0]))
		}
		if fmt.Sprint(got) != "[0s 50ms 200ms 1s]" {
			t.Errorf("announced at %v", got)
		}
		for i := 4; i < len(all); i++ {
			if gap := all[i].Sub(all[i-1]); gap <= 9*time.Second || gap > 30*time.Second { // to the beat before
				t.Errorf("later announcement after %v", gap)
			}
		}
		if n := len(all); n < 7 || n > 14 {
			t.Errorf("%d announcements in 101 s", n)
		}
		expect(t, w, true, "a long time later")
		if c := w.lastClaim(); c.Node != "me" || c.Epoch != 1 || c.Released {
			t.Errorf("claimed %+v", c)
		}
	})
}

func TestDoesNotTakeWhatAnswers(t *testing.T) {
	bubble(t, func(w *world) { w.answerer = stranger }, func(w *world) {
		w.SetCluster(wanted(func(a *announcer.Address) { a.Holder = &announcer.Holding{Node: "other", Epoch: 5} }))
		after(4 * time.Second)
		expect(t, w, false, "while somebody answers")
		if _, _, conflicts := w.counts(); conflicts != 0 {
			t.Error("reported although a dead agent's address may live so long")
		}
		after(8 * time.Second)
		asked, _, _ := w.counts()
		after(10 * time.Second)
		expect(t, w, false, "while somebody answers")
		now, _, conflicts := w.counts()
		if n := now - asked; n > 15 {
			t.Errorf("asked %d times in 10 s", n)
		}
		if conflicts != 1 {
			t.Errorf("reported %d times", conflicts)
		}
		w.set(func() { w.answerer = nil })
		after(1200 * time.Millisecond)
		expect(t, w, true, "after the answers have ended")
		if c := w.lastClaim(); c.Epoch != 6 {
			t.Errorf("claimed %+v, want an epoch above the old one", c)
		}
	})
}

func TestDeadAgentsAddressIsTakenWhenItLapses(t *testing.T) {
	bubble(t, func(w *world) { w.answerer = stranger }, func(w *world) {
		w.SetCluster(wanted(func(a *announcer.Address) { a.Holder = &announcer.Holding{Node: "other", Epoch: 5} }))
		after(2500 * time.Millisecond)
		w.mu.Lock()
		w.answerer = nil
		w.mu.Unlock()
		after(50 * time.Millisecond)
		expect(t, w, true, "a twentieth of a second after it lapsed")
	})
}

// Of several candidates that hear the same silence, the first one takes it.
func TestCandidatesHaveTheirTurn(t *testing.T) {
	first, second := "me", "other"
	all := []announcer.Peer{{Name: "me", Live: true}, {Name: "other", Live: true}}
	if takers(all, announcer.Subject{Address: vip4, Wanted: true})[0] != "me" {
		first, second = second, first
	}
	for name, wait := range map[string]time.Duration{first: 0, second: announcer.Step} {
		bubble(t, func(w *world) {
			// An agent that meets others when it starts is not settled; here neither is.
			w.answerer, w.self, w.members = stranger, name, []member.Member{{Name: "me"}, {Name: "other"}}
		}, func(w *world) {
			w.SetCluster(wanted(func(a *announcer.Address) { a.Holder = &announcer.Holding{Node: "third", Epoch: 5} }))
			after(2500 * time.Millisecond)
			w.mu.Lock()
			w.answerer = nil
			w.mu.Unlock()
			if wait > 0 {
				after(wait)
				expect(t, w, false, "while it is the first one's turn")
			}
			after(400 * time.Millisecond)
			expect(t, w, true, name+"'s turn")
		})
	}
}

func TestYieldsToHigherClaim(t *testing.T) {
	bubble(t, func(w *world) { w.members = live("me", "other") }, func(w *world) {
		w.SetCluster(wanted())
		after(time.Second)
		expect(t, w, true, "at first")
		w.set(func() { w.news = []member.Claim{{Address: vip4, Node: "other", Epoch: 2}} })
		expect(t, w, false, "at once")
		after(10 * time.Second)
		expect(t, w, false, "as long as the other lives")
		w.set(func() { w.members = live("me") })
		after(time.Second)
		expect(t, w, true, "after the other's death")
		if c := w.lastClaim(); c.Epoch != 3 {
			t.Errorf("claimed %+v", c)
		}
	})
}

func TestStoodStill(t *testing.T) {
	bubble(t, nil, func(w *world) {
		w.SetCluster(wanted())
		after(time.Second)
		w.set(func() { w.stall, w.renewFail = 10*time.Second, errors.New("too late") })
		after(2 * time.Second) // in the stall
		w.mu.Lock()
		w.renewFail, w.answerer = nil, stranger // meanwhile another one has taken it
		w.mu.Unlock()
		after(9 * time.Second)
		w.mu.Lock()
		_, there := w.kernel[vip4]
		w.mu.Unlock()
		if there {
			t.Error("added an address again that it had let lapse, although another host has it")
		}
		w.set(func() { w.answerer = nil })
		after(5 * time.Second)
		expect(t, w, true, "when nobody has it")
	})
}

func TestRenewFailures(t *testing.T) {
	bubble(t, nil, func(w *world) {
		w.SetCluster(wanted())
		after(time.Second)
		w.set(func() {
			w.renewFail = errors.Join(&addr.EntryError{Entry: addr.Entry{Address: vip4, Index: 2}, Err: errors.New("not now")})
		})
		after(2 * time.Second)
		expect(t, w, true, "after a failure or two")
		w.set(func() { w.renewFail = nil })
		after(10 * time.Second)
		expect(t, w, true, "when it works again")
		if c := w.lastClaim(); c.Epoch != 1 {
			t.Errorf("taken again: %+v", c)
		}
	})
}

func TestRemembered(t *testing.T) {
	other := netip.MustParseAddr("10.77.0.101")
	prepare := func(w *world) {
		w.kernel[vip4] = time.Now().Add(time.Second)
		w.held[vip4] = announcer.Holding{Node: "me", Interface: "eth0", Epoch: 7}
	}
	c := wanted()
	c.Addresses = append(c.Addresses, announcer.Address{Address: other, Services: c.Addresses[0].Services})
	bubble(t, prepare, func(w *world) {
		w.SetRemembered(c, false)
		after(10 * time.Second)
		expect(t, w, true, "what it had")
		if w.has(other) {
			t.Error("took an address that it only remembers")
		}
		w.SetRemembered(c, true)
		after(time.Second)
		if !w.has(other) {
			t.Error("did not take the address although the API server is away")
		}
		w.SetCluster(wanted(func(a *announcer.Address) { a.Services = nil }))
		after(100 * time.Millisecond)
		expect(t, w, false, "released meanwhile")
		w.SetRemembered(c, true)
		after(time.Second)
		expect(t, w, false, "an old state after a new one")
	})
	bubble(t, prepare, func(w *world) {
		after(2 * time.Second)
		expect(t, w, false, "without knowing anything, it must lapse")
	})
	bubble(t, prepare, func(w *world) {
		w.SetCluster(&announcer.Cluster{Nodes: c.Nodes})
		after(10 * time.Millisecond)
		expect(t, w, false, "nobody knows it")
	})
	bubble(t, prepare, func(w *world) {
		w.SetCluster(c)
		after(100 * time.Millisecond)
		if h, _ := w.reports.holder(vip4); h == nil || h.Epoch != 7 {
			t.Errorf("reported %+v", h)
		}
		w.stop()
		if left := time.Until(w.kernel[vip4]); left < 9*time.Second {
			t.Errorf("left for %v only", left)
		}
		if w.held[vip4].Epoch != 7 {
			t.Errorf("remembered %+v", w.held)
		}
	})
}

func TestCarrier(t *testing.T) {
	bubble(t, func(w *world) { w.members = live("me", "other") }, func(w *world) {
		w.SetCluster(wanted())
		after(time.Second)
		w.set(func() { w.up = false })
		after(200 * time.Millisecond)
		w.set(func() { w.up = true })
		after(2 * time.Second)
		expect(t, w, true, "after a short break")
		w.set(func() { w.up = false })
		after(400 * time.Millisecond)
		expect(t, w, false, "after a long one")
		if c := w.lastClaim(); !c.Released {
			t.Errorf("did not tell the others: %+v", c)
		}
		w.set(func() { w.up = true })
		after(900 * time.Millisecond)
		expect(t, w, false, "just after the carrier came back")
		after(time.Second)
		expect(t, w, true, "if nobody else took it")
	})
	bubble(t, nil, func(w *world) { // alone
		w.SetCluster(wanted())
		after(time.Second)
		w.set(func() { w.up = false })
		after(10 * time.Second)
		expect(t, w, true, "there is nobody to take it")
	})
}

func TestWaitsForTheGroup(t *testing.T) {
	bubble(t, func(w *world) { w.ready, w.members = false, nil }, func(w *world) {
		w.SetCluster(wanted())
		after(10 * time.Second)
		expect(t, w, false, "as long as the others may have it")
		w.set(func() { w.ready, w.members = true, live("me") })
		after(100 * time.Millisecond)
		expect(t, w, true, "when there is nobody")
	})
}

func TestReportsUntilItIsKnown(t *testing.T) {
	bubble(t, nil, func(w *world) {
		w.SetCluster(wanted())
		after(time.Second)
		h, _ := w.reports.holder(vip4)
		if h == nil || h.Epoch != 1 || h.Interface != "eth0" {
			t.Fatalf("reported %+v", h)
		}
		w.reports.forget()
		known := *h
		w.SetCluster(wanted(func(a *announcer.Address) { a.Holder = &known }))
		after(time.Second)
		if _, told := w.reports.holder(vip4); told {
			t.Error("reported what is known")
		}
		w.SetCluster(wanted()) // somebody wiped it out
		after(time.Second)
		if _, told := w.reports.holder(vip4); !told {
			t.Error("not reported again")
		}
		w.SetCluster(wanted(func(a *announcer.Address) { a.Holder, a.Services = &known, nil }))
		after(10 * time.Millisecond)
		if h, told := w.reports.holder(vip4); !told || h != nil {
			t.Errorf("release reported as %+v, %v", h, told)
		}
	})
}

func TestConflictIsReportedAndNotFought(t *testing.T) {
	bubble(t, nil, func(w *world) {
		w.SetCluster(wanted())
		after(5 * time.Second)
		_, before, _ := w.counts()
		for range 100 { // ten seconds of a stranger's announcements
			w.Sighted(wire.Sighting{Address: vip4, MAC: stranger, Index: eth.Index})
			after(100 * time.Millisecond)
		}
		expect(t, w, true, "in a conflict")
		_, now, conflicts := w.counts()
		if n := now - before; n < 8 || n > 13 {
			t.Errorf("announced %d times in 10 s", n)
		}
		if conflicts != 1 {
			t.Errorf("reported %d times", conflicts)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	if _, err := announcer.New(announcer.Options{Node: "me", Lifetime: time.Second}); !errors.Is(err, announcer.ErrOptions) {
		t.Errorf("got %v", err)
	}
}
