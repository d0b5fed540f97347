package appliance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"k8s.io/klog/v2"

	"github.com/onelb/onelb/loadbalancer/router"
)

// retryAfter is how often is tried again what is not known to pass by itself.
const retryAfter = 5 * time.Second

// Run keeps every instance up to date until the context ends.
func (c *Client) Run(ctx context.Context) error {
	ctx = klog.NewContext(ctx, klog.FromContext(ctx).WithValues("router", c.o.Router, "virtualRouter", c.o.VirtualRouter))
	for next := c.look(ctx, nil); ctx.Err() == nil; {
		c.rest(ctx, next)
		c.mu.Lock()
		d := c.desired
		c.mu.Unlock()
		next = c.look(ctx, d)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	c.broadcast()
	return nil
}

// rest waits until it is time to look again: after d, or when changes have ceased.
func (c *Client) rest(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(d):
		return
	case <-c.kick:
	}
	most := time.After(gatherMost * c.o.Gather)
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.kick:
		case <-most:
			return
		case <-time.After(c.o.Gather):
			return
		}
	}
}

// look compares all instances with the desired state and writes where they differ;
// without one, it only looks. It returns when to look again, if nothing changes.
func (c *Client) look(ctx context.Context, d *desired) time.Duration {
	found, machines, err := c.read(ctx)
	if err != nil {
		c.unlisted(ctx, err)
		return retryAfter
	}
	if d == nil {
		c.examine(machines, found)
		c.seen(ctx, found, nil)
		return c.o.Recheck // a document will come
	}
	contexts := make([]map[string]string, 0, len(machines))
	for _, m := range machines {
		contexts = append(contexts, m.Context)
	}
	refused := c.owner.refusals(d.entries, contexts)
	entries := without(d.entries, refused)
	next := c.apply(ctx, d, entries, machines, found)
	c.seen(ctx, found, refused)
	observe(c.o.Router, len(entries), found, d.generation)
	return next
}

// read reads all instances that are not gone; those that cannot be read are in
// found only.
func (c *Client) read(ctx context.Context) (found map[int]*instance, machines []Machine, err error) {
	ids, err := c.o.OpenNebula.Instances(ctx, c.o.VirtualRouter)
	if err != nil {
		return nil, nil, err
	}
	found = map[int]*instance{}
	for _, id := range slices.Sorted(slices.Values(ids)) {
		m, err := c.o.OpenNebula.Machine(ctx, id)
		switch {
		case err != nil:
			found[id] = &instance{err: err}
		case !m.Gone:
			found[id] = &instance{}
			if m.Off {
				found[id].off = m.State
			}
			machines = append(machines, m)
		}
	}
	if len(found) == 0 {
		return nil, nil, fmt.Errorf("virtual router %d has no instance", c.o.VirtualRouter)
	}
	return found, machines, nil
}

// apply decides what each machine needs and writes it. It returns when to look again.
func (c *Client) apply(ctx context.Context, d *desired, entries []entry, machines []Machine, found map[int]*instance) time.Duration {
	due := map[int]map[string]string{}
	var busy []Machine
	for _, m := range machines {
		changes, err := c.owner.changes(entries, m.Context)
		i := found[m.ID]
		var rejected *router.RejectedError
		switch {
		case errors.As(err, &rejected):
			rejected.Router, rejected.Endpoint, rejected.Generation = c.o.Router, fmt.Sprintf("VM %d", m.ID), d.generation
			i.rejected = rejected
		case m.Busy:
			busy = append(busy, m)
		case len(changes) == 0:
			i.confirmed = d.generation
		case m.Ready:
			due[m.ID] = changes
		default:
			i.err = unwritable(m)
		}
	}
	patient := c.patient(busy, found)
	soon := patient
	if !patient {
		for _, id := range slices.Sorted(maps.Keys(due)) {
			if ctx.Err() == nil {
				soon = c.write(ctx, d.generation, id, due[id], found[id]) || soon
			}
		}
	}
	maps.DeleteFunc(c.tried, func(id int, _ attempts) bool { return found[id] == nil || found[id].confirmed == d.generation })
	switch {
	case soon:
		return c.o.Poll
	case len(busy) > 0 || slices.ContainsFunc(slices.Collect(maps.Values(found)), func(i *instance) bool { return i.confirmed != d.generation }):
		return retryAfter
	}
	return c.o.Recheck
}

// patient reports whether instances are still to wait for one that is busy. One that
// has been so for too long is waited for no more, by them or by Services.
func (c *Client) patient(busy []Machine, found map[int]*instance) bool {
	now, since, patient := time.Now(), map[int]time.Time{}, false
	for _, m := range busy {
		began, known := c.since[m.ID]
		if !known {
			began = now
		}
		since[m.ID] = began
		if now.Sub(began) < c.o.Patience {
			patient = true
			continue
		}
		found[m.ID].err = fmt.Errorf("virtual machine %d stays in state %s: see onevm show %d", m.ID, m.State, m.ID)
	}
	c.since = since
	return patient
}

// unlisted takes in that the instances cannot be listed: those that are known
// cannot be reached.
func (c *Client) unlisted(ctx context.Context, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	c.listed = err
	for _, i := range c.instances {
		i.err = err
	}
	c.broadcast()
}

// seen takes in a look at all instances.
func (c *Client) seen(ctx context.Context, found map[int]*instance, refused map[culprit]error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ctx.Err() != nil {
		return // what ended the calls says nothing about the instances
	}
	c.listed, c.instances, c.refused = nil, found, refused
	c.broadcast()
}
