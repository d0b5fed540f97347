package witness

import (
	"slices"
	"testing"
	"time"

	"github.com/onelb/onelb/api/v1alpha1"
)

// said is a second of answers of each machine that is named, one after the other.
func said(seconds ...string) *Wire {
	w := &Wire{o: Options{Every: 100 * time.Millisecond}}
	at := time.Unix(1_000_000, 0)
	for _, macs := range seconds {
		for range 10 {
			w.tries = append(w.tries, try{at, macs != ""})
			for i, m := range macs {
				w.answers = append(w.answers, answer{at.Add(time.Duration(i) * time.Millisecond), string(m)})
			}
			if len(macs) > 1 {
				w.dual = append(w.dual, at)
			}
			at = at.Add(100 * time.Millisecond)
		}
	}
	return w
}

func TestWire(t *testing.T) {
	for _, c := range []struct {
		what           string
		seconds        []string
		moves, changes int
		outage         time.Duration
		dual           int
	}{
		{"nothing happens", []string{"a", "a", "a"}, 0, 0, 0, 0},
		{"a clean move", []string{"a", "", "b", "b"}, 1, 1, time.Second, 0},
		{"there and back", []string{"a", "b", "a"}, 2, 2, 0, 0},
		{"both for a second", []string{"a", "ab", "b"}, 1, 19, 0, 10},
		{"nobody ever", []string{"", ""}, 0, 0, 2 * time.Second, 0},
		{"two outages", []string{"a", "", "a", "", "", "a"}, 0, 0, 2 * time.Second, 0},
	} {
		w := said(c.seconds...)
		if got := w.Moves(); got != c.moves {
			t.Errorf("%s: %d moves, want %d", c.what, got, c.moves)
		}
		if got := w.Changes(); got != c.changes {
			t.Errorf("%s: %d changes, want %d", c.what, got, c.changes)
		}
		if got := w.Outage(); got != c.outage {
			t.Errorf("%s: outage %v, want %v", c.what, got, c.outage)
		}
		if got := w.Dual(); got != c.dual {
			t.Errorf("%s: %d questions with two answers, want %d", c.what, got, c.dual)
		}
		if w.DualUntil().IsZero() != (c.dual == 0) {
			t.Errorf("%s: two until %v", c.what, w.DualUntil())
		}
	}
}

func TestOverlapAndOthers(t *testing.T) {
	w := said("a", "ab", "b", "c")
	if got := w.Overlap("b", "a"); got != 899*time.Millisecond {
		t.Errorf("a and b overlap by %v", got)
	}
	if got := w.Overlap("c", "a"); got >= 0 {
		t.Errorf("a and c overlap by %v", got)
	}
	if got := w.Others("a", "b"); !slices.Equal(got, []string{"c"}) {
		t.Errorf("others are %v", got)
	}
}

func TestRecord(t *testing.T) {
	r := &Record{}
	for _, h := range []v1alpha1.Holder{{Name: "n1", Epoch: 1}, {Name: "n1", Epoch: 1}, {Name: "n2", Epoch: 2}, {Name: "n2", Epoch: 3}, {Name: "n1", Epoch: 4}} {
		r.note(h)
	}
	if got := r.Moves(); got != 2 {
		t.Errorf("%d moves, want 2", got)
	}
	if got := len(r.Holders()); got != 4 {
		t.Errorf("%d holders, want 4", got)
	}
}
