package bgp

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"
)

const (
	retryInterval   = time.Second
	refreshInterval = 5 * time.Second // of what is not told by events: counters
	// leaveTime is how long routes are marked as going before they are withdrawn:
	// time for the peers' peers to find another way.
	leaveTime = 2 * time.Second
	// flushTime is time for the withdrawals to be sent before the session ends.
	flushTime = 200 * time.Millisecond
)

// Options of New.
type Options struct {
	// Restarting: an earlier speaker may have announced routes that peers still have.
	Restarting bool
	// Changed is called when Sessions has something new. It must not block. Nil: nobody.
	Changed func()
	// Metrics is required.
	Metrics *Metrics
}

// Speaker announces routes. Its owner goroutine is Run's; the other methods may be
// called from any.
type Speaker struct {
	o       Options
	desired atomic.Pointer[Desired]
	wake    chan struct{}
	leaving chan chan struct{}
	watch   *watch

	// The rest belongs to Run.
	logger     klog.Logger
	running    *running // nil: nothing runs
	restarting bool     // there may be peers that keep routes of an earlier speaker
	// begun are the peers with which a session was begun: those keep none any more.
	begun map[string]bool
	since time.Time // when Run began
	left  bool      // everything was withdrawn for good
}

// New returns a Speaker that does nothing before Run.
func New(o Options) (*Speaker, error) {
	if o.Metrics == nil {
		return nil, fmt.Errorf("%w: no metrics", ErrOptions)
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	return &Speaker{
		o: o, wake: make(chan struct{}, 1), leaving: make(chan chan struct{}), watch: newWatch(o.Changed), restarting: o.Restarting,
		begun: map[string]bool{},
	}, nil
}

// Set hands over what is desired. It does not block; the last call counts.
func (s *Speaker) Set(d *Desired) {
	s.desired.Store(d)
	s.nudge()
}

func (s *Speaker) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Sessions are the sessions with all desired peers, sorted by the peer's name.
func (s *Speaker) Sessions() []Session { return s.watch.list() }

// Leave ends all sessions for good: routes are marked as going, then withdrawn. It
// returns when that is done, or ctx is. Nothing is announced afterwards.
func (s *Speaker) Leave(ctx context.Context) {
	done := make(chan struct{})
	select {
	case s.leaving <- done:
	case <-ctx.Done():
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// Run follows what is desired until ctx is done. On return all it started has ended.
func (s *Speaker) Run(ctx context.Context) error {
	s.logger, s.since = klog.FromContext(ctx), time.Now()
	defer s.watch.reset()
	// Calls of the library end with ctx, and must not when the end is what they do.
	calls := context.WithoutCancel(ctx)
	timer := time.NewTimer(refreshInterval)
	defer timer.Stop()
	for {
		timer.Reset(s.step(calls))
		select {
		case <-ctx.Done():
			s.stop(calls, true)
			return nil
		case done := <-s.leaving:
			s.leave(ctx)
			close(done)
		case <-s.wake:
		case <-timer.C:
		}
	}
}

// step brings everything in line and returns when it should be called again.
func (s *Speaker) step(ctx context.Context) time.Duration {
	d := s.desired.Load()
	if d == nil {
		return refreshInterval
	}
	if s.left {
		s.o.Metrics.observe(nil) // there are no sessions any more
		return refreshInterval
	}
	if s.running != nil && (len(d.Peers) == 0 || s.running.global != d.Global) {
		s.stop(ctx, false)
	}
	err := s.follow(ctx, d)
	s.watch.settle(d, err)
	if s.running != nil {
		s.watch.refresh(ctx, s.running)
	}
	s.o.Metrics.observe(s.Sessions())
	if err != nil {
		s.logger.Error(err, "Could not follow the BGP configuration; trying again")
		return retryInterval
	}
	return refreshInterval
}

func (s *Speaker) follow(ctx context.Context, d *Desired) error {
	if s.running == nil {
		if !begins(d) {
			return nil
		}
		r, err := start(ctx, d.Global, s.restarting, s.begun, s.watch, s.o.Metrics, s.logger)
		if err != nil {
			return err
		}
		s.running = r
	}
	err := s.running.apply(ctx, d, s.restarting)
	if err == nil && s.restarting {
		s.restarting = waits(d, time.Since(s.since))
	}
	return err
}

// waits reports whether a peer may still keep routes of an earlier speaker. One with a
// Problem may have a session later: an unnumbered one has to be found first.
func waits(d *Desired, after time.Duration) bool {
	return slices.ContainsFunc(d.Peers, func(p Peer) bool { return p.Problem != "" && p.RestartTime > after })
}

// begins reports whether there is a peer to begin a session with.
func begins(d *Desired) bool {
	for _, p := range d.Peers {
		if p.Problem == "" {
			return true
		}
	}
	return false
}

// stop ends everything. graceful: for a restart.
func (s *Speaker) stop(ctx context.Context, graceful bool) {
	if s.running != nil {
		s.running.stop(ctx, graceful)
		s.running = nil
	}
}

// leave withdraws everything for good.
func (s *Speaker) leave(ctx context.Context) {
	if s.running == nil || s.left {
		s.left = true
		return
	}
	s.left = true
	calls := context.WithoutCancel(ctx)
	if s.watch.established() > 0 {
		s.logger.Info("Marking the routes as going", "routes", len(s.running.routes))
		going := &Desired{Global: s.running.global, Peers: s.running.followed()}
		for _, r := range s.running.announced() {
			a := *r.Attributes
			a.Leaving = true
			going.Routes = append(going.Routes, Route{r.Prefix, &a})
		}
		s.try(calls, going)
		sleep(ctx, leaveTime)
		going.Routes = nil
		s.try(calls, going)
		sleep(ctx, flushTime)
	}
	s.stop(calls, false)
}

func (s *Speaker) try(ctx context.Context, d *Desired) {
	if err := s.running.apply(ctx, d, false); err != nil {
		s.logger.Error(err, "Could not take the routes back in order")
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
