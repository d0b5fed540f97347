package appliance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/onelb/onelb/loadbalancer/router"
)

// Defaults of Options.
const (
	// DefaultGather is how long changes have to cease before they are written. Each
	// write restarts keepalived on the appliance.
	DefaultGather = 2 * time.Second
	// gatherMost bounds it, in multiples, while changes do not cease.
	gatherMost = 5
	// DefaultPoll is how often instances are looked at that have to change.
	DefaultPoll = time.Second
	// DefaultRecheck is how often contexts are compared that are as they have to be.
	DefaultRecheck = 30 * time.Second
	// DefaultPatience is for how long instances wait for one that is busy, so that
	// all change together: keepalived drops what an instance with other addresses
	// advertises, and then both are masters.
	DefaultPatience = 30 * time.Second
)

// Machine is an instance of a virtual router, as OpenNebula shows it now.
type Machine struct {
	ID int
	// State is OpenNebula's name, for messages.
	State string
	// Gone: it was terminated.
	Gone bool
	// Ready: it takes a new context.
	Ready bool
	// Busy: it is in a transition, as HOTPLUG is, that ends by itself.
	Busy bool
	// Off: it does not run. It may be Ready too.
	Off bool
	// Context has all its variables.
	Context map[string]string
}

// OpenNebula is what the client needs of it.
type OpenNebula interface {
	// Instances lists the IDs of the virtual machines of a virtual router.
	Instances(ctx context.Context, virtualRouter int) ([]int, error)
	// Machine reads one of them, fresh.
	Machine(ctx context.Context, id int) (Machine, error)
	// SetContext sets variables of its context and leaves all others as they are.
	SetContext(ctx context.Context, id int, variables map[string]string) error
}

// Options configure a Client. The first six are required.
type Options struct {
	// Router is the router's name in the cloud-config, VirtualRouter its ID in OpenNebula.
	Router        string
	VirtualRouter int
	// Cluster and Identity are those of the cluster, Token its leader's.
	Cluster    string
	Identity   string
	Token      uint64
	OpenNebula OpenNebula
	// Gather, Poll, Recheck and Patience have defaults, see there.
	Gather, Poll, Recheck, Patience time.Duration
}

// Client brings a document to every instance of one appliance and keeps it there.
// Its methods may be called from any goroutine, before and while Run runs.
type Client struct {
	o     Options
	owner owner
	kick  chan struct{}
	since map[int]time.Time // when instances were first seen busy; the loop's own
	tried map[int]attempts  // where writes have not helped yet; the loop's own

	mu        sync.Mutex // guards what follows
	desired   *desired   // nil until the first Set
	instances map[int]*instance
	listed    error // why the instances are not known
	refused   map[culprit]error
	changed   chan struct{} // closed and replaced at each change
	ended     bool
}

// desired is immutable.
type desired struct {
	generation uint64
	entries    []entry
	refused    map[culprit]error // by what they ask for
}

type instance struct {
	err       error // why it cannot be read or written; nil: reachable
	rejected  *router.RejectedError
	confirmed uint64
	off       string // its state, if it does not run
}

// New checks the options. It calls nobody; Run does.
func New(o Options) (*Client, error) {
	if o.Router == "" || o.VirtualRouter < 0 || o.Identity == "" || strings.ContainsAny(o.Identity, " =") || o.OpenNebula == nil || !router.ValidCluster(o.Cluster) {
		return nil, fmt.Errorf("appliance %q: a name, a virtual router's ID, cluster, identity and OpenNebula are required", o.Router)
	}
	for d, standard := range map[*time.Duration]time.Duration{
		&o.Gather: DefaultGather, &o.Poll: DefaultPoll, &o.Recheck: DefaultRecheck, &o.Patience: DefaultPatience,
	} {
		if *d == 0 {
			*d = standard
		}
	}
	return &Client{
		o: o, owner: newOwner(o.Cluster, o.Identity, o.Token),
		kick: make(chan struct{}, 1), changed: make(chan struct{}), instances: map[int]*instance{}, tried: map[int]attempts{},
	}, nil
}

// Set replaces the desired state and returns its generation. It never blocks; of
// several documents set in a row only the last may reach the appliance. A document
// that means the same keeps its generation.
func (c *Client) Set(d router.Document) (generation uint64) {
	entries, refused := entriesOf(d.Normalize())
	c.mu.Lock()
	defer c.mu.Unlock()
	next := uint64(1)
	if before := c.desired; before != nil {
		if slices.Equal(before.entries, entries) && maps.EqualFunc(before.refused, refused, sameText) {
			return before.generation
		}
		next = before.generation + 1
	}
	c.desired = &desired{next, entries, refused}
	c.broadcast()
	select {
	case c.kick <- struct{}{}:
	default:
	}
	return next
}

