package lab

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// probeTimeout is how long one probe may take to count as answered. It is below
// the second after which TCP sends a lost SYN again, so that a connection which
// only the repetition opened counts as the failure it was.
const probeTimeout = 500 * time.Millisecond

// Prober asks again and again, on a fixed schedule and without waiting for the
// answers, and knows when nothing answered.
type Prober struct {
	cancel context.CancelFunc
	all    sync.WaitGroup

	mu    sync.Mutex // guards tries
	tries []try
}

// try is one probe.
type try struct {
	at  time.Time
	err error
}

// Outage is a time without answers: from the start of the first probe that
// failed to the start of the next that was answered.
type Outage struct {
	Begin    time.Time
	Duration time.Duration
	Err      error // of the first failed probe
	Open     bool  // still lasted when the prober stopped
}

// ProbeResult is what a prober has seen.
type ProbeResult struct {
	Sent, Failed int
	Longest      Outage // zero when every probe was answered
	Outages      []Outage
}

// String is for logs.
func (r ProbeResult) String() string {
	if r.Failed == 0 {
		return fmt.Sprintf("%d probes, all answered", r.Sent)
	}
	return fmt.Sprintf("%d probes, %d failed, longest outage %d ms (%v)",
		r.Sent, r.Failed, r.Longest.Duration.Milliseconds(), r.Longest.Err)
}

// Probe calls f every so often, each call with half a second, until Stop or
// until ctx ends. Calls overlap when answers are late.
func Probe(ctx context.Context, every time.Duration, f func(ctx context.Context) error) *Prober {
	ctx, cancel := context.WithCancel(ctx)
	p := &Prober{cancel: cancel}
	p.all.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			begin := time.Now()
			p.all.Go(func() { p.once(ctx, begin, f) })
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
	})
	return p
}

func (p *Prober) once(ctx context.Context, begin time.Time, f func(ctx context.Context) error) {
	attempt, cancel := context.WithDeadline(ctx, begin.Add(probeTimeout))
	defer cancel()
	err := f(attempt)
	if err != nil && ctx.Err() != nil {
		return // interrupted by Stop: nobody knows
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tries = append(p.tries, try{begin, err})
}

// Result is what has been seen so far.
func (p *Prober) Result() ProbeResult {
	p.mu.Lock()
	tries := slices.Clone(p.tries)
	p.mu.Unlock()
	return summarize(tries)
}

// Stop ends the prober and returns what it has seen.
func (p *Prober) Stop() ProbeResult {
	p.cancel()
	p.all.Wait()
	return p.Result()
}

// WaitAnswer returns when a probe that began after now was answered.
func (p *Prober) WaitAnswer(ctx context.Context) error {
	begin := time.Now()
	for {
		p.mu.Lock()
		answered := slices.ContainsFunc(p.tries, func(t try) bool { return t.err == nil && t.at.After(begin) })
		p.mu.Unlock()
		if answered {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for an answer: %w; so far %v", ctx.Err(), p.Result())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// summarize finds the outages in probes of any order.
func summarize(tries []try) ProbeResult {
	slices.SortFunc(tries, func(a, b try) int { return a.at.Compare(b.at) })
	r := ProbeResult{Sent: len(tries)}
	var current *Outage
	for _, t := range tries {
		switch {
		case t.err != nil:
			r.Failed++
			if current == nil {
				current = &Outage{Begin: t.at, Err: t.err, Open: true}
			}
			current.Duration = t.at.Sub(current.Begin)
		case current != nil:
			current.Duration, current.Open = t.at.Sub(current.Begin), false
			r.Outages = append(r.Outages, *current)
			current = nil
		}
	}
	if current != nil {
		r.Outages = append(r.Outages, *current)
	}
	if len(r.Outages) > 0 {
		r.Longest = slices.MaxFunc(r.Outages, func(a, b Outage) int { return cmp.Compare(a.Duration, b.Duration) })
	}
	return r
}
