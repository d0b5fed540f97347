package ipam

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"
)

// Attributes of a reservation that say whose it is.
const (
	AttributeCluster    = "ONELB_CLUSTER"
	AttributeClusterUID = "ONELB_CLUSTER_UID"
	AttributePool       = "ONELB_POOL"
)

// Defaults of Options and PoolSpec.
const (
	DefaultInterval    = 5 * time.Minute
	DefaultOrphanGrace = 10 * time.Minute
	DefaultFence       = time.Minute
	DefaultAdopt       = 10 * time.Second
	DefaultFormerGrace = 24 * time.Hour
	DefaultOwnersDelay = 5 * time.Second
	DefaultChunkSize   = 8
	// DefaultQuarantine is that of pools that are known from records alone.
	DefaultQuarantine = 30 * time.Second
)

// maxName is the longest name that OpenNebula gives a network.
const maxName = 128

// Options of a Manager.
type Options struct {
	Networks Networks
	// Records is asked for records while locks of the Manager are held: of the
	// Manager it may call Notify only.
	Records Records
	// Claims is needed for pools without reservation.
	Claims Claims
	// Inventory finds reservations that no pool wants. Nil: nobody looks for them.
	Inventory Inventory
	// ReportOrphans leaves holds without record and reservations that no pool
	// wants as they are, and makes an event of each.
	ReportOrphans bool
	// Cluster is the first part of the names of reservations.
	Cluster string
	// Identity is the cluster's UID. A reservation that carries another one
	// is never touched.
	Identity string
	// OnStatus is called when a pool's status has changed, OnEvent at
	// transitions. Both may be nil, are called by several goroutines at once
	// (in order for one pool), and delay their pool while they run.
	OnStatus func(PoolStatus)
	OnEvent  func(Event)
	// Interval between two comparisons with OpenNebula. Default 5 min.
	Interval time.Duration
	// OrphanGrace is for how long a hold without record is left alone.
	// Default 10 min.
	OrphanGrace time.Duration
	// Fence is for how long addresses that leave the reservation keep a
	// record, so that a process with an outdated view cannot give them; see
	// the package comment. Longer than any view of Records is outdated, and
	// than the longest call. Default 1 min.
	Fence time.Duration
	// Adopt is for how long a reservation of our name must have been without
	// identity before we take it for one that we made and crashed. Who makes
	// one gives it its identity within half of that or not at all. Default 10 s.
	Adopt time.Duration
	// FormerGrace is for how long a hold without record is kept for the owner
	// that OpenNebula has on record: long enough to bring back everything that
	// stood in a lost store. Default 24 h. OrphanGrace comes after it.
	FormerGrace time.Duration
	// OwnersDelay is for how long changes of owners are collected before they
	// are written into OpenNebula. Default 5 s.
	OwnersDelay time.Duration
}

// Manager keeps the reservations of all pools and gives their addresses.
type Manager struct {
	opts     Options
	networks Networks
	records  Records
	// clock orders what we did to records against what we read of them.
	clock   atomic.Uint64
	scans   atomic.Uint64
	running atomic.Bool
	// adopted is when a reservation was last found to be ours that was foreign
	// before, in nanoseconds of Unix time; 0: never.
	adopted atomic.Int64
	notify  chan struct{} // records have changed
	respec  chan struct{} // the set of pools has changed

	mu     sync.Mutex // guards all below
	pools  map[string]*pool
	known  bool // SetPools was called
	estate Estate

	comparedAt time.Time // of compareAll, which only Run's goroutine calls
}

