package agent

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
)

// TestHoldFails: an address that cannot be held takes no routed ones with it, and the next
// change looks at all addresses again.
func TestHoldFails(t *testing.T) {
	b := newBench(t)
	b.start()
	c := b.client("lab", 1)
	d, translated := routedDoc("203.0.113.101", "10.20.0.11"), doc("lab", "203.0.113.100", 2)
	d.Frontends = append(translated.Frontends, d.Frontends...)
	b.must(b.wait(c, c.Set(d)))
	b.stop()
	b.kernel.held, b.kernel.routed, b.kernel.failHold = nil, nil, 1<<30
	b.start()
	b.eventually("the other one is routed", func() bool {
		b.kernel.mu.Lock()
		defer b.kernel.mu.Unlock()
		return slices.Equal(b.kernel.routed, []Routed{{Address: netip.MustParseAddr("203.0.113.101"), Through: "eth1"}})
	})
	b.kernel.mu.Lock()
	b.kernel.failHold = 0
	b.kernel.mu.Unlock()
	c = b.client("lab", 2)
	b.must(b.wait(c, c.Set(d))) // it is known now what the agent has
	b.kernel.mu.Lock()
	b.kernel.failHold, b.kernel.held = 2, nil // in the change and on the way back
	b.kernel.mu.Unlock()
	more := d
	more.Frontends = slices.Concat(d.Frontends, doc("lab", "203.0.113.102", 1).Frontends)
	if err := b.wait(c, c.Set(more)); err == nil {
		t.Error("a change whose address cannot be held is no error")
	}
	d.Frontends[0].BackendPort++
	b.must(b.wait(c, c.Set(d)))
	b.kernel.mu.Lock()
	defer b.kernel.mu.Unlock()
	if want := []netip.Addr{netip.MustParseAddr("203.0.113.100")}; !slices.Equal(b.kernel.held, want) {
		t.Errorf("held are %v after the next change, want %v", b.kernel.held, want)
	}
}

// TestTurnWithoutRules: an instance that is not the master any more lets go of its addresses
// also when the kernel takes no rules.
func TestTurnWithoutRules(t *testing.T) {
	b := newBench(t)
	role := &standing{master: true}
	b.role = role
	b.start()
	c := b.client("lab", 1)
	b.must(b.wait(c, c.Set(doc("lab", "203.0.113.100", 1))))
	b.kernel.mu.Lock()
	b.kernel.fail, b.kernel.failOn = errors.New("no such feature"), true
	b.kernel.mu.Unlock()
	role.become(false)
	b.eventually("nothing is held", func() bool {
		b.kernel.mu.Lock()
		defer b.kernel.mu.Unlock()
		return len(b.kernel.held) == 0
	})
}
