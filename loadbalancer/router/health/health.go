// Package health probes backends over HTTP.
//
// There is one prober for each address, port and path, however many groups and
// frontends use it, and the number of probes in a second is bounded, so the cost
// grows with nodes and not with Services. A probe is one GET with a deadline;
// status 200 is healthy. The first answer decides at once; after that a backend
// is down after Fall failures in a row and up after Rise successes.
package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// Target is what is probed.
type Target struct {
	Address netip.Addr
	Port    uint16
	Path    string
}

// State is what is known about a target.
type State int

const (
	// Unknown: not probed yet, or not a target.
	Unknown State = iota
	// Healthy targets answer 200.
	Healthy
	// Unhealthy targets do not.
	Unhealthy
)

// Result is the state of one target and, if it is unhealthy, why.
type Result struct {
	State State
	Err   error
}

// Defaults of Options.
const (
	DefaultInterval = 250 * time.Millisecond
	DefaultTimeout  = 250 * time.Millisecond
	DefaultFall     = 3
	DefaultRise     = 2
	DefaultMaxRate  = 2000
)

// Options configure a Checker; zero values mean the defaults.
type Options struct {
	Interval time.Duration
	Timeout  time.Duration
	// Fall and Rise are failures and successes in a row.
	Fall, Rise int
	// MaxRate is the number of probes in a second, over all targets. With more
	// targets than it allows the interval grows.
	MaxRate int
	// Changed is called after a target changed its state. It must not block.
	Changed func()
	// Dial replaces the TCP dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Checker probes a changing set of targets.
type Checker struct {
	opts   Options
	client *http.Client

	wake chan struct{} // there are probers to be started

	mu      sync.Mutex // guards what follows
	probers map[Target]*prober
}

// New returns a Checker that probes nothing yet.
func New(o Options) (*Checker, error) {
	for _, d := range []struct {
		value *time.Duration
		other time.Duration
	}{{&o.Interval, DefaultInterval}, {&o.Timeout, DefaultTimeout}} {
		if *d.value == 0 {
			*d.value = d.other
		}
	}
	for _, d := range []struct {
		value *int
		other int
	}{{&o.Fall, DefaultFall}, {&o.Rise, DefaultRise}, {&o.MaxRate, DefaultMaxRate}} {
		if *d.value == 0 {
			*d.value = d.other
		}
	}
	if o.Interval < 0 || o.Timeout < 0 || o.Fall < 0 || o.Rise < 0 || o.MaxRate < 0 {
		return nil, errors.New("health: negative option")
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{Timeout: o.Timeout}).DialContext
	}
	return &Checker{
		opts: o, wake: make(chan struct{}, 1), probers: map[Target]*prober{},
		client: &http.Client{
			// Connections are kept, so that a probe costs two packets and no
			// entry in the node's connection table; no proxy, no redirects.
			Transport: &http.Transport{
				DialContext: o.Dial, MaxIdleConnsPerHost: 1, MaxConnsPerHost: 1,
				DisableCompression: true, MaxResponseHeaderBytes: 16 << 10,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Timeout:       o.Timeout,
		},
	}, nil
}

// Run probes until the context ends. Targets may be set before.
func (c *Checker) Run(ctx context.Context) error {
	var probers sync.WaitGroup
	for ctx.Err() == nil {
		c.mu.Lock()
		for _, p := range c.probers {
			if !p.started {
				p.started = true
				probers.Go(func() { c.probeAll(ctx, p) })
			}
		}
		c.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-c.wake:
		}
	}
	probers.Wait()
	c.client.CloseIdleConnections()
	return nil
}

// Set replaces the targets; the state of those that stay is kept.
func (c *Checker) Set(targets []Target) {
	c.mu.Lock()
	defer c.mu.Unlock()
	want := make(map[Target]bool, len(targets))
	for _, t := range targets {
		want[t] = true
		if c.probers[t] == nil {
			c.probers[t] = &prober{target: t, gone: make(chan struct{})}
		}
	}
	for t, p := range c.probers {
		if !want[t] {
			close(p.gone)
			delete(c.probers, t)
		}
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Result returns what is known about a target.
func (c *Checker) Result(t Target) Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.probers[t]; p != nil {
		return p.result
	}
	return Result{}
}

// Snapshot returns all targets' results.
func (c *Checker) Snapshot() map[Target]Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[Target]Result, len(c.probers))
	for t, p := range c.probers {
		out[t] = p.result
	}
	return out
}

// URL is what a probe asks for.
func (t Target) URL() string {
	return fmt.Sprintf("http://%s%s", netip.AddrPortFrom(t.Address, t.Port), t.Path)
}
