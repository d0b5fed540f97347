package announcer

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"

	"github.com/onelb/onelb/loadbalancer/announcer/addr"
	"github.com/onelb/onelb/loadbalancer/announcer/arpfilter"
	"github.com/onelb/onelb/loadbalancer/announcer/member"
)

// Kernel keeps addresses; see addr.Table.
type Kernel interface {
	Interfaces() ([]addr.Interface, error)
	Ours(remembered func(netip.Addr) bool) ([]addr.Entry, error)
	Add(a netip.Addr, on addr.Interface, valid time.Duration) error
	// AddAll adds many at once. Errors of single ones are joined *addr.EntryErrors.
	AddAll(places []addr.Place, valid time.Duration) error
	Renew(entries []addr.Entry, valid time.Duration) error
	Remove(a netip.Addr, index int) error
}

// Wire announces addresses and asks for them; see wire.Wire.
type Wire interface {
	Announce(on addr.Interface, a netip.Addr) error
	Ask(on addr.Interface, a netip.Addr, to net.HardwareAddr) error
	// CatchUp hands over all that has arrived, and reports whether something was lost.
	CatchUp() (lost bool)
}

// Filter keeps the kernel from answering where it must not; see arpfilter.Filter.
// It must not block.
type Filter interface {
	Set(s arpfilter.State)
}

// Group is the agents that can reach each other; see member.Group.
type Group interface {
	Ready() bool
	Members() []member.Member
	Drain() []member.Claim
	Announce(claims ...member.Claim)
	// SetState tells the others what this node says of itself.
	SetState(s member.State)
}

// Reporter tells the world what happened. It must not block.
type Reporter interface {
	// Holder makes h the holder that the API server knows of a. Nil: none. It
	// is called again until the Cluster says so.
	Holder(a netip.Addr, h *Holding)
	// Moved tells that this node took a.
	Moved(a Address, h Holding)
	// Conflict tells that mac claims a, which this node holds or should take.
	Conflict(a Address, mac net.HardwareAddr)
	// Peace tells that nobody else claims a any more.
	Peace(a netip.Addr)
}

// Memory keeps what a restarted Engine must know. It must not block.
type Memory interface {
	// Held returns what an earlier Engine held last.
	Held() map[netip.Addr]Holding
	// SetHeld replaces it.
	SetHeld(map[netip.Addr]Holding)
}

// Options of New. All are required but where they say otherwise.
type Options struct {
	// Node is the name of this node.
	Node string
	// Lifetime of an address in the kernel, at least 1 s. It is renewed three
	// times in that time.
	Lifetime time.Duration
	// Even moves addresses, one a minute, to nodes that have at least two fewer.
	// It should be the same on all nodes.
	Even   bool
	Kernel Kernel
	Wire   Wire
	Filter Filter
	Group  Group
	// Changed delivers a token when the Group changed.
	Changed  <-chan struct{}
	Reporter Reporter
	Memory   Memory
	Metrics  *Metrics
	// PeersChanged is called when Peers has something new. It must not block. Optional.
	PeersChanged func()
}

// RestartLifetime is what an orderly end leaves the addresses with: time for
// the next agent to start and adopt them. If it never does, the kernel drops
// them, and the other nodes, which have been asking all the while, take over.
const RestartLifetime = 10 * time.Second

const (
	refreshInterval = 5 * time.Second // of the list of interfaces, besides link events
	retryInterval   = time.Second     // after the kernel refused an address
	// groupRest, for each address, passes between an evaluation of all and the next one
	// for no other reason than what other agents say: when a thousand addresses change
	// hands, claims come in hundreds of messages.
	groupRest     = 50 * time.Microsecond
	groupRestMost = 50 * time.Millisecond
)

// Engine holds addresses. Its owner goroutine is Run's; the exported methods
// only hand things to it and never block.
type Engine struct {
	o        Options
	restart  time.Duration
	updates  chan update
	inbox    inbox
	links    chan struct{}
	nudged   chan struct{}
	unwell   atomic.Bool
	leaving  atomic.Bool  // see HandOver
	holds    atomic.Int64 // how many addresses this node has
	stepped  atomic.Pointer[time.Time]
	interest sync.Map // netip.Addr: sightings of other addresses are not handed over
	shown    peersView

	// The rest belongs to Run.
	logger     klog.Logger
	cluster    *Cluster
	fresh      bool // cluster is from the API server
	mayTake    bool // addresses that this node does not have
	begun      bool // there is a cluster
	interfaces []addr.Interface
	linkSince  map[int]linkState
	refreshAt  time.Time
	renewAt    time.Time
	began      time.Time // when Run began, from which the beats count
	peers      []Peer
	damper     damper
	judged     time.Time // when the damper's judgement changes; zero: never
	entries    map[netip.Addr]*entry
	order      []*entry                 // entries, sorted by address
	patterns   map[string]addr.Patterns // of the addresses' interfaces, see compile
	updated    uint64                   // counts updates
	known      []*entry                 // reused by evaluate
	subjects   []Subject                // likewise
	filtered   bool                     // the Filter was told what this node holds
	elsewhere  bool                     // and of what kube-proxy has put on it
	controls   map[int]*control         // by interface
	states     map[string]member.State  // what nodes said of themselves last
	macs       map[string]string        // nodes by the hardware addresses of their interfaces
	dirty      bool                     // evaluate all
	changed    bool                     // the Group has, and was not looked at
	rested     time.Time                // when it may be looked at again
	heldDirty  bool                     // tell Memory
	moved      time.Time                // when an address was last seen to change its holder
	scouts     map[string]int           // addresses that a host is asked for often
	frames     int                      // sent in this step
	conversing bool                     // addresses are asked for
	asked      []*entry                 // in this step
	taking     []taking                 // in this step
	read       time.Time                // when the inbox was emptied last
	urgent     bool                     // something that was heard wants a step now
}

