package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// AddressRange is a run of addresses of one family, both ends included.
type AddressRange struct {
	Start, End netip.Addr
}

// PoolSpec is what is wanted of a pool.
type PoolSpec struct {
	Name string
	// Generation is handed back in PoolStatus.
	Generation int64
	// Network is what addresses are reserved from.
	Network NetworkQuery
	// Direct: no reservation is made, addresses are put on hold in Network itself.
	Direct bool
	// Ranges limits the pool; empty: all addresses of the network.
	Ranges []AddressRange
	// AvoidEdges leaves out IPv4 addresses that end in .0 or .255. Those
	// that are reserved already are not given; those that have a record keep it.
	AvoidEdges bool
	// ChunkSize is by how many addresses the reservation grows. 0: default 8.
	// A burst of allocations makes it grow by more at a time.
	ChunkSize int
	// ReserveAhead is how many free addresses of each family are kept reserved.
	ReserveAhead int
	// Quarantine is for how long a released address is not given again.
	Quarantine time.Duration
	// Shared limits the pool to Shared ranges of the network.
	Shared bool
	// Leaving: the pool gives nothing any more, and its reservation goes back
	// when it has no records left (status Removed). Unlike one that is not in
	// the set, it is not forgotten then.
	Leaving bool
	// Draining: the pool gives nothing any more, keeps what it has given, and
	// gives back of its reservation what nobody has. The reservation stays.
	Draining bool
}

func (s PoolSpec) limits() limits { return limits{ranges: s.Ranges, noEdges: s.AvoidEdges} }

func (s PoolSpec) clone() PoolSpec {
	s.Ranges = slices.Clone(s.Ranges)
	if s.Network.ID != nil {
		id := *s.Network.ID
		s.Network.ID = &id
	}
	if s.ChunkSize == 0 {
		s.ChunkSize = DefaultChunkSize
	}
	return s
}

// narrow leaves out the ranges of a network that the pool may not use.
func (s PoolSpec) narrow(n Network) Network {
	if s.Shared {
		n.Ranges = slices.DeleteFunc(slices.Clone(n.Ranges), func(r Range) bool { return !r.Shared })
	}
	return n
}

// inShared is the end of a message about a network without addresses.
func (s PoolSpec) inShared() string {
	if !s.Shared {
		return ""
	}
	return ` in a range with SHARED="YES", which guard: alias needs; add such a range to the network (OpenNebula 7)`
}

func (s PoolSpec) equal(o PoolSpec) bool {
	return s.Name == o.Name && s.Generation == o.Generation && sameQuery(s.Network, o.Network) && slices.Equal(s.Ranges, o.Ranges) &&
		s.ChunkSize == o.ChunkSize && s.ReserveAhead == o.ReserveAhead && s.Quarantine == o.Quarantine && s.Leaving == o.Leaving &&
		s.Direct == o.Direct && s.AvoidEdges == o.AvoidEdges && s.Shared == o.Shared && s.Draining == o.Draining
}

func sameQuery(a, b NetworkQuery) bool {
	if (a.ID == nil) != (b.ID == nil) || (a.ID != nil && *a.ID != *b.ID) {
		return false
	}
	return a.Name == b.Name && a.Owner == b.Owner
}

// validate returns what no network could make right.
func (s PoolSpec) validate(cluster string) error {
	switch {
	case s.Name == "":
		return fmt.Errorf("a pool needs a name: %w", ErrUnusable)
	case len(reservationName(cluster, s.Name)) > maxName:
		return fmt.Errorf("reservation name %s has more than %d characters, choose shorter names: %w", reservationName(cluster, s.Name), maxName, ErrUnusable)
	case s.ChunkSize < 1 || s.ReserveAhead < 0 || s.Quarantine < 0:
		return fmt.Errorf("chunkSize %d, reserveAhead %d or quarantine %s is out of range: %w", s.ChunkSize, s.ReserveAhead, s.Quarantine, ErrUnusable)
	}
	for _, r := range s.Ranges {
		if !r.Start.IsValid() || r.Start.BitLen() != r.End.BitLen() || r.End.Less(r.Start) || r.Start.Is4In6() {
			return fmt.Errorf("range %s-%s is none: %w", r.Start, r.End, ErrUnusable)
		}
	}
	return nil
}

// pool is one pool: what allocations and its keeper share.
type pool struct {
	m    *Manager
	name string
	wake chan struct{} // there is something for the keeper to do

	mu          sync.Mutex // guards all below
	spec        PoolSpec
	specSeq     int  // counts changes of spec and absent
	absent      bool // not in the set
	removed     bool // the reservation is back
	ready       bool // the reservation is ours and known
	trouble     error
	parent      *Network  // as last read; nil before
	outside     [2]int    // free in the parent, as last read less what we cut since
	reservation NetworkID // NoNetwork while unknown
	filtered    bool      // the reservation is, see Network.filtered
	index       *index
	records     []Record // of this pool, sorted by address, as last seen
	recordsSeq  uint64
	used        [2]int // records by family, as last seen
	waiting     [2]int // allocations that wait for an address of any kind
	wishes      map[netip.Addr]*wish
	verdicts    [2]verdict
	unserved    [2]bool       // somebody was refused since the keeper last told of it
	changed     chan struct{} // closed, and replaced, when waiters should look again
	overlap     Finding
	severed     []AddressRange
	doubt       bool // some address is suspect
	counters    Counters
	changes     uint64 // counts lists of records that differed
	born        time.Time
	met         bool                   // the reservation was read at least once
	formers     map[netip.Addr]*former // addresses that are kept for former owners
	formersOf   map[Owner]map[netip.Addr]bool
}

