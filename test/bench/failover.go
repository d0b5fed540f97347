package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/onelb/onelb/test/lab"
)

const (
	probeEvery  = 10 * time.Millisecond
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
)

// watcher asks an address from the LAN in three ways at once: new UDP flows, new
// TCP connections with a request, and who-has questions that do not use the
// client's own ARP table.
type watcher struct {
	udp, http, whoHas *lab.Prober

	mu   sync.Mutex // guards dual
	dual int        // questions that two machines answered
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
	w.whoHas = lab.Probe(ctx, whoHasEvery, func(ctx context.Context) error { return w.ask(ctx, client, a) })
	return w
}

func (w *watcher) ask(ctx context.Context, client *lab.Host, a netip.Addr) error {
	ctx, cancel := context.WithTimeout(ctx, whoHasLimit)
	defer cancel()
	responders, err := client.WhoHas(ctx, lab.Private, a)
	switch {
	case err != nil:
		return err
	case len(responders) == 0:
		return errors.New("nobody answered")
	case len(responders) > 1:
		w.mu.Lock()
		w.dual++
		w.mu.Unlock()
	}
	return nil
}

// waitAnswer returns when all three are answered.
func (w *watcher) waitAnswer(ctx context.Context) error {
	return errors.Join(w.udp.WaitAnswer(ctx), w.http.WaitAnswer(ctx), w.whoHas.WaitAnswer(ctx))
}

// outages is what a watcher saw, in milliseconds; 0 is none.
type outages struct{ udp, http, whoHas, dual float64 }

func (o outages) client() float64 { return max(o.udp, o.http) }

// stop ends the probes. An outage that has not ended is an error.
func (w *watcher) stop() (outages, error) {
	var errs []error
	longest := func(name string, p *lab.Prober) float64 {
		r := p.Stop()
		if r.Longest.Open && r.Longest.Duration > 0 {
			errs = append(errs, fmt.Errorf("%s: not answered at the end: %v", name, r))
		}
		return ms(r.Longest.Duration)
	}
	o := outages{udp: longest("UDP", w.udp), http: longest("HTTP", w.http), whoHas: longest("who-has", w.whoHas)}
	w.mu.Lock()
	defer w.mu.Unlock()
	o.dual = float64(w.dual) * ms(whoHasEvery)
	return o, errors.Join(errs...)
}

// target is a Service over an L2 address whose endpoints are where the test says.
type target struct {
	d    *datacenter
	addr netip.Addr
}

// newTarget makes the Service; remove removes it.
func (d *datacenter) newTarget(ctx context.Context) (*target, error) {
	svc := service("failover", lanPool)
	svc.Spec.Selector = nil
	if err := d.setEndpoints(ctx, svc, d.pods); err != nil {
		return nil, err
	}
	c, err := d.create(ctx, svc)
	if err != nil {
		return nil, err
	}
	return &target{d: d, addr: c.addr}, nil
}

func (t *target) remove(ctx context.Context) error {
	svc := service("failover", lanPool)
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
	if err := t.d.setEndpoints(ctx, service("failover", lanPool), others); err != nil {
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

// measure runs one fault under probes.
func (t *target) measure(ctx context.Context, fault func(holder *lab.Node) error) (*lab.Node, outages, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	holder, w, err := t.prepare(ctx)
	if err != nil {
		return nil, outages{}, err
	}
	err = fault(holder)
	if err == nil {
		err = w.waitAnswer(ctx)
	}
	if err == nil {
		err = pause(ctx, afterFault)
	}
	o, serr := w.stop()
	return holder, o, errors.Join(err, serr)
}

// measurePowerOff loses the holder's machine, ten times, and has it back.
func measurePowerOff(ctx context.Context, b *bench) (err error) {
	d, err := b.sharedLab(ctx)
	if err != nil {
		return err
	}
	t, err := d.newTarget(ctx)
	if err != nil {
		return err
	}
	var udp, http []float64
	for i := range 10 {
		holder, o, err := t.measure(ctx, (*lab.Node).PowerOff)
		if err != nil {
			return fmt.Errorf("loss %d: %w", i+1, err)
		}
		b.say("  %s lost: UDP %.0f ms, HTTP %.0f ms, who-has %.0f ms", holder.ShortName(), o.udp, o.http, o.whoHas)
		udp, http = append(udp, o.udp), append(http, o.http)
		b.add("failover_poweroff", o.client())
		b.add("who_has_gap_poweroff", o.whoHas)
		b.add("dual_answer_poweroff", o.dual)
		back, err := t.comeBack(ctx, holder)
		if err != nil {
			return fmt.Errorf("return %d: %w", i+1, err)
		}
		b.add("failover_return", back.client())
		b.add("dual_answer_return", back.dual)
	}
	b.note("failover_poweroff", "the longer of UDP (median %g) and HTTP (median %g)", newRow("", "", udp, nil).Median, newRow("", "", http, nil).Median)
	return t.remove(ctx)
}

// comeBack boots the lost node under probes.
func (t *target) comeBack(ctx context.Context, n *lab.Node) (outages, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	w := t.d.watch(ctx, t.addr)
	err := n.PowerOn(ctx)
	if err == nil {
		err = pause(ctx, afterFault)
	}
	o, serr := w.stop()
	return o, errors.Join(err, serr)
}

// measureKillRestart kills the holder's agent and starts it at once.
func measureKillRestart(ctx context.Context, b *bench) error {
	d, err := b.sharedLab(ctx)
	if err != nil {
		return err
	}
	t, err := d.newTarget(ctx)
	if err != nil {
		return err
	}
	for i := range 5 {
		_, o, err := t.measure(ctx, func(n *lab.Node) error {
			if err := n.Agent().Kill(); err != nil {
				return err
			}
			return n.Agent().Start()
		})
		if err != nil {
			return fmt.Errorf("kill %d: %w", i+1, err)
		}
		b.add("failover_kill_restart", o.client())
		b.add("who_has_gap_kill_restart", o.whoHas)
		b.add("dual_answer_kill_restart", o.dual)
	}
	return t.remove(ctx)
}