type update struct {
	cluster *Cluster
	fresh   bool
	take    bool
}

type linkState struct {
	up    bool
	since time.Time // zero: before the start
}

// New returns an Engine that Run starts.
func New(o Options) (*Engine, error) {
	switch {
	case o.Node == "":
		return nil, fmt.Errorf("%w: no node name", ErrOptions)
	case o.Lifetime < time.Second:
		return nil, fmt.Errorf("%w: lifetime %v is less than 1s", ErrOptions, o.Lifetime)
	case o.Kernel == nil || o.Wire == nil || o.Filter == nil || o.Group == nil || o.Changed == nil ||
		o.Reporter == nil || o.Memory == nil || o.Metrics == nil:
		return nil, fmt.Errorf("%w: a part is missing", ErrOptions)
	}
	return &Engine{
		o: o, restart: max(RestartLifetime, 3*o.Lifetime),
		updates: make(chan update, 1), inbox: newInbox(), links: make(chan struct{}, 1),
		nudged: make(chan struct{}, 1), shown: peersView{changed: o.PeersChanged},
		cluster: &Cluster{}, linkSince: map[int]linkState{}, entries: map[netip.Addr]*entry{}, controls: map[int]*control{}, macs: map[string]string{}, states: map[string]member.State{}, scouts: map[string]int{},
	}, nil
}

// SetCluster hands over what is wanted. The last call counts.
func (e *Engine) SetCluster(c *Cluster) { e.set(update{c, true, true}) }

// SetRemembered hands over what was wanted at an earlier time, for when the API
// server does not answer. Addresses that this node still has are kept; others
// are taken only if take is set. It has no effect after SetCluster.
func (e *Engine) SetRemembered(c *Cluster, take bool) { e.set(update{c, false, take}) }

func (e *Engine) set(u update) {
	for {
		select {
		case e.updates <- u:
			return
		default:
		}
		select {
		case old := <-e.updates:
			if old.fresh && !u.fresh {
				u = old
			}
		default:
		}
	}
}

// LinksChanged tells that an interface changed.
func (e *Engine) LinksChanged() {
	select {
	case e.links <- struct{}{}:
	default:
	}
}

// SetUnwell tells whether something that this node needs to pass on traffic is
// out of order. Addresses are handed to nodes where nothing is, if there are any.
func (e *Engine) SetUnwell(unwell bool) {
	e.unwell.Store(unwell)
	e.nudge()
}

// nudge makes Run decide anew.
func (e *Engine) nudge() {
	select {
	case e.nudged <- struct{}{}:
	default:
	}
}

// Idle is how long ago Run did something last; less than a third of the lifetime
// and a bit, unless it hangs. Zero before Run.
func (e *Engine) Idle() time.Duration {
	if t := e.stepped.Load(); t != nil {
		return time.Since(*t)
	}
	return 0
}

