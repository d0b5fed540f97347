// Package member tells which nodes are alive and spreads who holds which
// address, from agent to agent, without the API server.
//
// Agents find each other by the addresses that SetPeers gives; hashicorp's
// memberlist detects failures (in about half a second; see doubtTime) and carries the claims,
// encrypted with the keys of a file. Of the claims for one address each agent
// keeps the one that beats all others (see Claim.Beats), so all agents that can
// reach each other believe the same one, in whatever order they hear of them.
//
// A Group never sends a farewell: an agent that restarts was never away.
package member

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"k8s.io/klog/v2"
)

// Intervals of Run. A partition that has healed is noticed within tick, since a
// peer that answers a ping is joined at once.
const (
	tick         = 100 * time.Millisecond
	keyInterval  = 5 * time.Second
	pingsPerTick = 3 // peers asked each tick, however many are missing
	firstJoin    = 2 * time.Second
	// keyDelay covers the minute and more that a kubelet needs to bring a
	// changed Secret into a pod.
	keyDelay = 2 * time.Minute
)

// Options of New.
type Options struct {
	// Name of this node, required.
	Name string
	// Port for UDP and TCP, required.
	Port int
	// KeyFile holds one or more keys of KeySize bytes: the first is used for
	// sending, all are accepted. It may appear late. It is read again every few
	// seconds.
	KeyFile string
	// Enter runs a function in the network namespace to work in. Nil: the
	// caller's.
	Enter func(func() error) error
	// Logger for memberlist's own messages.
	Logger klog.Logger
	// Died is called when another agent begins to count as dead, with the time from
	// when it was heard of last by this one until it was doubted. It must not block.
	// Nil: not called.
	Died func(silence time.Duration)
	// Doubted is called when an agent is doubted, dead or not. Likewise.
	Doubted func()
}

// Peer is another agent.
type Peer struct {
	Name    string
	Address netip.Addr
}

// Member is a live agent.
type Member struct {
	Name string
	State
	// Doubted: it did not answer lately, see doubtTime. The wire should be asked for
	// what it holds; in all else it counts until this is settled.
	Doubted bool
}

// State is what an agent says of its node.
type State struct {
	// Settled: it has been there for a while.
	Settled bool
	// Unwell: something that it needs to pass on traffic is out of order.
	Unwell bool
	// Damped: it has come and gone too often lately.
	Damped bool
	// MACs are the hardware addresses of its interfaces, of 6 bytes each, one after
	// the other; at most maxMACs.
	MACs string
}

// maxMACs leaves room in what memberlist tells of a node.
const maxMACs = 32

// Group is the agents that can reach each other. Its methods may be called from
// several goroutines and never block.
type Group struct {
	name   string
	port   int
	enter  func(func() error) error
	logger klog.Logger
	died   func(silence time.Duration)
	doubts func()
	ring   ring // used by Run only

	changed chan struct{} // holds one token if there is something to Drain
	kick    chan struct{}
	queue   *memberlist.TransmitLimitedQueue

	mu     sync.Mutex // guards the rest
	self   netip.Addr
	peers  map[string]netip.Addr
	live   map[string]State
	heard  map[string]time.Time // when a live agent answered a ping or joined
	unsure map[string]doubt     // live agents that memberlist takes for dead
	beat   time.Time            // when this agent had its turn last
	late   stall                // the last one of this agent
	claims map[key]Claim
	dirty  map[key]struct{}
	ready  bool
	// state is what the others are to be told, told what they were.
	state, told State
}

// New returns a group that Run starts.
func New(o Options) (*Group, error) {
	if o.Name == "" || o.KeyFile == "" || o.Port <= 0 || o.Port > 65535 {
		return nil, errors.New("gossip needs a node name, a key file and a port")
	}
	g := &Group{
		name: o.Name, port: o.Port, enter: o.Enter, logger: o.Logger, died: o.Died, doubts: o.Doubted,
		ring:    ring{file: o.KeyFile, delay: keyDelay},
		changed: make(chan struct{}, 1), kick: make(chan struct{}, 1),
		peers: map[string]netip.Addr{}, live: map[string]State{}, heard: map[string]time.Time{}, unsure: map[string]doubt{},
		claims: map[key]Claim{}, dirty: map[key]struct{}{},
	}
	if g.died == nil {
		g.died = func(time.Duration) {}
	}
	if g.doubts == nil {
		g.doubts = func() {}
	}
	if g.enter == nil {
		g.enter = func(f func() error) error { return f() }
	}
	g.queue = &memberlist.TransmitLimitedQueue{
		RetransmitMult: 4,
		NumNodes: func() int {
			g.mu.Lock()
			defer g.mu.Unlock()
			return len(g.live)
		},
	}
	return g, nil
}

