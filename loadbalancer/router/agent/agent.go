package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/health"
	"github.com/onelb/onelb/loadbalancer/router/nft"
	"github.com/onelb/onelb/loadbalancer/router/returnpath"
	"github.com/onelb/onelb/loadbalancer/router/wire"
)

const (
	// firstAnswers is how long a start waits for the first probes, so that a
	// restart does not send connections to a backend that is known to be dead.
	firstAnswers = 300 * time.Millisecond
	// lookEvery is how often the ruleset's generation is compared.
	lookEvery = time.Second
	// refreshEvery is how often interfaces are read and addresses verified.
	refreshEvery = 10 * time.Second
	applyWithin  = 60 * time.Second
)

// Agent runs one instance of a router.
type Agent struct {
	opts    Options
	store   *store
	certs   *certificates
	health  *health.Checker
	replies *returnpath.Prober
	metrics *metrics

	requests chan request
	probed   chan struct{} // a backend changed
	links    chan struct{} // an interface changed
	turned   chan struct{} // the role changed

	// Only the loop touches these.
	state     state
	plan      *nft.Plan                           // that the kernel has; nil where all has to be planned anew
	judged    func(router.Check, netip.Addr) bool // which members pass their checks, by the plan
	probing   map[health.Target]bool
	public    map[string]bool         // interfaces that have public addresses
	addresses []netip.Addr            // of all frontends, sorted
	udp       map[router.Key]backends // as programmed
	routes    []*wire.Prefix          // that the machine has
	held      []netip.Addr            // public addresses
	routed    []Routed                // to their holders, if this is the master
	holding   int                     // addresses, of both kinds
	untried   bool                    // there may be backends whose replies were not tried
	failing   map[string]string       // what is wrong now, by kind
	restored  []string                // problems found at the start

	status statuses
	role   role
	served atomic.Pointer[map[netip.Addr]bool] // addresses of all frontends that are translated
}

type request struct {
	apply  *wire.ApplyRequest
	answer chan *wire.ApplyResponse
}

// New checks the options and reads the documents from disk. It starts nothing.
func New(o Options) (*Agent, error) {
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("router agent: %w", err)
	}
	if o.System == nil {
		o.System = func() error { return nil }
	}
	if o.Role == nil {
		o.Role = alone{}
	}
	a := &Agent{
		opts: o, requests: make(chan request), probed: make(chan struct{}, 1), links: make(chan struct{}, 1), turned: make(chan struct{}, 1),
		role:  role{changed: make(chan struct{})},
		state: state{}, failing: map[string]string{}, metrics: newMetrics(o.Registerer),
	}
	var err error
	if a.certs, err = openCertificates(o); err != nil {
		return nil, fmt.Errorf("router agent: %w", err)
	}
	if a.store, err = openStore(o.StateDir); err != nil {
		return nil, fmt.Errorf("router agent: %w", err)
	}
	o.Health.Changed = func() { poke(a.probed) }
	if a.health, err = health.New(o.Health); err != nil {
		return nil, fmt.Errorf("router agent: %w", err)
	}
	o.Replies.Changed = func() { poke(a.probed) }
	if a.replies, err = returnpath.New(o.Replies); err != nil {
		return nil, fmt.Errorf("router agent: %w", err)
	}
	documents, problems, err := a.store.load()
	if err != nil {
		return nil, fmt.Errorf("router agent: %w", err)
	}
	for _, d := range documents {
		d, problem := a.withoutTaken(d)
		if problem != "" {
			problems = append(problems, problem)
		}
		a.state[d.Cluster] = newOwned(d)
	}
	a.restored = problems
	a.status.init()
	return a, nil
}

// poke sets a flag that the loop clears.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run restores what is on disk, then serves until the context ends. Rules and
// addresses stay in the kernel.
func (a *Agent) Run(ctx context.Context) error {
	logger := klog.FromContext(ctx).WithValues("router", a.opts.Name)
	ctx = klog.NewContext(ctx, logger)
	for _, p := range a.restored {
		logger.Error(errors.New(p), "Stored document is lost")
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.health.Run(ctx) })
	g.Go(func() error { return a.replies.Run(ctx) })
	g.Go(func() error { return a.opts.Addresses.Run(ctx, func() { poke(a.links) }) })
	g.Go(func() error { return a.opts.Role.Run(ctx, func(master bool) { a.setRole(ctx, master) }) })
	for _, endpoint := range a.opts.Peers {
		g.Go(func() error { return a.follow(ctx, endpoint) })
	}
	g.Go(func() error { return a.loop(ctx) })
	g.Go(func() error { return a.serve(ctx) })
	err := errors.Join(g.Wait(), a.opts.Table.Close())
	a.store.close()
	if err != nil {
		return fmt.Errorf("router agent: %w", err)
	}
	return nil
}