// Run adopts what an earlier Engine left in the kernel and works until ctx is
// done. Then it gives the addresses the RestartLifetime and returns.
func (e *Engine) Run(ctx context.Context) error {
	e.logger, e.began = klog.FromContext(ctx), time.Now()
	if err := e.refresh(time.Now()); err != nil {
		return fmt.Errorf("start announcer: %w", err)
	}
	if err := e.adopt(time.Now()); err != nil {
		return fmt.Errorf("start announcer: %w", err)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for due := true; ; {
		if due {
			now := time.Now()
			timer.Reset(time.Until(e.step(now)))
			e.stepped.Store(&now)
		}
		due = true
		select {
		case <-ctx.Done():
			e.leave()
			return nil
		case u := <-e.updates:
			e.take(u, time.Now())
		case <-e.inbox.wake:
			due = e.hear(time.Now())
		case <-e.links:
			e.refreshAt = time.Time{}
		case <-e.nudged:
			e.dirty = true
		case <-e.o.Changed:
			e.changed = true
		case <-timer.C:
		}
	}
}

// take takes in an update.
func (e *Engine) take(u update, now time.Time) {
	if e.fresh && !u.fresh {
		return
	}
	e.cluster, e.fresh, e.mayTake, e.dirty = u.cluster, u.fresh, u.take, true
	e.begun = true
	e.updated++
	patterns := map[string]addr.Patterns{}
	for _, a := range u.cluster.Addresses {
		n := e.entry(a.Address)
		n.setSpec(a, e.compile(a.Interfaces, patterns))
		n.updated = e.updated
	}
	e.patterns = patterns
	for _, n := range e.order {
		if n.updated != e.updated {
			n.vanish(u.fresh, now, e.o.Lifetime)
		}
	}
}

// compile compiles the names of interfaces, once for all addresses and updates that
// have the same, and notes them in used.
func (e *Engine) compile(names []string, used map[string]addr.Patterns) addr.Patterns {
	if len(names) == 0 {
		return nil
	}
	key := strings.Join(names, "\x00")
	p, found := used[key]
	if !found {
		p, found = e.patterns[key]
	}
	if !found {
		var err error
		if p, err = addr.Compile(names); err != nil {
			// None matches then; the pool's condition is where people look.
			e.logger.Error(err, "Unusable interface pattern", "interfaces", names)
			p = addr.Patterns{}
		}
	}
	used[key] = p
	return p
}

func (e *Engine) entry(a netip.Addr) *entry {
	n := e.entries[a]
	if n == nil {
		n = &entry{address: a}
		e.entries[a] = n
		at, _ := slices.BinarySearchFunc(e.order, a, func(n *entry, a netip.Addr) int { return n.address.Compare(a) })
		e.order = slices.Insert(e.order, at, n)
		e.interest.Store(a, true)
	}
	return n
}

// refresh reads the interfaces and notes when their carriers came and went.
func (e *Engine) refresh(now time.Time) error {
	interfaces, err := e.o.Kernel.Interfaces()
	if err != nil {
		return err
	}
	first := e.interfaces == nil
	e.interfaces, e.dirty = interfaces, true
	e.refreshAt = e.onBeat(now.Add(refreshInterval), now)
	states := map[int]linkState{}
	for _, i := range interfaces {
		s, known := e.linkSince[i.Index]
		switch {
		case first:
			s = linkState{up: i.Up}
		case !known || s.up != i.Up:
			s = linkState{up: i.Up, since: now}
			e.linkMoved(i, now)
		}
		states[i.Index] = s
	}
	e.linkSince = states
	return nil
}

// adopt finds what an earlier Engine left.
func (e *Engine) adopt(now time.Time) error {
	remembered := e.o.Memory.Held()
	ours, err := e.o.Kernel.Ours(func(a netip.Addr) bool { _, ok := remembered[a]; return ok })
	if err != nil {
		return err
	}
	for _, o := range ours {
		n := e.entry(o.Address)
		on, found := e.byIndex(o.Index)
		if n.hold != nil || !found { // twice: an interface too many
			if err := e.o.Kernel.Remove(o.Address, o.Index); err != nil {
				return err
			}
			continue
		}
		h := remembered[o.Address]
		n.hold = &hold{on: on, since: h.Since, epoch: h.Epoch, standIn: h.StandIn, told: true, expires: now.Add(o.Valid), announceAt: now, announced: len(announceAfter)}
		if n.hold.since.IsZero() {
			n.hold.since = now
		}
		if h.Epoch > 0 {
			e.believe(n, member.Claim{Address: o.Address, Node: e.o.Node, Epoch: h.Epoch, StandIn: h.StandIn})
		}
		e.holds.Add(1)
		e.o.Metrics.adopted.Inc()
		e.logger.Info("Found an address of ours in the kernel", "address", o.Address, "interface", on.Name, "valid", o.Valid)
	}
	for a, h := range remembered {
		if n := e.entry(a); n.hold == nil && h.Epoch > 0 { // it lapsed; the count goes on
			e.believe(n, member.Claim{Address: a, Node: e.o.Node, Epoch: h.Epoch, StandIn: h.StandIn, Released: true})
		}
	}
	return nil
}

func (e *Engine) byIndex(index int) (addr.Interface, bool) {
	for _, i := range e.interfaces {
		if i.Index == index {
			return i, true
		}
	}
	return addr.Interface{}, false
}

func (e *Engine) remember() {
	held := map[netip.Addr]Holding{}
	for a, n := range e.entries {
		if n.hold != nil {
			held[a] = n.holding(e.o.Node)
		}
	}
	e.o.Metrics.held.Set(float64(len(held)))
	e.holds.Store(int64(len(held)))
	e.o.Memory.SetHeld(held)
	e.heldDirty = false
}
