package announcer_test

import (
	"testing"
	"time"

	"github.com/onelb/onelb/loadbalancer/announcer"
	"github.com/onelb/onelb/loadbalancer/announcer/member"
)

// The first candidate learns from a link that loses frames that silence means less
// there; the others ask seldom.
func TestQuestions(t *testing.T) {
	theirs := func(a *announcer.Address) { a.Holder = &announcer.Holding{Node: "third", Epoch: 5} }
	for _, loss := range []int{1, 5} { // of so many questions one is answered
		bubble(t, func(w *world) { w.answerer, w.every = stranger, loss }, func(w *world) {
			if loss > 1 {
				w.every = 1
			}
			w.SetCluster(wanted(theirs))
			for range 20 { // at first the loss must grow slowly: three lost in a row look like the end
				after(100 * time.Millisecond)
				w.mu.Lock()
				w.every = min(loss, w.every+1)
				w.mu.Unlock()
			}
			expect(t, w, false, "while somebody answers at times")
			w.set(func() { w.answerer = nil })
			after(150 * time.Millisecond)
			expect(t, w, true, "when nobody answers any more")
		})
	}
	all := []announcer.Peer{{Name: "me", Live: true}, {Name: "other", Live: true}}
	order := takers(all, announcer.Subject{Address: vip4, Wanted: true})
	for rank, limit := range map[int][2]int{0: {90, 110}, 1: {3, 6}} {
		bubble(t, func(w *world) {
			w.answerer, w.self, w.members = stranger, order[rank], []member.Member{{Name: "me"}, {Name: "other"}}
		}, func(w *world) {
			w.SetCluster(wanted(theirs))
			after(time.Second)
			before, _, _ := w.counts()
			after(time.Second)
			now, _, _ := w.counts()
			if n := now - before; n < limit[0] || n > limit[1] {
				t.Errorf("candidate %d asks %d times a second", rank, n)
			}
		})
	}
}
