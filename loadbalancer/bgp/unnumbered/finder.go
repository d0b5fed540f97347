// Package unnumbered finds the router at the other end of an interface, and lets that
// find this node, for BGP sessions over link-local addresses ("unnumbered"). Both
// sides send router advertisements for it; this node's say that it is no default
// router. A router that is not heard any more is forgotten after half a minute.
//
// An interface with more than one router on it is an error: there is no telling
// which is meant.
package unnumbered

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// pace is the time between two advertisements and solicitations, and hurry while
	// nobody is heard.
	pace  = 10 * time.Second
	hurry = 3 * time.Second
	// memory is how long a router counts after it was heard: three of its answers may
	// be lost.
	memory = 3*pace + 5*time.Second
	// routersMost is how many routers are remembered on a link: two are one too many, and
	// a sender may invent any number.
	routersMost = 8
	// answerPace is the least time between two answers to solicitations (RFC 4861,
	// section 6.2.6). Who is left without one hears the next advertisement.
	answerPace = 3 * time.Second
)

var (
	// ErrNobody is returned while no router is heard on an interface.
	ErrNobody = errors.New("no router is heard: it has to send router advertisements there, as FRR does for an interface neighbour")
	// ErrSeveral is returned for an interface with several routers.
	ErrSeveral = errors.New("several routers are heard, and there is no telling which is meant: give the peer's address")
)

// Options of New.
type Options struct {
	// Enter runs a function in the network namespace to work in. Nil: the program's own.
	Enter func(func() error) error
	// Changed is called when Router has another answer. It must not block.
	Changed func()
}

// Finder finds routers.
type Finder struct {
	o    Options
	wake chan struct{}

	mu    sync.Mutex       // guards the rest
	links map[string]*link // by interface
}

// link is what is known of an interface.
type link struct {
	heard   map[netip.Addr]time.Time
	last    netip.Addr // the only router, when there was one
	problem error
	end     context.CancelFunc // nil: it is not looked at yet

	answered time.Time // when a solicitation was; belongs to watch
}

// New returns a Finder that does nothing before Run.
func New(o Options) *Finder {
	if o.Enter == nil {
		o.Enter = func(f func() error) error { return f() }
	}
	return &Finder{o: o, wake: make(chan struct{}, 1), links: map[string]*link{}}
}

// Set hands over the interfaces to look at. It does not block.
func (f *Finder) Set(devices []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, l := range f.links {
		if !slices.Contains(devices, name) {
			if l.end != nil {
				l.end()
			}
			delete(f.links, name)
		}
	}
	for _, name := range devices {
		if f.links[name] == nil {
			f.links[name] = &link{heard: map[netip.Addr]time.Time{}}
			select {
			case f.wake <- struct{}{}:
			default:
			}
		}
	}
}

// Router is the link-local address, with zone, of the router on an interface that was
// given to Set. With an error comes the one that was known last, if any.
func (f *Finder) Router(device string) (netip.Addr, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.links[device]
	switch {
	case l == nil:
		return netip.Addr{}, fmt.Errorf("%s: %w", device, ErrNobody)
	case l.problem != nil:
		return l.last, l.problem
	}
	switch all := slices.SortedFunc(maps.Keys(l.heard), netip.Addr.Compare); len(all) {
	case 0:
		return l.last, fmt.Errorf("%s: %w", device, ErrNobody)
	case 1:
		l.last = all[0]
		return l.last, nil
	default:
		return l.last, fmt.Errorf("%s: %v: %w", device, all, ErrSeveral)
	}
}

// Run looks and listens until ctx is done. On return all it started has ended.
func (f *Finder) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	for {
		f.mu.Lock()
		for name, l := range f.links {
			if l.end == nil {
				watching, end := context.WithCancel(ctx)
				l.end = end
				all.Go(func() { f.watch(watching, name, l) })
			}
		}
		f.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-f.wake:
		}
	}
}

// watch looks at one interface, again and again: it may go and come back.
func (f *Finder) watch(ctx context.Context, device string, l *link) {
	for ctx.Err() == nil {
		err := f.converse(ctx, device, l)
		f.note(l, func() { l.problem = err })
		select {
		case <-ctx.Done():
		case <-time.After(hurry):
		}
	}
}

// note changes what is known, and tells.
func (f *Finder) note(l *link, change func()) {
	f.mu.Lock()
	before, problem := maps.Clone(l.heard), fmt.Sprint(l.problem)
	change()
	news := fmt.Sprint(l.problem) != problem || !maps.EqualFunc(before, l.heard, func(time.Time, time.Time) bool { return true })
	f.mu.Unlock()
	if news {
		f.o.Changed()
	}
}

// hear notes that a router was heard.
func (f *Finder) hear(l *link, router netip.Addr) {
	f.note(l, func() {
		l.problem = nil
		if _, known := l.heard[router]; known || len(l.heard) < routersMost {
			l.heard[router] = time.Now()
		}
	})
}

// answers reports whether a solicitation is to be answered now, and takes it for done.
func (l *link) answers(now time.Time) bool {
	if now.Sub(l.answered) < answerPace {
		return false
	}
	l.answered = now
	return true
}

// forget drops those that were not heard for long, and returns when to look again.
func (f *Finder) forget(l *link) time.Duration {
	f.note(l, func() {
		maps.DeleteFunc(l.heard, func(_ netip.Addr, at time.Time) bool { return time.Since(at) > memory })
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(l.heard) == 0 {
		return hurry
	}
	return pace
}