// loop owns the state.
func (a *Agent) loop(ctx context.Context) error {
	a.restore(ctx)
	look, refresh := time.NewTicker(lookEvery), time.NewTicker(refreshEvery)
	defer look.Stop()
	defer refresh.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-a.requests:
			r.answer <- a.apply(ctx, r.apply)
			if a.failing["storage"] == "" { // else with the next refresh: a full disk stays full for a while
				a.tidy()
			}
		case <-a.probed:
			a.reprogram(ctx)
		case <-a.turned:
			a.turn(ctx)
		case <-a.links:
			a.refresh(ctx)
		case <-refresh.C:
			a.refresh(ctx)
		case <-look.C:
			a.look(ctx)
		}
	}
}

// restore brings the documents on disk into force.
func (a *Agent) restore(ctx context.Context) {
	a.role.whenKnown(ctx)
	a.inspect()
	if a.probe(); len(a.probing) > 0 {
		deadline := time.After(firstAnswers)
	wait:
		for !a.allProbed() {
			select {
			case <-a.probed:
			case <-deadline:
				break wait
			case <-ctx.Done():
				return
			}
		}
	}
	if len(a.state) > 0 {
		klog.FromContext(ctx).Info("Restoring documents from disk", "clusters", len(a.state))
	}
	a.reprogram(ctx)
}

func (a *Agent) allProbed() bool {
	for t := range a.probing {
		if a.health.Result(t).State == health.Unknown {
			return false
		}
	}
	return true
}

// apply takes one request from a client.
func (a *Agent) apply(ctx context.Context, r *wire.ApplyRequest) *wire.ApplyResponse {
	ctx, cancel := context.WithTimeout(ctx, applyWithin)
	defer cancel()
	began := time.Now()
	refusal := unsupported(r, a.opts.Version)
	var next step
	if refusal == nil {
		next, refusal = a.state.next(r, a.where)
	}
	if refusal == nil && next.changed {
		refusal = a.admitRoutes(next.doc.Document)
	}
	if refusal == nil && next.changed {
		refusal = a.admitRouted(next)
	}
	if refusal == nil && next.changed {
		refusal = a.change(ctx, next, r)
	}
	answer := &wire.ApplyResponse{}
	if refusal != nil {
		klog.FromContext(ctx).Info("Document refused", "cluster", r.GetCluster(), "generation", r.GetGeneration(),
			"reason", refusal.reason, "detail", refusal.message)
		a.metrics.refused(refusal.reason)
		answer.Rejection = refusal.wire(r.GetGeneration())
		if o := a.state[r.GetCluster()]; o != nil && refusal.reason != router.ReasonGeneration {
			o.rejected = answer.GetRejection()
		}
	} else if d := next.doc; next.changed {
		a.metrics.applied(time.Since(began))
		klog.FromContext(ctx).V(2).Info("Document in force", "cluster", d.Cluster, "generation", d.Generation,
			"frontends", len(d.Frontends), "groups", len(d.Groups), "took", time.Since(began))
	}
	a.publish()
	answer.Status = a.status.get(r.GetCluster())
	return answer
}

// where looks at the interfaces once more before it says that none fits.
func (a *Agent) where(address netip.Addr) (string, error) {
	name, err := a.opts.Addresses.Where(address)
	if err == nil {
		return name, nil
	}
	if err := a.opts.Addresses.Refresh(); err != nil {
		return "", err
	}
	return a.opts.Addresses.Where(address)
}

// change brings a document into force: what keeps it is made ready, the kernel
// takes it, then it is on disk. What fails leaves everything as it was.
func (a *Agent) change(ctx context.Context, next step, r *wire.ApplyRequest) *refusal {
	d := next.doc
	kept, err := a.store.prepare(d.Document, r)
	if err != nil {
		return refuse(router.ReasonStorage, "%v", err)
	}
	old := a.state[d.Cluster]
	if err := a.enforce(ctx, old, next); err != nil {
		kept.abort()
		a.back(ctx, d.Cluster, old)
		return refuse(router.ReasonKernel, "%v", err)
	}
	if err := kept.commit(); err != nil {
		a.back(ctx, d.Cluster, old)
		return refuse(router.ReasonStorage, "%v", err)
	}
	a.note("program", nil)
	return nil
}

// enforce has the kernel do what a document says. A document that differs in a few
// frontends costs what these cost.
func (a *Agent) enforce(ctx context.Context, old *owned, next step) error {
	if old == nil || next.delta == nil {
		a.state[next.doc.Cluster] = newOwned(next.doc)
		return a.program(ctx)
	}
	a.state[next.doc.Cluster] = &owned{doc: next.doc, hash: next.doc.Hash(), targets: old.targets.after(old.doc.Document, next.delta)}
	if done, err := a.edit(ctx, old.doc.Document, next); done || err != nil {
		return err
	}
	return a.program(ctx)
}

// back returns to the document before. The table may be as it was, and addresses
// half way.
func (a *Agent) back(ctx context.Context, cluster string, old *owned) {
	if old == nil {
		delete(a.state, cluster)
	} else {
		a.state[cluster] = old
	}
	a.note("program", a.program(ctx))
}

