package announcer

import (
	"math"
	"slices"
	"time"
)

// A node that has just come up, or was cut off, is not the first choice for
// addresses that have been held before: one that comes and goes would break
// connections each time.
const settleTime = 10 * time.Second

// A node that comes and goes is the last choice for a while: each return is a
// point, and the points halve with time. With that, two returns within 20 s damp a
// node for a minute and a half, many for three minutes and a half.
const (
	halfLife  = time.Minute
	dampAt    = 1.75
	releaseAt = 0.75
	pointsMax = 8
)

// blameTime is how long, after this node itself was cut off, the returns of others
// count for its own: they are found again one by one.
const blameTime = 5 * time.Second

// knownTime is how long a node that is gone counts for the size of the cluster.
const knownTime = time.Hour

// penalty is the points of a node.
type penalty struct {
	points float64
	at     time.Time
	damped bool
}

func (p *penalty) value(now time.Time) float64 {
	return p.points * math.Exp2(-now.Sub(p.at).Seconds()/halfLife.Seconds())
}

func (p *penalty) add(now time.Time) {
	p.points, p.at = min(p.value(now)+1, pointsMax), now
	p.damped = p.damped || p.points >= dampAt
}

// isDamped forgives what has become small enough.
func (p *penalty) isDamped(now time.Time) bool {
	p.damped = p.damped && !now.After(p.until())
	return p.damped
}

// until is when the points have become small enough.
func (p *penalty) until() time.Time {
	return p.at.Add(time.Duration(math.Log2(p.points/releaseAt) * float64(halfLife)))
}

// side is how many of the nodes are on this one's side.
type side int

const (
	sideLess side = iota // fewer than half
	sideHalf
	sideMore
)

// neighbour is what is known of another node.
type neighbour struct {
	live bool
	// doubted: though it is live it did not answer just now.
	doubted bool
	seen    time.Time // when it was live last
	flap    penalty
}

// damper judges the nodes by when they come and go. Each agent judges itself, as
// the only one who knows whether it was cut off, and tells the others; of the
// others each agent keeps count, for those that lose their memory each time. The
// zero value has seen nothing.
type damper struct {
	begun bool
	known map[string]*neighbour // others seen so far
	self  penalty
	since time.Time // of the last return of this node
	blame time.Time // returns until then are this node's
	side  side
	all   int       // nodes that side is about
	moved time.Time // when side became what it is
}

// observe takes in the nodes there are, which others are live, and of which of them
// that is in doubt, and tells those that had been away. Who is only doubted for a
// moment does not come and go; but nobody knows on whose side it is.
func (d *damper) observe(nodes, others, doubted []string, now time.Time) (returned []string) {
	if d.known == nil {
		d.known = map[string]*neighbour{}
	}
	for name, n := range d.known {
		if n.live = n.live && slices.Contains(others, name); n.live {
			n.seen = now
		}
	}
	for _, name := range others {
		n := d.known[name]
		switch {
		case n == nil:
			d.known[name] = &neighbour{live: true, seen: now}
		case !n.live:
			n.live, n.seen = true, now
			returned = append(returned, name)
		}
	}
	d.judge(returned, now)
	for name, n := range d.known {
		was := n.doubted
		n.doubted = n.live && slices.Contains(doubted, name)
		if was && n.live && !n.doubted {
			returned = append(returned, name) // something may have been taken from it
		}
	}
	if !d.begun && len(others) > 0 { // it is this node that came
		d.since = now
	}
	d.begun = true
	if s := d.count(nodes, now); s != d.side || d.moved.IsZero() {
		d.side, d.moved = s, now
	}
	return returned
}

// judge says who flapped: this node if it was on the smaller side, the others if
// they were; of two halves nobody knows.
func (d *damper) judge(returned []string, now time.Time) {
	if len(returned) == 0 || now.Before(d.blame) {
		return
	}
	if d.side != sideMore {
		d.self.add(now)
		d.since, d.blame = now, now.Add(blameTime)
	}
	if d.side == sideLess {
		return
	}
	for _, name := range returned {
		d.known[name].flap.add(now)
	}
}

// count compares those on this side with all there are: the nodes that have, or
// lately had, an agent; all nodes before any was seen.
func (d *damper) count(nodes []string, now time.Time) side {
	met := len(d.known) > 0
	live, all := 1, 1
	for _, name := range nodes {
		switch n := d.known[name]; {
		case n == nil && met, n != nil && !n.live && now.Sub(n.seen) > knownTime:
		case n != nil && n.live && !n.doubted:
			live, all = live+1, all+1
		default:
			all++
		}
	}
	d.all = all
	switch {
	case 2*live > all:
		return sideMore
	case 2*live == all:
		return sideHalf
	}
	return sideLess
}

// standsIn reports whether what this node takes from another one that it cannot
// reach is for the time being only: it is on the smaller side, was there until just
// now, or is on one of two halves and did that before.
func (d *damper) standsIn(now time.Time) bool {
	if d.side == sideHalf {
		return d.self.value(now) >= releaseAt
	}
	return !d.leads(now)
}

// leads reports whether this node has been on the larger side for so long that it
// has heard of all that happened elsewhere.
func (d *damper) leads(now time.Time) bool {
	return d.side == sideMore && now.Sub(d.moved) >= meetTime
}

// dampedOther reports whether another node has come and gone too often.
func (d *damper) dampedOther(name string, now time.Time) bool {
	n := d.known[name]
	return n != nil && n.flap.isDamped(now) && !d.alien(now)
}

// dampedSelf reports whether this one has.
func (d *damper) dampedSelf(now time.Time) bool { return d.self.isDamped(now) || d.alien(now) }

// alien reports whether most others seem to come and go: then it is this node. All
// must judge alike, or two nodes take themselves for the first choice.
func (d *damper) alien(now time.Time) bool {
	damped := 0
	for _, n := range d.known {
		if n.flap.isDamped(now) {
			damped++
		}
	}
	return 2*damped > len(d.known)
}

// settled reports whether this node has been there for a while.
func (d *damper) settled(now time.Time) bool {
	return d.since.IsZero() || !now.Before(d.since.Add(settleTime))
}

// next is when one of the judgements changes if nothing happens; zero: never.
func (d *damper) next(now time.Time) time.Time {
	var next time.Time
	add := func(t time.Time) {
		if t.After(now) {
			next = earliest(next, t)
		}
	}
	add(d.since.Add(settleTime))
	add(d.moved.Add(meetTime))
	if d.self.damped {
		add(d.self.until().Add(1))
	}
	for _, n := range d.known {
		if n.flap.damped {
			add(n.flap.until().Add(1))
		}
	}
	return next
}
