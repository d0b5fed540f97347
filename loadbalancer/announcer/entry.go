package announcer

import (
	"net"
	"net/netip"
	"time"

	"github.com/onelb/onelb/loadbalancer/announcer/addr"
	"github.com/onelb/onelb/loadbalancer/announcer/member"
)

// entry is what the Engine knows of one address.
type entry struct {
	address netip.Addr

	updated  uint64 // the update that named it last
	spec     Address
	namedAt  time.Time // when the holder in spec was named
	known    bool      // there is, or was, a spec
	keep     time.Time // the spec vanished; it counts until then. Zero: it is there
	patterns addr.Patterns

	claim   member.Claim
	hearsay bool         // claim is what the API server says
	standIn member.Claim // of a node that stands in for claim's
	// doubting: another one may have it, too; the wire is asked at doubtAt.
	doubting bool
	doubtAt  time.Time
	virgin   bool      // it was known and nobody had it yet
	first    time.Time // when somebody was seen to take it then
	heard    time.Time // when the claim, another node\'s, came
	free     time.Time // when nobody was seen to have it; zero: somebody has it
	other    bool      // another live node has it
	// leaving: that one should be relieved.
	leaving bool
	// handOver: this node relieves it or, if it holds the address, is relieved.
	handOver bool
	inquired time.Time // the start before which it has asked whether another one has
	rivalled time.Time // when another candidate that goes first asked so, last
	ceded    int       // how often this node has waited for that one
	leaveBy  time.Time // hand over until then; zero: no limit
	want     bool      // this node should hold it
	start    time.Time // but not take it before
	rank     int       // after so many others
	subject  Subject   // as decided on last
	// planFirst is the node that should take it, if it is new; "": none in particular.
	planFirst string
	retry     time.Time // nor try again before
	failed    string    // why not, as logged last

	hold *hold
	ask  *asking
	rows conflict
}

// hold is an address in this node's kernel.
type hold struct {
	on      addr.Interface
	since   time.Time // wall clock
	epoch   int64
	standIn bool
	told    bool      // people know
	from    string    // the node that had it before
	expires time.Time // the kernel drops it then or up to a second later

	began      time.Time // of the announcements
	announced  int
	announceAt time.Time
}

// announceAfter are the times after a takeover at which it is announced: a
// frame may be lost, and switches may still be learning.
var announceAfter = []time.Duration{0, 50 * time.Millisecond, 200 * time.Millisecond, time.Second}

// Later announcements are for hosts that missed all of these, and for switches
// that forget.
const (
	announceMin = 20 * time.Second
	announceMax = 30 * time.Second
)

// conflict is what was seen of another host that claims a held address.
type conflict struct {
	first, last, reported, defended time.Time
	mac                             string
}

const (
	// A host that still claims the address after this time did not just lose it.
	conflictTime = 2 * time.Second
	// conflictGap without a sighting ends a conflict.
	conflictGap = time.Minute
	// conflictAgain is the pause between two reports of the same conflict.
	conflictAgain = 10 * time.Minute
	// defendInterval bounds the reaction to a conflict.
	defendInterval = time.Second
)

// seen notes a sighting. defend: announce the address now; report: tell people.
func (c *conflict) seen(mac net.HardwareAddr, now time.Time) (defend, report bool) {
	if c.mac != mac.String() || now.Sub(c.last) > conflictGap {
		*c = conflict{first: now, mac: mac.String(), defended: c.defended}
	}
	c.last = now
	if now.Sub(c.defended) >= defendInterval {
		defend, c.defended = true, now
	}
	if now.Sub(c.first) >= conflictTime && (c.reported.IsZero() || now.Sub(c.reported) >= conflictAgain) {
		report, c.reported = true, now
	}
	return defend, report
}

// setSpec takes in what is wanted of the address.
func (n *entry) setSpec(a Address, patterns addr.Patterns) {
	if h, was := a.Holder, n.spec.Holder; h != nil && !h.same(was) {
		n.namedAt = time.Now()
	}
	n.spec, n.patterns, n.known, n.keep = a, patterns, true, time.Time{}
}

// vanish notes that the address is in no list. One that was not released first
// is kept for a while: somebody may be restoring a backup.
func (n *entry) vanish(fresh bool, now time.Time, lifetime time.Duration) {
	switch {
	case n.known && n.keep.IsZero():
		n.keep = now.Add(lifetime)
	case !n.known && fresh && n.hold != nil: // left by an earlier run, and nobody wants it
		n.known, n.keep = true, now
	}
}

func (n *entry) wanted(now time.Time) bool {
	return n.known && len(n.spec.Services) > 0 && (n.keep.IsZero() || now.Before(n.keep))
}

// planned is the plan for this address, as decided on last.
func (n *entry) planned() plan {
	return plan{first: map[netip.Addr]string{n.address: n.planFirst}}
}

// last is the node that had the address last, as far as is known.
func (n *entry) last() string {
	if n.standIn.Epoch > n.claim.Epoch {
		return n.standIn.Node
	}
	return n.claim.Node
}

func (n *entry) holding(node string) Holding {
	return Holding{Node: node, Interface: n.hold.on.Name, Since: n.hold.since, Epoch: n.hold.epoch, StandIn: n.hold.standIn}
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