// wish is an address that allocations asked for by name.
type wish struct {
	waiting int
	verdict verdict
}

// verdict is the outcome of the last attempt to reserve more. Waiters that
// come before until get it as it is: this bounds how often OpenNebula is asked.
type verdict struct {
	err   error
	until time.Time
}

func (v verdict) current() error {
	if v.err != nil && time.Now().Before(v.until) {
		return v.err
	}
	return nil
}

func newPool(m *Manager, name string) *pool {
	return &pool{
		m: m, name: name, born: time.Now(), wake: make(chan struct{}, 1), reservation: NoNetwork, index: newIndex(),
		wishes: map[netip.Addr]*wish{}, changed: make(chan struct{}), spec: PoolSpec{Name: name, ChunkSize: DefaultChunkSize, Quarantine: DefaultQuarantine},
	}
}

func (p *pool) setSpec(s PoolSpec) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.specSeq > 0 && !p.absent && p.spec.equal(s) {
		return
	}
	if p.leaving() != s.Leaving || !sameQuery(p.spec.Network, s.Network) {
		p.parent, p.ready, p.trouble = nil, false, nil
	}
	if p.spec.Direct != s.Direct {
		p.index, p.parent, p.ready = newIndex(), nil, false
	}
	p.spec, p.absent = s, false
	p.index.direct = s.Direct
	p.removed = p.removed && s.Leaving
	p.respecced()
}

func (p *pool) setAbsent() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.absent {
		return
	}
	p.absent = true
	p.parent, p.ready, p.trouble = nil, false, nil
	p.respecced()
}

// respecced applies a changed spec at once to what is reserved already.
func (p *pool) respecced() {
	p.specSeq++
	p.verdicts = [2]verdict{}
	p.index.limit(p.allows)
	if p.parent != nil {
		p.countOutside()
	}
	p.broadcast()
	poke(p.wake)
}

// allows reports whether the pool may give the address anew. The caller holds p.mu.
func (p *pool) allows(a netip.Addr) bool {
	if p.spec.Shared && p.parent != nil {
		if _, ok := rangeWith(*p.parent, a); !ok {
			return false
		}
	}
	return p.spec.limits().allow(a) && !slices.ContainsFunc(p.severed, func(r AddressRange) bool { return r.contains(a) })
}

func (r AddressRange) contains(a netip.Addr) bool {
	return r.Start.BitLen() == a.BitLen() && !a.Less(r.Start) && !r.End.Less(a)
}

func (p *pool) countOutside() {
	for i, f := range families {
		p.outside[i] = countFree(*p.parent, p.spec.limits(), f)
	}
}

func (p *pool) leaving() bool { return p.absent || p.spec.Leaving }

func (p *pool) reservationName() string { return reservationName(p.m.opts.Cluster, p.name) }

// parentName names the pool's network for people. The caller holds p.mu.
func (p *pool) parentName() string {
	if p.parent == nil {
		return fmt.Sprintf("network %s", p.spec.Network)
	}
	return fmt.Sprintf("network %q (%d)", p.parent.Name, p.parent.ID)
}

// vacant reports whether a pool that is being removed can give its reservation
// back. The caller holds p.mu.
func (p *pool) vacant() bool {
	return p.leaving() && !p.removed && !slices.ContainsFunc(p.records, func(r Record) bool { return !r.isClaim() })
}

// offers reports whether the pool could give the address. The caller holds p.mu.
func (p *pool) offers(a netip.Addr) bool {
	if !p.allows(a) || p.leaving() {
		return false
	}
	if _, ok := p.index.byAddr[a]; ok {
		return true
	}
	if p.parent == nil {
		return false
	}
	_, ok := rangeWith(*p.parent, a)
	return ok
}

// usable returns why the pool can give no address at all. The caller holds p.mu.
func (p *pool) usable() error {
	switch {
	case p.leaving():
		return ErrLeaving
	case !p.ready && p.trouble != nil:
		return p.trouble
	case !p.ready:
		return errPending
	case p.spec.Draining:
		return ErrDraining
	}
	return nil
}

// broadcast lets every waiting allocation look again. The caller holds p.mu.
func (p *pool) broadcast() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// settle brings the free list up to date. The caller holds p.mu.
func (p *pool) settle(s *slot) {
	before := p.index.nfree
	p.index.settle(s)
	if p.index.nfree != before {
		p.broadcast()
	}
}

// observe takes over the records of the pool, as read when the clock stood at
// since.
func (p *pool) observe(recs []Record, since, scan uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !slices.EqualFunc(p.records, recs, func(a, b Record) bool { return a.Address == b.Address && a.Version == b.Version }) {
		p.changes++
	}
	p.records = recs
	p.recordsSeq++
	if p.removed && p.spec.Direct && len(recs) > 0 {
		p.removed = false // of a call that came late
		p.respecced()
	}
	p.used = [2]int{}
	for _, r := range recs {
		p.used[familyOf(r.Address).index()]++
		p.arrived(r)
	}
	before := p.index.nfree
	elsewhere := func(a netip.Addr) bool {
		r, ok := p.m.records.Get(a)
		return ok && r.Pool != p.name
	}
	if p.index.observe(recs, since, scan, elsewhere, func() uint64 { return p.m.clock.Add(1) }) {
		p.doubt = true
	}
	if p.index.nfree != before {
		p.broadcast()
	}
	poke(p.wake)
}