// tidy writes snapshots in place of journals that have grown long, or that a
// failed write has left in doubt. It runs when nobody waits.
func (a *Agent) tidy() {
	var errs []error
	for _, cluster := range slices.Sorted(maps.Keys(a.state)) {
		if a.store.wantsSnapshot(cluster) {
			errs = append(errs, a.store.save(a.state[cluster].doc.Document))
		}
	}
	a.note("storage", errors.Join(errs...))
}

// reprogram brings the state into force again, after something around it changed.
func (a *Agent) reprogram(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, applyWithin)
	defer cancel()
	a.note("program", a.program(ctx))
	a.publish()
}

// refresh reads the interfaces anew; addresses and hairpin rules follow them.
func (a *Agent) refresh(ctx context.Context) {
	a.tidy()
	a.inspect()
	a.reprogram(ctx)
	a.note("firewall", a.opts.Table.Firewalls(ctx, a.traffic()))
	a.publish()
}

// turn takes the addresses or lets go of them, after the role has changed. Rules are
// there in either role.
func (a *Agent) turn(ctx context.Context) {
	a.note("interfaces", a.opts.Addresses.Refresh())
	a.reprogram(ctx)
}

// inspect looks at what surrounds the agent.
func (a *Agent) inspect() {
	a.note("interfaces", a.opts.Addresses.Refresh())
	a.note("system", a.opts.System())
	a.lookAtRoutes()
	a.note("certificate", a.certs.trouble(time.Now()))
	a.metrics.certificates(a.certs.expiry())
}

// look repairs the table if somebody else changed it, and has new backends tried.
func (a *Agent) look(ctx context.Context) {
	if a.untried {
		a.untried = false
		a.replies.Set(a.repliesOf(a.state.documents(), a.held))
	}
	changed, err := a.opts.Table.Repair(ctx)
	a.note("repair", err)
	if changed {
		a.metrics.repairs.Inc()
		klog.FromContext(ctx).Info("Tables were changed by somebody else and are repaired", "err", err)
	}
	if changed || err != nil {
		a.publish()
	}
}

// note remembers whether something is wrong, for the clients' status.
func (a *Agent) note(kind string, err error) {
	a.metrics.problem(kind, err != nil)
	if err == nil {
		delete(a.failing, kind)
		return
	}
	if text := err.Error(); a.failing[kind] != text {
		a.failing[kind] = text
		klog.Background().Error(err, "Router agent cannot do its work", "router", a.opts.Name, "part", kind)
	}
}

// program makes the kernel do what the state says.
func (a *Agent) program(ctx context.Context) error {
	documents := a.state.documents()
	a.probe()
	healthy := a.healthy()
	addresses, routed := a.split(documents)
	inner, networks := a.surroundings(addressesOf(documents))
	plan := nft.New(nft.Input{Documents: documents, Healthy: healthy, Inner: inner, Networks: networks, Elsewhere: a.replies.Elsewhere()})
	a.route(ctx, documents)
	a.plan = nil // until the kernel has it
	if err := a.opts.Table.Apply(ctx, plan); err != nil {
		if master, _ := a.role.get(); !master { // whatever the rules are, another instance has the addresses
			err = errors.Join(err, a.hold(ctx, addresses, routed))
		}
		return err
	}
	if err := a.hold(ctx, addresses, routed); err != nil {
		return err // without a plan, the next change looks at all addresses again
	}
	a.plan, a.judged = plan, healthy
	a.untried = true
	a.forget(ctx, documents, healthy)
	a.metrics.running(plan.Counts(), a.holding)
	return nil
}

// hold has this instance hold the frontends' addresses if it is the master.
func (a *Agent) hold(ctx context.Context, addresses []netip.Addr, routed []Routed) error {
	served := make(map[netip.Addr]bool, len(addresses))
	for _, address := range addresses {
		served[address] = true
	}
	a.served.Store(&served)
	a.addresses = addresses
	held, ways := addresses, routed
	if master, _ := a.role.get(); !master {
		held, ways = nil, nil
	}
	err := a.opts.Addresses.Hold(ctx, held)
	// As with routes to pods: an inner interface that is down takes no others with it. Nor
	// does an address that cannot be held.
	a.note("routed addresses", a.opts.Addresses.Route(ctx, ways))
	a.held, a.routed, a.holding = held, routed, len(held)+len(ways)
	return err
}

// surroundings are the interfaces that hold no public address, and all networks.
func (a *Agent) surroundings(addresses []netip.Addr) (inner []string, networks []netip.Prefix) {
	a.public = map[string]bool{}
	for _, address := range addresses {
		if name, err := a.opts.Addresses.Where(address); err == nil {
			a.public[name] = true
		}
	}
	for _, i := range a.opts.Addresses.Interfaces() {
		networks = append(networks, i.Networks...)
		if !a.public[i.Name] && len(i.Networks) > 0 {
			inner = append(inner, i.Name)
		}
	}
	return inner, networks
}
