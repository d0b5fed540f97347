package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/onelb/onelb/test/lab"
	"github.com/onelb/onelb/test/lab/witness"
)

const (
	probeEvery  = 5 * time.Millisecond
	whoHasEvery = 40 * time.Millisecond
	// whoHasLimit ends a question before the next one: an answer does not say
	// which question it is for.
	whoHasLimit = whoHasEvery - 2*time.Millisecond
	// calm is how long the probes run before a fault, all answered.
	calm = time.Second
	// syncProxy is how long kube-proxy may take to see other endpoints.
	syncProxy = 2500 * time.Millisecond
	// afterFault is how long the probes go on once the Service is back, so that
	// a second outage would be seen.
	afterFault = 3 * time.Second
	// recovery is how long all may take to be well again after a fault.
	recovery = 2 * time.Minute
)

// watcher asks an address from the LAN in three ways at once: new UDP flows, new
// TCP connections with a request, and who-has questions that do not use the
// client's own ARP table.
type watcher struct {
	udp, http *lab.Prober
	whoHas    *witness.Wire
}

func (d *datacenter) watch(ctx context.Context, a netip.Addr) *watcher {
	w := &watcher{}
	client := d.LAN()
	w.udp = lab.Probe(ctx, probeEvery, func(ctx context.Context) error {
		_, err := client.UDP(ctx, a, port)
		return err
	})
	w.http = lab.Probe(ctx, probeEvery, func(ctx context.Context) error {
		_, err := client.HTTPGet(ctx, a, port)
		return err
	})
	w.whoHas = d.watchWire(ctx, a)
	return w
}

func (d *datacenter) watchWire(ctx context.Context, a netip.Addr) *witness.Wire {
	return witness.Watch(ctx, witness.Options{
		Client: d.LAN(), Network: lab.Private, Address: a, Every: whoHasEvery, Limit: whoHasLimit,
	})
}

// waitMoved returns when another node than before answers.
func (w *watcher) waitMoved(ctx context.Context, before *lab.Node) error {
	old := before.Link(lab.Private).MAC().String()
	return until(ctx, "another node to answer", func(context.Context) error {
		if last := w.whoHas.Last(); last == "" || last == old {
			return fmt.Errorf("%q answered last", last)
		}
		return nil
	})
}

// waitAnswer returns when all three are answered.
func (w *watcher) waitAnswer(ctx context.Context) error {
	return errors.Join(w.udp.WaitAnswer(ctx), w.http.WaitAnswer(ctx), w.whoHas.WaitAnswer(ctx))
}

// outages is what a watcher saw, in milliseconds; 0 is none.
type outages struct {
	udp, http, whoHas, dual float64
	lost                    []string // how the longest outage of each kind began
}

func (o outages) client() float64 { return max(o.udp, o.http) }

// stop ends the probes. An outage that has not ended is an error.
func (w *watcher) stop() (outages, error) {
	var errs []error
	var lost []string
	longest := func(name string, p *lab.Prober) float64 {
		r := p.Stop()
		if r.Longest.Err != nil {
			lost = append(lost, fmt.Sprintf("%s: %d of %d lost, first: %v", name, r.Failed, r.Sent, r.Longest.Err))
		}
		if r.Longest.Open && r.Longest.Duration > 0 {
			errs = append(errs, fmt.Errorf("%s: not answered at the end: %v", name, r))
		}
		return ms(r.Longest.Duration)
	}
	o := outages{udp: longest("UDP", w.udp), http: longest("HTTP", w.http), whoHas: longest("who-has", w.whoHas.Prober)}
	o.dual, o.lost = float64(w.whoHas.Dual())*ms(whoHasEvery), lost
	return o, errors.Join(errs...)
}

// target is a Service over an L2 address whose endpoints are where the test says.
type target struct {
	d    *datacenter
	addr netip.Addr
	pool string
}

func (t *target) service() *corev1.Service { return service("failover", t.pool) }

// newTarget makes the Service; remove removes it.
func (d *datacenter) newTarget(ctx context.Context, pool string) (*target, error) {
	t := &target{d: d, pool: pool}
	svc := t.service()
	svc.Spec.Selector = nil
	if d.manyPorts {
		svc.Spec.AllocateLoadBalancerNodePorts = new(false)
	}
	if err := d.setEndpoints(ctx, svc, d.pods); err != nil {
		return nil, err
	}
	c, err := d.create(ctx, svc)
	if err != nil {
		return nil, err
	}
	t.addr = c.addr
	return t, nil
}

func (t *target) remove(ctx context.Context) error {
	svc := t.service()
	return errors.Join(t.d.DeleteService(ctx, namespace, svc.Name), t.d.removeEndpoints(ctx, svc))
}

// prepare finds the holder, keeps the endpoints off it, so that only the way of
// the address counts, and starts the probes.
func (t *target) prepare(ctx context.Context) (*lab.Node, *watcher, error) {
	holder, err := t.d.holder(ctx, t.addr)
	if err != nil {
		return nil, nil, err
	}
	others := slices.DeleteFunc(slices.Clone(t.d.pods), func(p *lab.Pod) bool { return p.Node() == holder })
	if err := t.d.setEndpoints(ctx, t.service(), others); err != nil {
		return nil, nil, err
	}
	if err := pause(ctx, syncProxy); err != nil {
		return nil, nil, err
	}
	w := t.d.watch(ctx, t.addr)
	if err := pause(ctx, calm); err != nil {
		_, serr := w.stop()
		return nil, nil, errors.Join(err, serr)
	}
	if r := w.http.Result(); r.Failed > 0 {
		_, serr := w.stop()
		return nil, nil, errors.Join(fmt.Errorf("%s failed before the fault: %v", t.addr, r), serr)
	}
	return holder, w, nil
}

// measure runs one fault under probes. The fault has had its effect when it
// returns.
func (t *target) measure(ctx context.Context, limit time.Duration, fault func(ctx context.Context, holder *lab.Node, w *watcher) error) (*lab.Node, outages, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	holder, w, err := t.prepare(ctx)
	if err != nil {
		return nil, outages{}, err
	}
	err = fault(ctx, holder, w)
	if err == nil {
		err = w.waitAnswer(ctx)
	}
	if err == nil {
		err = pause(ctx, afterFault)
	}
	o, serr := w.stop()
	return holder, o, errors.Join(err, serr)
}

// waitWell returns when all agents see each other and the API server names the
// node that answers.
func (t *target) waitWell(ctx context.Context) error {
	if err := t.d.WaitReady(ctx); err != nil {
		return err
	}
	if err := t.d.WaitPeers(ctx); err != nil {
		return err
	}
	return until(ctx, "the holder to be known", func(ctx context.Context) error {
		holder, err := t.d.holder(ctx, t.addr)
		if err != nil {
			return err
		}
		ask, cancel := context.WithTimeout(ctx, 4*whoHasLimit)
		defer cancel()
		found, err := t.d.LAN().WhoHas(ask, lab.Private, t.addr)
		if err == nil && (len(found) != 1 || found[0].MAC.String() != holder.Link(lab.Private).MAC().String()) {
			err = fmt.Errorf("%d answer, the API server names %s", len(found), holder.ShortName())
		}
		return err
	})
}
