package announcer

import (
	"slices"
	"testing"
	"time"
)

// clique is the view of one node on the others.
type clique struct {
	t *testing.T
	damper
	nodes   []string // the others
	doubted []string // of them
	now     time.Time
}

func (c *clique) see(others ...string) (returned []string) {
	returned = c.observe(c.nodes, others, c.doubted, c.now)
	slices.Sort(returned)
	return returned
}

func (c *clique) wait(d time.Duration) { c.now = c.now.Add(d) }

func (c *clique) expect(what string, got, want bool) {
	c.t.Helper()
	if got != want {
		c.t.Errorf("%s: %v", what, got)
	}
}

func newClique(t *testing.T, nodes ...string) *clique {
	return &clique{t: t, nodes: nodes, now: time.Unix(1000, 0)}
}

func TestNewNodeIsUnsettled(t *testing.T) {
	c := newClique(t, "b", "c")
	c.see("b", "c")
	c.expect("settled at once", c.settled(c.now), false)
	if next := c.next(c.now); !next.Equal(c.now.Add(meetTime)) {
		t.Errorf("next judgement at %v", next)
	}
	c.wait(settleTime)
	c.expect("settled after a while", c.settled(c.now), true)
	c = newClique(t, "b")
	c.see()
	c.see("b")
	c.expect("alone from the start: there is nobody better", c.settled(c.now), true)
}

// Of three nodes the one that is cut off again and again knows that it is the one,
// and so do the others.
func TestFlappingNode(t *testing.T) {
	cut, other := newClique(t, "b", "c"), newClique(t, "a", "c")
	cut.see("b", "c")
	other.see("a", "c")
	for i := range 50 {
		for _, c := range []*clique{cut, other} {
			c.wait(3 * time.Second)
		}
		cut.see("b")
		cut.see()
		other.see("c")
		cut.expect("the cut one stands in", cut.standsIn(cut.now), true)
		other.expect("the others stand in", other.standsIn(other.now), false)
		for _, c := range []*clique{cut, other} {
			c.wait(3 * time.Second)
		}
		if got := cut.see("b"); !slices.Equal(got, []string{"b"}) {
			t.Fatalf("returned: %v", got)
		}
		cut.see("b", "c")
		other.see("a", "c")
		cut.expect("it knows that it flaps", cut.self.isDamped(cut.now), i > 0)
		other.expect("the other knows", other.dampedOther("a", other.now), i > 0)
		other.expect("the other blames itself", other.self.isDamped(other.now), false)
		cut.expect("the cut one blames b", cut.dampedOther("b", cut.now), false)
		cut.expect("settled at once", cut.settled(cut.now), false)
	}
	until := cut.self.until().Sub(cut.now)
	if until < 3*time.Minute || until > 4*time.Minute {
		t.Errorf("damped for %v", until)
	}
	if next := cut.next(cut.now.Add(settleTime)); next.Before(cut.self.until()) {
		t.Errorf("next judgement at %v", next)
	}
	cut.wait(until + time.Second)
	other.wait(until + time.Second)
	cut.expect("still damped", cut.self.isDamped(cut.now), false)
	other.expect("still damped there", other.dampedOther("a", other.now), false)
}

// A node to which most others seem to flap is the one that does.
func TestBadLink(t *testing.T) {
	c := newClique(t, "b", "c")
	c.see("b", "c")
	for range 5 {
		c.wait(time.Second)
		c.see("c")
		c.see("b", "c")
		c.see("b")
		c.see("b", "c")
	}
	c.expect("blames itself", c.dampedSelf(c.now), true)
	c.expect("blames b", c.dampedOther("b", c.now), false)
}

// One return is forgiven, however often it comes again after a while.
func TestRareReturnsAreForgiven(t *testing.T) {
	c := newClique(t, "a", "c")
	c.see("a", "c")
	for range 10 {
		c.wait(2 * time.Minute)
		c.see("c")
		c.wait(time.Second)
		c.see("a", "c")
		c.expect("damped", c.dampedOther("a", c.now), false)
	}
}

// Of two nodes nobody knows which one was cut off. The first time either may take
// for good what the other has; then only for the time being, or the address would go
// back and forth.
func TestTwoNodes(t *testing.T) {
	c := newClique(t, "b")
	c.see("b")
	c.wait(time.Minute)
	c.see()
	c.expect("stands in at first", c.standsIn(c.now), false)
	c.wait(3 * time.Second)
	c.see("b")
	c.wait(3 * time.Second)
	c.see()
	c.expect("stands in the next time", c.standsIn(c.now), true)
	c.wait(5 * time.Minute)
	c.see("b")
	c.wait(5 * time.Minute)
	c.see()
	c.expect("stands in much later", c.standsIn(c.now), false)
}

func TestSide(t *testing.T) {
	c := newClique(t, "b", "c", "d", "without-agent")
	c.expect("alone before anybody was seen", c.count(c.nodes, c.now) == sideLess, true)
	for others, want := range map[string]side{"bcd": sideMore, "bc": sideMore, "b": sideHalf, "": sideLess} {
		c.see("b", "c", "d")
		c.see(split(others)...)
		c.expect("side with "+others, c.side == want, true)
	}
	c.see()
	c.wait(knownTime + time.Second)
	c.see("b")
	c.expect("the others are long gone", c.side == sideMore, true)
	c.expect("leads at once", c.leads(c.now), false)
	c.wait(meetTime)
	c.expect("leads after a while", c.leads(c.now), true)
}

func split(s string) []string {
	var out []string
	for _, r := range s {
		out = append(out, string(r))
	}
	return out
}

// Doubts are no coming and going, but who doubts most of the others may be cut off.
func TestDoubtsAreNoReturns(t *testing.T) {
	c := newClique(t, "b", "c")
	c.see("b", "c")
	c.wait(time.Minute)
	for range 20 {
		c.doubted = []string{"b", "c"}
		c.see("b", "c")
		c.expect("alone", c.side == sideLess, true)
		c.wait(time.Second)
		c.doubted = nil
		if back := c.see("b", "c"); !slices.Equal(back, []string{"b", "c"}) {
			t.Errorf("told that %v are back", back)
		}
		c.expect("with the others", c.side == sideMore, true)
		c.wait(time.Second)
	}
	c.expect("this node is damped", c.dampedSelf(c.now), false)
	c.expect("another one is damped", c.dampedOther("b", c.now), false)
	c.expect("settled", c.settled(c.now), true)
}