// New checks the options. It starts nothing.
func New(o Options) (*Manager, error) {
	var errs []error
	if o.Networks == nil || o.Records == nil {
		errs = append(errs, errors.New("ipam: Networks and Records are required"))
	}
	if o.Cluster == "" || o.Identity == "" {
		errs = append(errs, errors.New("ipam: the cluster needs a name and an identity"))
	}
	if o.Interval < 0 || o.OrphanGrace < 0 || o.Fence < 0 || o.Adopt < 0 || o.FormerGrace < 0 || o.OwnersDelay < 0 {
		errs = append(errs, errors.New("ipam: a duration is negative"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if o.Interval == 0 {
		o.Interval = DefaultInterval
	}
	if o.OrphanGrace == 0 {
		o.OrphanGrace = DefaultOrphanGrace
	}
	if o.Fence == 0 {
		o.Fence = DefaultFence
	}
	if o.Adopt == 0 {
		o.Adopt = DefaultAdopt
	}
	if o.FormerGrace == 0 {
		o.FormerGrace = DefaultFormerGrace
	}
	if o.OwnersDelay == 0 {
		o.OwnersDelay = DefaultOwnersDelay
	}
	return &Manager{
		opts: o, networks: o.Networks, records: o.Records, pools: map[string]*pool{},
		notify: make(chan struct{}, 1), respec: make(chan struct{}, 1),
	}, nil
}

// SetPools sets the whole set of pools; names are unique. It may be called at
// any time, again with the same set too. A pool that is no longer in the set
// gives nothing any more, serves its releases, gives its reservation back when
// it has no records left, and is then forgotten. So is one that only records
// name: call it with the complete set only.
func (m *Manager) SetPools(specs []PoolSpec) {
	m.mu.Lock()
	m.known = true
	wanted := map[string]bool{}
	for _, s := range specs {
		wanted[s.Name] = true
		p, ok := m.pools[s.Name]
		if !ok {
			p = newPool(m, s.Name)
			m.pools[s.Name] = p
		}
		p.setSpec(s.clone())
	}
	for name, p := range m.pools {
		if !wanted[name] {
			p.setAbsent()
		}
	}
	m.mu.Unlock()
	poke(m.respec)
	m.Notify()
}

// Notify says that records have changed. Many calls cause few looks.
func (m *Manager) Notify() { poke(m.notify) }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// PoolStatus returns the status of a pool, also of one that is being removed.
func (m *Manager) PoolStatus(name string) (PoolStatus, bool) {
	p, ok := m.pool(name)
	if !ok {
		return PoolStatus{}, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status(), true
}

// Statuses returns the status of every pool, sorted by name.
func (m *Manager) Statuses() []PoolStatus {
	var all []PoolStatus
	for _, p := range m.sorted() {
		p.mu.Lock()
		all = append(all, p.status())
		p.mu.Unlock()
	}
	return all
}

// Offers reports whether the address is one that the pool could give, used or
// not: in a range of its network and within its limits. False while the
// network is not known.
func (m *Manager) Offers(name string, a netip.Addr) bool {
	p, ok := m.pool(name)
	if !ok {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.offers(a)
}

func (m *Manager) pool(name string) (*pool, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, ok := m.pools[name]
	return p, ok
}

func (m *Manager) sorted() []*pool {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]*pool, 0, len(m.pools))
	for _, p := range m.pools {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *pool) int {
		if a.name < b.name {
			return -1
		}
		return 1
	})
	return all
}

// Run keeps the pools until ctx ends, and returns when all it started has
// ended. It is called once.
func (m *Manager) Run(ctx context.Context) error {
	if !m.running.CompareAndSwap(false, true) {
		return errors.New("ipam: Run is called once")
	}
	var keepers sync.WaitGroup
	defer keepers.Wait()
	if m.opts.Inventory != nil {
		keepers.Go(func() { m.survey(ctx) })
	}
	started := map[*pool]bool{}
	tick := time.NewTicker(m.opts.Fence / 4)
	defer tick.Stop()
	for {
		pause := m.scan(ctx)
		for _, p := range m.sorted() {
			if !started[p] {
				started[p] = true
				keepers.Go(func() { newKeeper(p).run(ctx) })
			}
		}
		if !sleep(ctx, pause) || !m.wait(ctx, tick.C) {
			return nil
		}
		m.forget(started)
	}
}

// scanGap is the least time between two looks at the records, scanShare the
// part of the time that may be spent on looking. With 10,000 records a look takes
// some 10 ms and leaves 3 MB of garbage, and addresses are given without it.
const (
	scanGap   = 10 * time.Millisecond
	scanShare = 20
)

// wait returns true when it is time to look again, false when ctx has ended.
func (m *Manager) wait(ctx context.Context, tick <-chan time.Time) bool {
	select {
	case <-ctx.Done():
		return false
	case <-m.respec:
	case <-m.notify:
	case <-tick:
	}
	return true
}

// scan reads all records and hands each pool its own. It returns for how long
// to leave it at that.
func (m *Manager) scan(ctx context.Context) time.Duration {
	start := time.Now()
	since := m.clock.Load()
	by := byPool(m.records.List())
	m.adoptUnknown(ctx, by)
	id := m.scans.Add(1)
	for _, p := range m.sorted() {
		p.observe(by[p.name], since, id)
	}
	m.compareAll()
	return max(scanGap, scanShare*time.Since(start))
}

// byPool splits records by their pool, in the order that they have. The parts
// share memory with the list: with thousands of records a copy for each look
// would be most of what the garbage collector has to do.
func byPool(all []Record) map[string][]Record {
	slices.SortStableFunc(all, func(a, b Record) int { return cmp.Compare(a.Pool, b.Pool) })
	by := map[string][]Record{}
	for start := 0; start < len(all); {
		end := start + 1
		for end < len(all) && all[end].Pool == all[start].Pool {
			end++
		}
		by[all[start].Pool] = all[start:end:end]
		start = end
	}
	return by
}

// adoptUnknown makes a pool to be removed of every name that only records know.
func (m *Manager) adoptUnknown(ctx context.Context, by map[string][]Record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.known {
		return
	}
	for name := range by {
		if _, ok := m.pools[name]; ok {
			continue
		}
		klog.FromContext(ctx).Info("Records name a pool that does not exist; serving their releases", "pool", name, "records", len(by[name]))
		p := newPool(m, name)
		p.learn(by[name])
		p.setAbsent()
		m.pools[name] = p
	}
}

// drop forgets a pool that has nothing left, unless it was wanted again.
func (m *Manager) drop(p *pool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.absent || m.pools[p.name] != p || slices.ContainsFunc(m.records.List(), func(r Record) bool { return r.Pool == p.name }) {
		return false
	}
	delete(m.pools, p.name)
	return true
}

func (m *Manager) forget(started map[*pool]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for p := range started {
		if m.pools[p.name] != p {
			delete(started, p)
		}
	}
}

func (m *Manager) event(e Event) {
	if m.opts.OnEvent != nil {
		m.opts.OnEvent(e)
	}
}

// sleep waits for d; false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func reservationName(cluster, pool string) string { return fmt.Sprintf("%s-%s", cluster, pool) }
