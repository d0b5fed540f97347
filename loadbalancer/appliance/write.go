package appliance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/klog/v2"

	"github.com/onelb/onelb/ipam"
)

// vain is how often an instance is written to before it is told that this does not
// help: two writes may just have met somebody else's.
const vain = 3

// attempts are the writes to an instance since its context was last as it has to be.
type attempts struct {
	generation uint64
	count      int
	next       time.Time // the next one not before
	err        error     // of the last one, unless that passes by itself
}

// write sets what differs in an instance's context. Where that has not helped before, it
// waits, twice as long each time: a write restarts keepalived, and a refused one is a
// call of oned. It reports whether to look again soon, since the context is to be read
// back or is about to take the change.
func (c *Client) write(ctx context.Context, generation uint64, id int, changes map[string]string, i *instance) (soon bool) {
	a := c.tried[id]
	if a.generation != generation {
		a.generation, a.count, a.next = generation, 0, time.Time{}
	}
	if i.err = a.err; a.err == nil && a.count >= vain {
		i.err = fmt.Errorf("virtual machine %d does not have what was written to its context %d times: see what else changes it", id, a.count)
	}
	if time.Now().Before(a.next) {
		return false
	}
	err := c.o.OpenNebula.SetContext(ctx, id, changes)
	if ctx.Err() != nil {
		return false // what ended the call says nothing about the instance
	}
	countWrite(c.o.Router, err)
	if soon = err == nil || errors.Is(err, ipam.ErrNotReady); soon {
		if a.err != nil {
			a.err, i.err = nil, nil
		}
		klog.FromContext(ctx).V(2).Info("Wrote the context of an instance", "vm", id, "variables", len(changes), "busy", err != nil)
	} else {
		if a.err == nil || a.err.Error() != err.Error() {
			klog.FromContext(ctx).Error(err, "Cannot change the context of an instance", "vm", id)
		}
		a.err, i.err = err, err
	}
	a.next = time.Now().Add(min(c.o.Poll<<min(a.count, 16), c.o.Recheck))
	a.count++
	c.tried[id] = a
	return soon
}
