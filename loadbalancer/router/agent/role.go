package agent

import (
	"context"
	"sync"

	"k8s.io/klog/v2"
)

// Role says whether this instance of the router carries the traffic.
type Role interface {
	// Run calls changed with the role at the start and at each change, until the
	// context ends.
	Run(ctx context.Context, changed func(master bool)) error
}

// alone is the role of a router with one instance.
type alone struct{}

// Run implements Role.
func (alone) Run(ctx context.Context, changed func(master bool)) error {
	changed(true)
	<-ctx.Done()
	return nil
}

// role is what the parts of the agent know of it.
type role struct {
	mu      sync.Mutex // guards what follows
	known   bool
	master  bool
	changed chan struct{} // closed and replaced at each change
}

// get returns the role, false while it is not known, and a channel that is closed
// when it changes.
func (r *role) get() (master bool, changed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.master, r.changed
}

// whenKnown waits for the first word about the role.
func (r *role) whenKnown(ctx context.Context) {
	for {
		r.mu.Lock()
		known, changed := r.known, r.changed
		r.mu.Unlock()
		if known {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

func (r *role) set(master bool) (differs bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known && r.master == master {
		return false
	}
	r.known, r.master = true, master
	close(r.changed)
	r.changed = make(chan struct{})
	return true
}

// setRole takes in a role; the loop follows.
func (a *Agent) setRole(ctx context.Context, master bool) {
	if !a.role.set(master) {
		return
	}
	klog.FromContext(ctx).Info("The role is known or has changed", "master", master)
	poke(a.turned)
}
