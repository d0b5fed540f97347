package router

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"k8s.io/klog/v2"
)

// ClientOptions configure a Client. All but Dial and OnState are required.
type ClientOptions struct {
	// Router is the router's name: its certificate must carry the DNS name
	// <Router>.router.onelb.
	Router string
	// Endpoints are host:port, one for each instance of the virtual router.
	Endpoints []string
	// CAFile, CertFile and KeyFile are PEM files, read again when they change.
	CAFile   string
	CertFile string
	KeyFile  string
	// Cluster is the name in the client certificate, Identity the cluster's UID.
	Cluster  string
	Identity string
	// Token is the leader's fencing token.
	Token uint64
	// Dial replaces the TCP dialer.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// OnState is called with the newest state after changes, one call at a time.
	OnState func(State)
}

// Client brings a document to every instance of one router and keeps it there.
// Set and Wait may be called from any goroutine, before and while Run runs.
type Client struct {
	opts ClientOptions

	mu        sync.Mutex // guards what follows
	desired   *desired   // nil until the first Set
	instances []*instance
	changed   chan struct{} // closed and replaced at each change
	ended     bool
}

// desired is immutable but for generation, which is raised when a router
// reports a higher one.
type desired struct {
	doc        Document // normalized; Generation and Token are not used
	hash       string
	generation uint64
}

// NewClient checks the options. It opens nothing; Run does.
func NewClient(o ClientOptions) (*Client, error) {
	if o.Router == "" || len(o.Endpoints) == 0 {
		return nil, fmt.Errorf("router client: a router name and an endpoint are required, have %q and %q", o.Router, o.Endpoints)
	}
	if !ValidCluster(o.Cluster) {
		return nil, fmt.Errorf("router %s: cluster %q is not a DNS label", o.Router, o.Cluster)
	}
	if o.CAFile == "" || o.CertFile == "" || o.KeyFile == "" {
		return nil, fmt.Errorf("router %s: CA, certificate and key files are required", o.Router)
	}
	c := &Client{opts: o, changed: make(chan struct{})}
	for _, endpoint := range o.Endpoints {
		if _, _, err := net.SplitHostPort(endpoint); err != nil {
			return nil, fmt.Errorf("router %s: endpoint %q: %w", o.Router, endpoint, err)
		}
		c.instances = append(c.instances, &instance{endpoint: endpoint})
	}
	return c, nil
}

// Run keeps every instance connected and up to date until the context ends.
func (c *Client) Run(ctx context.Context) error {
	ctx = klog.NewContext(ctx, klog.FromContext(ctx).WithValues("router", c.opts.Router))
	var wg sync.WaitGroup
	for _, inst := range c.instances {
		wg.Go(func() { c.runInstance(ctx, inst) })
	}
	if c.opts.OnState != nil {
		wg.Go(func() { c.notify(ctx) })
	}
	wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	c.broadcast()
	return nil
}

// Set replaces the desired state and returns its generation. It never blocks;
// of several documents set in a row only the last may reach the router. A
// document equal to the desired one keeps its generation. Cluster and Identity
// are the client's own, whatever the document says.
func (c *Client) Set(d Document) (generation uint64) {
	d.Cluster, d.Identity = c.opts.Cluster, c.opts.Identity
	d = d.Normalize()
	hash := d.Hash()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.desired != nil && c.desired.hash == hash {
		return c.desired.generation
	}
	next := uint64(1)
	if c.desired != nil {
		next = c.desired.generation + 1
	}
	for _, inst := range c.instances {
		next = max(next, inst.status.GetGeneration()+1)
	}
	c.desired = &desired{doc: d, hash: hash, generation: next}
	c.broadcast()
	return next
}

// Wait blocks until every reachable instance, and among them the master, runs this
// generation or a later one. It returns a *RejectedError when the newest
// document was refused, an *UnreachableError as soon as no instance can be
// reached, ErrClosed after Run has ended, and else the context's error, which is
// ErrNoMaster too where only the master is missing.
func (c *Client) Wait(ctx context.Context, generation uint64) error {
	for {
		c.mu.Lock()
		done, err := c.settled(generation)
		changed, masterless := c.changed, c.masterless()
		c.mu.Unlock()
		if done || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if masterless {
				return fmt.Errorf("router %s: %w: %w", c.opts.Router, ErrNoMaster, ctx.Err())
			}
			return fmt.Errorf("router %s: wait for generation %d: %w", c.opts.Router, generation, ctx.Err())
		}
	}
}

// settled is called with the mutex held.
func (c *Client) settled(generation uint64) (bool, error) {
	var failures []error
	reachable, behind, untried := 0, 0, 0
	for _, inst := range c.instances {
		switch {
		case inst.reachable && inst.rejected != nil && inst.rejected.Generation >= generation:
			return false, inst.rejected
		case inst.reachable:
			reachable++
			if inst.confirmed < generation {
				behind++
			}
		case inst.err != nil:
			failures = append(failures, inst.err)
		default:
			untried++
		}
	}
	switch {
	case reachable > 0 && behind == 0 && untried == 0 && !c.masterless():
		return true, nil
	case c.ended:
		return false, errors.Join(ErrClosed, errors.Join(failures...))
	case len(failures) == len(c.instances):
		return false, &UnreachableError{Router: c.opts.Router, Errors: failures}
	}
	return false, nil
}

// masterless reports whether none of the instances that can be reached carries the
// traffic: what they run is not in force then. The mutex is held.
func (c *Client) masterless() bool {
	reachable := 0
	for _, inst := range c.instances {
		if inst.reachable && inst.status.GetMaster() {
			return false
		}
		if inst.reachable {
			reachable++
		}
	}
	return reachable > 0
}

// broadcast wakes every waiter; the mutex is held.
func (c *Client) broadcast() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// update changes an instance's fields and wakes every waiter.
func (c *Client) update(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
	c.broadcast()
}
