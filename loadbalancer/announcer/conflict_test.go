package announcer_test

import (
	"testing"
	"time"

	"github.com/onelb/onelb/loadbalancer/announcer"
	"github.com/onelb/onelb/loadbalancer/announcer/wire"
)

// A node whose agent cannot be reached is no stranger, also while it counts as dead.
func TestAgentsAreNoStrangers(t *testing.T) {
	bubble(t, func(w *world) {
		w.members = live("me", "other")
		w.members[1].MACs = string(stranger)
	}, func(w *world) {
		w.SetCluster(wanted())
		after(20 * time.Second)
		expect(t, w, true, "it is the first to have it, or the other one does not take it")
		w.set(func() { w.members = live("me") })
		for range 50 {
			w.Sighted(wire.Sighting{Address: vip4, MAC: stranger, Index: eth.Index})
			after(100 * time.Millisecond)
		}
		if _, _, conflicts := w.counts(); conflicts != 0 {
			t.Errorf("reported %d times", conflicts)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.state.MACs != string(eth.MAC) {
			t.Errorf("told the others of %x", w.state.MACs)
		}
	})
}

func TestConflictEnds(t *testing.T) {
	bubble(t, nil, func(w *world) {
		conflict := wanted(func(a *announcer.Address) { a.Conflict = true })
		w.SetCluster(conflict)
		after(30 * time.Second)
		w.Sighted(wire.Sighting{Address: vip4, MAC: stranger, Index: eth.Index})
		after(50 * time.Second)
		if _, n := w.reports.counts(); n > 0 {
			t.Errorf("%d times taken back while it may go on", n)
		}
		after(20 * time.Second)
		if _, n := w.reports.counts(); n == 0 {
			t.Error("never taken back")
		}
		w.SetCluster(wanted())
		after(time.Second)
		_, before := w.reports.counts()
		after(time.Minute)
		if _, now := w.reports.counts(); now > before {
			t.Error("taken back again although the API server knows")
		}
	})
}