func sameText(a, b error) bool { return a.Error() == b.Error() }

// Wait blocks until every reachable instance, and at least one that runs, has this
// generation or a later one. Its errors are those of router.Client.
func (c *Client) Wait(ctx context.Context, generation uint64) error {
	for {
		c.mu.Lock()
		done, err := c.settled(generation)
		changed := c.changed
		c.mu.Unlock()
		if done || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("router %s: wait for generation %d: %w", c.o.Router, generation, ctx.Err())
		}
	}
}

// settled is called with the mutex held.
func (c *Client) settled(generation uint64) (bool, error) {
	var failures []error
	running, behind := 0, 0
	for _, id := range slices.Sorted(maps.Keys(c.instances)) {
		switch i := c.instances[id]; {
		case i.rejected != nil && i.rejected.Generation >= generation:
			return false, i.rejected
		case i.err != nil:
			failures = append(failures, i.err)
		default:
			if i.off == "" {
				running++
			}
			if i.confirmed < generation {
				behind++
			}
		}
	}
	if err := c.off(); err != nil {
		failures = append(failures, err)
	}
	if c.listed != nil {
		failures = append(failures, c.listed)
	}
	switch {
	case running > 0 && behind == 0:
		return true, nil
	case c.ended:
		return false, errors.Join(router.ErrClosed, errors.Join(failures...))
	case running == 0 && len(failures) > 0:
		return false, &router.UnreachableError{Router: c.o.Router, Errors: failures}
	}
	return false, nil
}

// off says that no instance that can be reached runs; nil: one does, or none can be
// reached. The mutex is held.
func (c *Client) off() error {
	var states []string
	for _, id := range slices.Sorted(maps.Keys(c.instances)) {
		switch i := c.instances[id]; {
		case i.err != nil:
		case i.off == "":
			return nil
		default:
			states = append(states, fmt.Sprintf("VM %d is in %s", id, i.off))
		}
	}
	if len(states) == 0 {
		return nil
	}
	return fmt.Errorf("no instance runs: %s; start it", strings.Join(states, ", "))
}

// Refusal says why ports of an address that a Service (namespace/name) has are not
// on the appliance though it has the document; nil if they are.
func (c *Client) Refusal(a netip.Addr, service string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := culprit{a, service}
	if c.desired != nil && c.desired.refused[key] != nil {
		return c.desired.refused[key]
	}
	return c.refused[key]
}

// leftOut says what is not on the appliance though a Service asks for it. The mutex is held.
func (c *Client) leftOut() []string {
	all := maps.Clone(c.refused)
	if c.desired != nil && len(c.desired.refused) > 0 {
		if all == nil {
			all = map[culprit]error{}
		}
		maps.Copy(all, c.desired.refused)
	}
	var out []string
	for who, err := range all {
		out = append(out, fmt.Sprintf("Service %s is closed on %s: %v", who.service, who.address, err))
	}
	slices.Sort(out)
	return out
}

// State returns a copy of what is known now. An instance's endpoint is "VM <ID>"; what
// is wrong with the whole appliance stands at the first one that is reachable: what one
// that is not says counts for nothing.
func (c *Client) State() router.State {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := router.State{Router: c.o.Router, Stock: true}
	if c.desired != nil {
		s.Generation = c.desired.generation
	}
	for _, id := range slices.Sorted(maps.Keys(c.instances)) {
		i := c.instances[id]
		state := router.InstanceState{
			Endpoint: "VM " + strconv.Itoa(id), Reachable: i.err == nil, Err: i.err,
			Generation: i.confirmed, Confirmed: i.confirmed, Current: s.Generation != 0 && i.confirmed == s.Generation,
			WasMaster: i.err != nil,      // it may be: a machine that takes no context goes on with the one it has
			Features:  router.Features(), // what it cannot do is refused for a better reason than an agent's age
		}
		if i.rejected != nil {
			state.Problems = append(state.Problems, i.rejected.Message)
		}
		s.Instances = append(s.Instances, state)
	}
	if n := len(s.Instances); n > 0 {
		at := slices.IndexFunc(s.Instances, func(i router.InstanceState) bool { return i.Reachable })
		about := &s.Instances[max(at, 0)]
		problems := c.leftOut()
		if err := c.off(); err != nil {
			problems = append(problems, err.Error())
		}
		about.Problems = append(problems, about.Problems...)
	}
	if c.listed != nil && len(c.instances) == 0 {
		s.Instances = append(s.Instances, router.InstanceState{Endpoint: "virtual router " + strconv.Itoa(c.o.VirtualRouter), Err: c.listed})
	}
	return s
}

// broadcast wakes every waiter; the mutex is held.
func (c *Client) broadcast() {
	close(c.changed)
	c.changed = make(chan struct{})
}
