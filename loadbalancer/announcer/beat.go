package announcer

import "time"

// beat is what lies between the moments at which a node does what is regular. To
// wake up costs more than most of what there is to do then, and each announcement
// wakes up the other nodes, too: without beats a node with a thousand addresses wakes
// all of them fifty times a second.
const beat = time.Second

// onBeat is the last beat until t, so that what is to be done by then is done with
// other things. If that is not after now, it is t.
func (e *Engine) onBeat(t, now time.Time) time.Time {
	if on := e.began.Add(t.Sub(e.began).Truncate(beat)); on.After(now) {
		return on
	}
	return t
}