// SetPeers gives this node's own address and the other agents'. An address of
// another family than our own is of no use and is left out, as are all but the
// first of a name.
func (g *Group) SetPeers(self netip.Addr, peers []Peer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.self = self
	clear(g.peers)
	for _, p := range peers {
		if _, have := g.peers[p.Name]; !have && p.Name != g.name && p.Address.Is4() == self.Is4() {
			g.peers[p.Name] = p.Address
		}
	}
	wake(g.kick)
}

// Ready reports whether the peers were given a chance to tell what they know:
// each one answered, or did not for two seconds.
func (g *Group) Ready() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ready
}

// SetState tells the other agents what this one says of its node. At first it is
// the zero value.
func (g *Group) SetState(s State) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state != s {
		g.state = s
		wake(g.kick)
	}
}

// Changed delivers a token after something changed that Drain tells.
func (g *Group) Changed() <-chan struct{} { return g.changed }

// Members returns the live agents, this one included once it takes part, sorted.
func (g *Group) Members() []Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]Member, 0, len(g.live))
	for _, n := range slices.Sorted(maps.Keys(g.live)) {
		out = append(out, Member{Name: n, State: g.live[n], Doubted: g.doubted(n)})
	}
	return out
}

// Drain returns the claims that have changed since the last call, sorted.
func (g *Group) Drain() []Claim {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]Claim, 0, len(g.dirty))
	for k := range g.dirty {
		if c, ok := g.claims[k]; ok {
			out = append(out, c)
		}
	}
	clear(g.dirty)
	slices.SortFunc(out, Claim.compare)
	return out
}

// Announce spreads claims of this node, if nothing known beats them.
func (g *Group) Announce(claims ...Claim) { g.merge(claims, false) }

// merge takes in claims that beat what is known and passes them on.
func (g *Group) merge(claims []Claim, fromOthers bool) {
	for _, c := range claims {
		if !c.valid() {
			g.logger.Info("Ignored an invalid claim", "address", c.Address, "node", c.Node, "epoch", c.Epoch)
			continue
		}
		g.mu.Lock()
		beats := c.Beats(g.claims[c.key()])
		if beats {
			g.claims[c.key()] = c
			if fromOthers {
				g.dirty[c.key()] = struct{}{}
				g.notify()
			}
		}
		g.mu.Unlock()
		if beats { // outside the lock: the queue asks for the number of members
			g.queue.QueueBroadcast(broadcast{key: c.key(), message: Encode(c)})
		}
	}
}

func (g *Group) untold() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.state != g.told
}

// unsettled reports whether something is to be told or decided soon.
func (g *Group) unsettled() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.state != g.told || len(g.unsure) > 0
}

func (g *Group) notify() { wake(g.changed) }

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run takes part until ctx is done. It waits for the key file and for this
// node's own address as long as it must. On return all it started has ended; no
// farewell is sent.
func (g *Group) Run(ctx context.Context) error {
	r := &run{g: g, joining: map[string]bool{}}
	defer r.stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		g.pulse(time.Now())
		r.step(ctx)
		timer.Reset(r.rest())
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-g.kick:
		}
	}
}

func (g *Group) config() (self netip.Addr, missing []Peer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for n, a := range g.peers {
		_, live := g.live[n]
		if _, doubtful := g.unsure[n]; !live || doubtful {
			missing = append(missing, Peer{n, a})
		}
	}
	slices.SortFunc(missing, func(a, b Peer) int { return a.Address.Compare(b.Address) })
	rand.Shuffle(len(missing), func(i, j int) { missing[i], missing[j] = missing[j], missing[i] })
	return g.self, missing
}

func (g *Group) address(p Peer) string {
	return netip.AddrPortFrom(p.Address, uint16(g.port)).String() // #nosec G115 -- checked by New
}

func (g *Group) udp(p Peer) net.Addr {
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.Address, uint16(g.port))) // #nosec G115 -- checked by New
}

func (g *Group) reset(ready bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ready = ready
	if !ready {
		clear(g.live)
		clear(g.heard)
		clear(g.unsure)
	}
	g.notify()
}

// describe names a bind failure.
func describe(self netip.Addr, port int, err error) error {
	return fmt.Errorf("gossip on %s port %d: %w", self, port, err)
}
