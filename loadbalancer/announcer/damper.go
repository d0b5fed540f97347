package announcer

import (
	"slices"
	"time"
)

// A node that has just come up, or was cut off, is not the first choice for
// addresses that have been held before: one that comes and goes would break
// connections each time.
const (
	settleTime    = 10 * time.Second // doubles with each further return
	settleTimeMax = 5 * time.Minute
	// forgiveTime is how long a node must stay for one of its returns to be forgotten.
	forgiveTime = 5 * time.Minute
)

// damper judges this node by what it sees of the others; the others are told the
// result, so that all agree. The zero value has seen nothing.
type damper struct {
	begun   bool
	known   map[string]bool // others seen so far; whether they are live
	alone   bool
	returns int
	since   time.Time // of the last return
}

// observe takes in which other nodes are live, and reports whether one is there
// that had been away.
func (d *damper) observe(others []string, now time.Time) (returned bool) {
	if d.known == nil {
		d.known = map[string]bool{}
	}
	for name, live := range d.known {
		if live && !slices.Contains(others, name) {
			d.known[name] = false
		}
	}
	for _, name := range others {
		live, seen := d.known[name]
		returned = returned || seen && !live
		d.known[name] = true
	}
	alone := len(others) == 0
	if !alone && (!d.begun || d.alone && returned) { // it is this node that came
		if d.begun {
			d.returns = max(0, d.returns-int(now.Sub(d.since)/forgiveTime))
		}
		d.returns++
		d.since = now
	}
	d.begun, d.alone = true, alone
	return returned
}

// settledAt is when this node counts as settled.
func (d *damper) settledAt() time.Time {
	if d.returns == 0 {
		return time.Time{}
	}
	wait := settleTime
	for i := 1; i < d.returns && wait < settleTimeMax; i++ {
		wait *= 2
	}
	return d.since.Add(min(wait, settleTimeMax))
}
