package ipam

import (
	"context"
	"io"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func quiet(ctx context.Context) context.Context {
	return klog.NewContext(ctx, textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(io.Discard))))
}

func range4(first string, size int) Range {
	return Range{Kind: RangeIP4, First4: addr(first), Size: size}
}

func range6(first string, size int) Range {
	return Range{Kind: RangeIP6, First6: addr(first), Size: size}
}

func pairs(first4, first6 string, size int) Range {
	return Range{Kind: RangeIP4IP6, First4: addr(first4), First6: addr(first6), Size: size}
}

// process is one running Manager.
type process struct {
	*Manager
	t      testing.TB
	life   *life
	client *client
	view   *view
	cancel context.CancelFunc
	done   chan error

	mu       sync.Mutex
	events   []Event
	statuses []PoolStatus
}

// start runs a Manager of cluster "c" with UID "uid" over cloud and store.
func start(t testing.TB, c *cloud, s *store, change func(*Options, *process)) *process {
	t.Helper()
	p := &process{t: t, done: make(chan error, 1), life: &life{}}
	ctx, cancel := context.WithCancel(quiet(context.Background()))
	p.cancel, p.life.end = cancel, cancel
	p.client = &client{cloud: c, user: "k8s", dead: p.life}
	p.view = s.view(p.life)
	o := Options{
		Networks: p.client, Records: p.view, Claims: p.view, Inventory: p.client, Cluster: "c", Identity: "uid",
		OnEvent: func(e Event) {
			p.mu.Lock()
			p.events = append(p.events, e)
			p.mu.Unlock()
		},
		OnStatus: func(s PoolStatus) {
			p.mu.Lock()
			p.statuses = append(p.statuses, s)
			p.mu.Unlock()
		},
	}
	if change != nil {
		change(&o, p)
	}
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	p.Manager = m
	s.mu.Lock()
	p.view.notify = m.Notify
	s.mu.Unlock()
	go func() { p.done <- m.Run(ctx) }()
	return p
}

// stop ends the process and waits for it.
func (p *process) stop() {
	p.t.Helper()
	p.cancel()
	p.view.stop()
	if err := <-p.done; err != nil {
		p.t.Errorf("Run: %v", err)
	}
}

// crash ends it so that nothing it still tries has an effect.
func (p *process) crash() {
	p.life.die()
	p.stop()
}

func (p *process) reasons() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for _, e := range p.events {
		all = append(all, e.Reason)
	}
	return all
}

func (p *process) wantEvent(reason string) {
	p.t.Helper()
	if !slices.Contains(p.reasons(), reason) {
		p.t.Errorf("no event %s, only %v", reason, p.reasons())
	}
}

func (p *process) countEvents(reason string) int {
	n := 0
	for _, r := range p.reasons() {
		if r == reason {
			n++
		}
	}
	return n
}

func (p *process) mustAllocate(pool string, f Family) Record {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	rec, err := p.Allocate(ctx, Request{Pool: pool, Family: f, Owner: Owner{Namespace: "default", Name: "web", UID: "1"}})
	if err != nil {
		p.t.Fatal(err)
	}
	return rec
}

func (p *process) allocateErr(r Request) error {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	rec, err := p.Allocate(ctx, r)
	if err == nil {
		p.t.Fatalf("allocated %s, wanted an error", rec.Address)
	}
	return err
}

// releaseAll lets go of an address as the rest of the controller does.
func (s *store) let(a netip.Addr, announced bool) {
	s.edit(a, func(r *Record) { r.Owners, r.Phase, r.Announced = nil, Releasing, announced })
}

func (p *process) mustBeReady(pool string) PoolStatus {
	p.t.Helper()
	settle()
	s, ok := p.PoolStatus(pool)
	if !ok || !s.Ready {
		p.t.Fatalf("pool %s is not ready: %+v", pool, s)
	}
	return s
}

// settle lets a second pass and everything come to rest.
func settle() {
	time.Sleep(time.Second)
	synctest.Wait()
}

func basePool(name string) PoolSpec {
	return PoolSpec{
		Name: name, Generation: 1, Network: NetworkQuery{Name: "public"},
		ChunkSize: 8, ReserveAhead: 4, Quarantine: 30 * time.Second,
	}
}
