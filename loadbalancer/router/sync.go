package router

import (
	"context"
	"fmt"
	"time"

	"k8s.io/klog/v2"

	"github.com/onelb/onelb/loadbalancer/router/wire"
)

// report takes in what an instance says and decides whether it runs the
// desired document.
func (c *Client) report(ctx context.Context, inst *instance, s *wire.Status) {
	c.update(func() {
		if !inst.reachable {
			klog.FromContext(ctx).Info("Router instance is reachable", "generation", s.GetGeneration(), "version", s.GetVersion())
		}
		inst.reachable, inst.err = true, nil
		// A status that was on its way during a push is older than the push's answer.
		if s.GetRevision() >= inst.revision {
			inst.status, inst.revision = s, s.GetRevision()
			c.compare(inst)
		}
	})
}

// compare is called with the mutex held. The desired document's number continues
// after whatever any instance reports, so that it only ever grows there.
func (c *Client) compare(inst *instance) {
	inst.confirmed = 0
	d := c.desired
	if d == nil {
		return
	}
	same := inst.status.GetHash() == d.hash && inst.status.GetToken() == c.opts.Token
	if at := inst.status.GetGeneration(); at > d.generation && same {
		c.renumber(at)
	} else if at >= d.generation && !same {
		c.renumber(at + 1)
	}
	if same && inst.status.GetGeneration() == c.desired.generation {
		inst.confirmed, inst.rejected = c.desired.generation, nil
	}
}

// renumber raises the desired generation; what Set returned earlier is smaller,
// so Wait for it is still right.
func (c *Client) renumber(generation uint64) {
	c.desired = &desired{doc: c.desired.doc, hash: c.desired.hash, generation: generation}
	for _, inst := range c.instances {
		inst.confirmed = 0
	}
}

// sync pushes once if the instance does not run the desired document. An error
// means that the connection is of no use.
func (c *Client) sync(ctx context.Context, inst *instance, rpc wire.RouterClient) error {
	request, target := c.request(inst)
	if request == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, applyWithin)
	defer cancel()
	began := time.Now()
	answer, err := rpc.Apply(ctx, request)
	if err != nil {
		return fmt.Errorf("push generation %d: %w", request.GetGeneration(), undecorated(err))
	}
	logger := klog.FromContext(ctx)
	rejection := answer.GetRejection()
	if rejection == nil {
		logger.V(2).Info("Router runs a new document", "generation", request.GetGeneration(), "whole", request.GetWhole(),
			"frontends", len(request.GetFrontends()), "removed", len(request.GetRemovedFrontends()), "took", time.Since(began))
	} else {
		logger.Info("Router refuses a document", "generation", request.GetGeneration(), "whole", request.GetWhole(),
			"reason", rejection.GetReason(), "detail", rejection.GetMessage())
	}
	c.update(func() { c.answered(inst, target, answer) })
	return nil
}

// request builds the next push, or nil when nothing is to be done now.
func (c *Client) request(inst *instance) (*wire.ApplyRequest, *desired) {
	c.mu.Lock()
	d := c.desired
	if d == nil || inst.status == nil || inst.confirmed == d.generation {
		c.mu.Unlock()
		return nil, nil
	}
	if r := inst.rejected; r != nil && r.Generation >= d.generation && time.Now().Before(inst.retryAt) {
		c.mu.Unlock()
		return nil, nil
	}
	base, reported := inst.pushed, inst.status
	c.mu.Unlock()

	request := &wire.ApplyRequest{
		Cluster: c.opts.Cluster, Identity: c.opts.Identity, Token: c.opts.Token,
		BaseGeneration: reported.GetGeneration(), Generation: d.generation, Hash: d.hash,
	}
	switch {
	case reported.GetHash() == d.hash: // the content is there; only number or token change
	case base != nil && reported.GetHash() == base.hash && reported.GetGeneration() == base.generation:
		delta := Diff(base.doc, d.doc)
		request.Groups, request.Frontends = groupsToWire(delta.Groups), frontendsToWire(delta.Frontends)
		request.RemovedGroups = delta.RemovedGroups
		for _, k := range delta.RemovedFrontends {
			request.RemovedFrontends = append(request.RemovedFrontends, keyToWire(k))
		}
		request.Routes = routesToWire(delta.Routes)
		for _, p := range delta.RemovedRoutes {
			request.RemovedRoutes = append(request.RemovedRoutes, PrefixToWire(p))
		}
	default:
		request.Whole = true
		request.Groups, request.Frontends = groupsToWire(d.doc.Groups), frontendsToWire(d.doc.Frontends)
		request.Routes = routesToWire(d.doc.Routes)
	}
	return request, d
}

// answered is called with the mutex held.
func (c *Client) answered(inst *instance, target *desired, answer *wire.ApplyResponse) {
	if s := answer.GetStatus(); s != nil {
		inst.status, inst.revision = s, s.GetRevision()
	}
	r := answer.GetRejection()
	switch {
	case r == nil:
		inst.pushed, inst.rejected = target, nil
	case Reason(r.GetReason()) == ReasonGeneration:
		// Somebody else pushed in between; the new status says what, and the
		// next turn of the loop uses it.
		inst.pushed = nil
	default:
		inst.pushed = nil
		inst.retryAt = time.Now().Add(repushAfter)
		inst.rejected = &RejectedError{
			Router: c.opts.Router, Endpoint: inst.endpoint, Generation: target.generation,
			Reason: Reason(r.GetReason()), Message: r.GetMessage(), Frontend: r.GetFrontend(), Service: r.GetService(),
		}
	}
	c.compare(inst)
}
