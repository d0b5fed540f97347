// Package returnpath finds out which backends send their replies to clients past
// the router that forwarded to them.
//
// A backend whose default gateway is another machine answers a client behind that
// one: the client knows nothing of such a connection, and the service is dead. The
// package tries it. It opens a connection to the backend from the router's own
// address and one from a public address that the router holds, which is as far away
// for the backend as any client. Any answer will do, a refusal too. If the first is
// answered and the second is not, twice in a row, replies go elsewhere. A backend
// that answers neither says nothing, and what was found out before stays.
//
// The cost is two connections for each backend and round, at most MaxBackends of
// them.
package returnpath

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// MaxBackends is how many backends are tried; those beyond are taken to reply here.
const MaxBackends = 1_024

const (
	// DefaultInterval between rounds.
	DefaultInterval = 10 * time.Second
	// timeout of one try.
	timeout = time.Second
	// again is the pause before a second look at what went wrong.
	again = time.Second
	// atOnce bounds the tries under way.
	atOnce = 32
	// enough failures in a row prove that replies go elsewhere.
	enough = 2
)

// Backend is what is tried.
type Backend struct {
	Address netip.Addr
	Port    uint16
	// From is a public address of the family that the router holds.
	From netip.Addr
	// Interface is where replies have to come in; empty: anywhere.
	Interface string
}

// Options configure a Prober; zero values mean the defaults.
type Options struct {
	Interval time.Duration
	// Changed is called after something was found out. It must not block.
	Changed func()
	// Answers tries one connection, from an address or, if that is invalid, from
	// any, and comes back in a second; it replaces the kernel.
	Answers func(ctx context.Context, b Backend, from netip.Addr) bool
}

// Prober tries a changing set of backends.
type Prober struct {
	opts Options
	wake chan struct{}

	mu        sync.Mutex // guards what follows
	backends  []Backend
	failures  map[netip.Addr]int
	elsewhere map[netip.Addr]bool // replaced, never changed
}

// New returns a Prober that tries nothing yet.
func New(o Options) (*Prober, error) {
	o.Interval = cmp.Or(o.Interval, DefaultInterval)
	if o.Interval < 0 {
		return nil, errors.New("returnpath: negative option")
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	if o.Answers == nil {
		o.Answers = answers
	}
	return &Prober{opts: o, wake: make(chan struct{}, 1), failures: map[netip.Addr]int{}}, nil
}

// Set replaces the backends. New ones are tried at once.
func (p *Prober) Set(backends []Backend) {
	backends = backends[:min(len(backends), MaxBackends)]
	p.mu.Lock()
	defer p.mu.Unlock()
	if slices.Equal(backends, p.backends) {
		return
	}
	p.backends = slices.Clone(backends)
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Elsewhere returns the backends that send their replies past the router. Nobody
// changes what it returns.
func (p *Prober) Elsewhere() map[netip.Addr]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.elsewhere
}

// Run tries until the context ends.
func (p *Prober) Run(ctx context.Context) error {
	for {
		wait := p.opts.Interval
		if p.round(ctx) {
			wait = min(wait, again)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		case <-time.After(wait):
		}
	}
}

// round tries all, and reports whether something has to be looked at once more.
func (p *Prober) round(ctx context.Context) (doubt bool) {
	p.mu.Lock()
	backends := p.backends
	p.mu.Unlock()
	results := make([]result, len(backends))
	var all sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for i, b := range backends {
		slots <- struct{}{}
		all.Go(func() {
			results[i] = p.try(ctx, b)
			<-slots
		})
	}
	all.Wait()
	if ctx.Err() != nil {
		return false
	}
	return p.judge(backends, results)
}

type result int

const (
	silent result = iota
	here
	past
)

func (p *Prober) try(ctx context.Context, b Backend) result {
	switch {
	case p.opts.Answers(ctx, b, b.From):
		return here
	case p.opts.Answers(ctx, b, netip.Addr{}):
		return past
	default:
		return silent
	}
}

// judge takes in what a round has found.
func (p *Prober) judge(backends []Backend, results []result) (doubt bool) {
	p.mu.Lock()
	before := p.elsewhere
	now, failures := map[netip.Addr]bool{}, map[netip.Addr]int{}
	for i, b := range backends {
		switch results[i] {
		case here:
		case past:
			failures[b.Address] = p.failures[b.Address] + 1
			if before[b.Address] || failures[b.Address] >= enough {
				now[b.Address] = true
			} else {
				doubt = true
			}
		case silent:
			if before[b.Address] {
				now[b.Address] = true
			}
		}
	}
	p.failures, p.elsewhere = failures, now
	p.mu.Unlock()
	if !maps.Equal(before, now) {
		p.opts.Changed()
	}
	return doubt
}
