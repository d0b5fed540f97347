package announcer

import (
	"net"
	"net/netip"
	"time"

	"github.com/onelb/onelb/loadbalancer/announcer/addr"
)

// Silence means something only if answers can be heard. So while a candidate asks
// for an address, it asks for the addresses of nodes that are alive, too: if they
// answer late or not at all, it is this node's own link that is bad.
const (
	// controlCount is how many nodes are asked in turn.
	controlCount = 3
	// controlFresh is how long an answer shows that the link works; less means
	// little when one of ten frames is lost.
	controlFresh = 150 * time.Millisecond
	// controlIdle ends a conversation: the next one measures anew.
	controlIdle = time.Second
	// controlTimes is how much longer than a control answer took an address must
	// be silent: its node's link may be as bad as this one's.
	controlTimes = 3
	// longSilence counts in any case. Without others to compare with it is what a
	// node waits that sees fewer than half of the nodes: it may be cut off, or hear
	// the others late.
	longSilence = 2 * time.Second
	// answeredSilence is that after answers: more than they vary on a bad link.
	answeredSilence = 250 * time.Millisecond
)

// control is the conversation with live nodes on one interface.
type control struct {
	targets map[netip.Addr]bool
	macs    map[netip.Addr]net.HardwareAddr
	turn    int
	began   time.Time
	asked   time.Time
	heard   time.Time                // zero: not since began
	each    map[netip.Addr]time.Time // when each of targets was heard last
	took    time.Duration
}

// askControl puts a control question, if one is due.
func (e *Engine) askControl(on addr.Interface, now time.Time) {
	c := e.controls[on.Index]
	if c == nil {
		c = &control{macs: map[netip.Addr]net.HardwareAddr{}, each: map[netip.Addr]time.Time{}}
		e.controls[on.Index] = c
	}
	if now.Sub(c.asked) < askInterval {
		return
	}
	targets := e.controlTargets(on)
	if now.Sub(c.asked) > controlIdle {
		c.began, c.heard, c.took = now, time.Time{}, 0
		clear(c.each)
	}
	c.asked, c.targets = now, map[netip.Addr]bool{}
	for _, t := range targets {
		c.targets[t] = true
		e.interest.Store(t, true)
	}
	if len(targets) == 0 {
		return
	}
	c.turn++
	t := targets[c.turn%len(targets)]
	if err := e.o.Wire.Ask(on, t, c.macs[t]); err != nil {
		e.logger.V(2).Info("Could not ask for the address of another node", "address", t, "err", err)
	}
}

// controlTargets are addresses of live nodes in the interface's networks. Doubted ones
// are among them if this node doubts so many that it may be cut off itself: see reached.
func (e *Engine) controlTargets(on addr.Interface) []netip.Addr {
	var out []netip.Addr
	for _, p := range e.peers {
		if !p.Live || p.Name == e.o.Node || p.Doubted && e.damper.side != sideLess {
			continue
		}
		node, _ := e.cluster.node(p.Name)
		for _, a := range node.Addresses {
			if on.Contains(a) {
				out = append(out, a)
				break
			}
		}
		if len(out) == controlCount {
			break
		}
	}
	return out
}

// controlled reports whether the address is asked for in a conversation of now.
func (e *Engine) controlled(a netip.Addr, now time.Time) bool {
	for _, c := range e.controls {
		if c.targets[a] && now.Sub(c.asked) <= controlIdle {
			return true
		}
	}
	return false
}

// answer takes in an answer of a live node. It came after read, when this agent looked
// last: what it had to wait for a processor is not the link's fault.
func (c *control) answer(a netip.Addr, mac net.HardwareAddr, read, now time.Time) {
	if !c.targets[a] {
		return
	}
	if c.heard.IsZero() {
		c.took = max(0, read.Sub(c.began))
	}
	c.heard, c.each[a], c.macs[a] = now, now, mac
}

// trusted reports whether silence means that nobody has the address, as far as
// this interface's link goes.
func (e *Engine) trusted(a *asking, now time.Time) bool {
	c, quiet := e.controls[a.on.Index], now.Sub(a.silence)
	switch {
	case quiet >= longSilence:
		return true
	case e.damper.side == sideLess && !e.reached(c, now):
		return a.mac != nil && quiet >= answeredSilence // the link let answers through, until just now
	case c == nil || len(c.targets) == 0:
		return true
	}
	return !c.heard.IsZero() && now.Sub(c.heard) < controlFresh+c.took && quiet >= controlTimes*c.took
}

// reached reports whether most nodes answer on the wire, this one included. Then it is
// not cut off, however few agents it hears: they, or this one, are short of processor
// time.
func (e *Engine) reached(c *control, now time.Time) bool {
	if c == nil {
		return false
	}
	answers := 1
	for a := range c.targets {
		if heard, ok := c.each[a]; ok && now.Sub(heard) < controlFresh+c.took {
			answers++
		}
	}
	return 2*answers > e.damper.all
}
