package loadbalancer

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/loadbalancer/router"
)

const (
	// gather is how long a change waits for others, so that a burst of Services
	// is a handful of documents. It is part of a Service's way to its address.
	gather = 5 * time.Millisecond
	// recheck is how often a router's state is looked at without a reason.
	recheck = 5 * time.Second
	// lostAfter is how long an instance of a router may be unreachable before
	// the release of addresses goes on without its word.
	lostAfter = 5 * time.Minute
)

// routerSync keeps one router's document current: one goroutine builds it from
// the watched objects whenever somebody asks, and everybody who asked before
// the build began waits for that build.
type routerSync struct {
	name     string
	client   RouterClient
	build    func(name string) router.Document
	progress func() // something that waited for the router may go on

	kick chan struct{}
	took time.Duration // of the last build; the loop's own

	mu      sync.Mutex // guards all below
	waiters []chan uint64
	sent    []sentDocument // not yet known to run everywhere, oldest first
	running map[string]struct{}
	known   bool                   // running says what every instance has
	tooOld  map[types.UID]*leftOut // Services that the router cannot serve
	lost    map[string]time.Time   // endpoint → unreachable since
}

// sentDocument is what release has to know of a document.
type sentDocument struct {
	generation uint64
	addresses  map[string]struct{}
}

func newRouterSync(name string, c RouterClient, build func(string) router.Document, progress func()) *routerSync {
	return &routerSync{
		name: name, client: c, build: build, progress: progress,
		kick: make(chan struct{}, 1), lost: map[string]time.Time{},
	}
}

// Kick asks for a new look; it never blocks.
func (r *routerSync) Kick() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// Sync has the router run a document that is built after this call began, and
// returns its generation.
func (r *routerSync) Sync(ctx context.Context) (uint64, error) {
	built := make(chan uint64, 1)
	r.mu.Lock()
	r.waiters = append(r.waiters, built)
	r.mu.Unlock()
	r.Kick()
	select {
	case generation := <-built:
		if err := r.client.Wait(ctx, generation); err != nil {
			return 0, err // no generation: the same failure is one event
		}
		return generation, nil
	case <-ctx.Done():
		return 0, fmt.Errorf("router %s: wait for a document: %w", r.name, ctx.Err())
	}
}

// refusal says why the router, which has the document, leaves a Service's ports of an
// address out; nil if it does not.
func (r *routerSync) refusal(svc *corev1.Service, a netip.Addr) error {
	if c, ok := r.client.(Refuser); ok {
		return c.Refusal(a, svc.Namespace+"/"+svc.Name)
	}
	return nil
}

// MayHave reports whether an instance of the router may still have an address
// that no Service has any more.
func (r *routerSync) MayHave(address string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.known {
		return true
	}
	if _, ok := r.running[address]; ok {
		return true
	}
	for _, d := range r.sent {
		if _, ok := d.addresses[address]; ok {
			return true
		}
	}
	return false
}

// settle waits for the first word of the router, since the document depends on
// what it has routes to, but not for one that is away.
func (r *routerSync) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleWait)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !slices.ContainsFunc(r.client.State().Instances, func(i router.InstanceState) bool { return i.Reachable }) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Run builds documents until ctx ends.
func (r *routerSync) Run(ctx context.Context) {
	r.settle(ctx)
	tick := time.NewTicker(recheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.kick:
			select {
			case <-time.After(max(gather, r.took)):
			case <-ctx.Done():
				return
			}
			r.rebuild()
			r.follow(ctx)
		case <-tick.C:
			r.rebuild()
		}
		r.acknowledge()
	}
}

func (r *routerSync) rebuild() {
	r.mu.Lock()
	waiters := r.waiters
	r.waiters = nil
	r.mu.Unlock()
	began := time.Now()
	d := r.build(r.name)
	// A set of Services that takes long to look at is looked at less often:
	// building takes half of one core at most.
	r.took = time.Since(began)
	generation := r.client.Set(d)
	addresses := map[string]struct{}{}
	for _, f := range d.Frontends {
		addresses[f.Address.String()] = struct{}{}
	}
	r.mu.Lock()
	if n := len(r.sent); n == 0 || r.sent[n-1].generation != generation {
		r.sent = append(r.sent, sentDocument{generation, addresses})
	}
	r.mu.Unlock()
	for _, w := range waiters {
		w <- generation
	}
}

// follow waits, beside the loop, until the latest document runs, so that what
// waits for the router's word goes on at once.
func (r *routerSync) follow(ctx context.Context) {
	r.mu.Lock()
	var latest uint64
	if n := len(r.sent); n > 0 {
		latest = r.sent[n-1].generation
	}
	r.mu.Unlock()
	if latest == 0 {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(ctx, recheck)
		defer cancel()
		if err := r.client.Wait(ctx, latest); err == nil {
			r.acknowledge()
		}
	}()
}

// acknowledge drops from sent what every instance has left behind.
func (r *routerSync) acknowledge() {
	generation, all := r.lowest(r.client.State(), time.Now())
	if !all {
		return
	}
	r.mu.Lock()
	advanced := false
	for len(r.sent) > 0 && r.sent[0].generation <= generation {
		r.running, r.known, advanced = r.sent[0].addresses, true, true
		r.sent = r.sent[1:]
	}
	r.mu.Unlock()
	if advanced {
		r.progress()
	}
}

// lowest is the lowest of our generations that any instance runs. It is unknown while
// an instance is unreachable, unless it has been so for long. The word of one that was
// the master when it was last heard of is waited for until another one is: its kernel
// goes on answering without the agent. One that was never heard, as after a change of
// leader, may be that master.
func (r *routerSync) lowest(s router.State, now time.Time) (uint64, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var low uint64
	reachable := 0
	master := slices.ContainsFunc(s.Instances, func(i router.InstanceState) bool { return i.Master })
	for _, i := range s.Instances {
		if !i.Reachable {
			since, ok := r.lost[i.Endpoint]
			if !ok {
				r.lost[i.Endpoint], since = now, now
			}
			if now.Sub(since) < lostAfter || (i.WasMaster || i.Version == "") && !master {
				return 0, false
			}
			klog.V(2).InfoS("An instance of a router is lost; its word is no longer waited for", "router", r.name, "endpoint", i.Endpoint, "since", since)
			continue
		}
		delete(r.lost, i.Endpoint)
		if reachable == 0 || i.Confirmed < low {
			low = i.Confirmed
		}
		reachable++
	}
	return low, reachable > 0
}
