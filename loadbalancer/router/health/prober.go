package health

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"
)

// prober probes one target. Checker.mu guards all but target and gone.
type prober struct {
	target    Target
	started   bool
	gone      chan struct{} // closed when it is no target any more
	result    Result
	failures  int
	successes int
}

// probeAll probes until the target has gone or the context ends.
func (c *Checker) probeAll(ctx context.Context, p *prober) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The first probe comes at once: the backend waits for it. Later ones are
	// spread over the interval by the jitter.
	for {
		began := time.Now()
		err := c.probe(ctx, p)
		select {
		case <-p.gone:
			return
		default:
		}
		if ctx.Err() != nil {
			return
		}
		c.record(p, err)
		interval := c.interval()
		wait := interval - time.Since(began) + rand.N(interval/10+1) - interval/20 //nolint:gosec // jitter
		select {
		case <-ctx.Done():
			return
		case <-p.gone:
			return
		case <-time.After(max(wait, 0)):
		}
	}
}

// interval grows when there are more targets than the rate allows.
func (c *Checker) interval() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(c.opts.Interval, time.Duration(len(c.probers))*time.Second/time.Duration(c.opts.MaxRate))
}

func (c *Checker) probe(ctx context.Context, p *prober) error {
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.target.URL(), http.NoBody)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "onelb-router")
	response, err := c.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	// Read a short answer to its end, so that the connection can be kept.
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 16<<10))
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: status %d", p.target.URL(), response.StatusCode)
	}
	return nil
}

// record counts one result and tells about a new state.
func (c *Checker) record(p *prober, err error) {
	c.mu.Lock()
	before := p.result.State
	if err == nil {
		p.failures, p.successes = 0, p.successes+1
		if before == Unknown || p.successes >= c.opts.Rise {
			p.result = Result{State: Healthy}
		}
	} else {
		p.failures, p.successes = p.failures+1, 0
		if before != Healthy || p.failures >= c.opts.Fall {
			p.result = Result{State: Unhealthy, Err: err}
		}
	}
	changed := p.result.State != before
	c.mu.Unlock()
	if changed {
		c.opts.Changed()
	}
}
