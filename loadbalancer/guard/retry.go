package guard

import (
	"errors"
	"time"
)

// errWait says that it is too early to try again.
var errWait = errors.New("waiting to try again")

const (
	longestWait = 5 * time.Minute
	// tooManyFailures in a row make a node unfit as a candidate.
	tooManyFailures = 3
)

// retry is the pace at which something that fails is tried again: first after
// the first pause, then after twice as long, and so on up to longestWait.
type retry struct {
	first    time.Duration
	failures int
	until    time.Time
}

func (r *retry) fail() {
	pause := r.first
	for range min(r.failures, 20) {
		pause = min(2*pause, longestWait)
	}
	r.failures++
	r.until = time.Now().Add(pause)
}

func (r *retry) ok() { r.failures, r.until = 0, time.Time{} }

func (r *retry) blocked() bool { return time.Now().Before(r.until) }
