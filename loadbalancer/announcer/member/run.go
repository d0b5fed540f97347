package member

import (
	"context"
	"log"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"k8s.io/klog/v2"
)

// run is the state of one Run; its methods other than join's goroutines are
// called by one goroutine.
type run struct {
	g    *Group
	list *memberlist.Memberlist
	bind netip.Addr

	keyRead time.Time
	keyErr  string

	joins   sync.WaitGroup
	mu      sync.Mutex // guards joining
	joining map[string]bool
}

// step does what is due.
func (r *run) step(ctx context.Context) {
	now := time.Now()
	if r.keyRead.IsZero() || r.list == nil || now.Sub(r.keyRead) >= keyInterval {
		r.keyRead = now
		ok, err := r.g.ring.load(now)
		r.report(err)
		if !ok {
			return
		}
	}
	self, missing := r.g.config()
	if !self.IsValid() {
		return
	}
	if r.list != nil && self != r.bind {
		r.stop()
	}
	if r.list == nil {
		if err := r.start(self); err != nil {
			r.g.logger.Error(err, "Gossip did not start; trying again")
			return
		}
		r.first(ctx, missing)
		return
	}
	r.tell()
	for _, p := range missing[:min(len(missing), pingsPerTick)] {
		r.join(p, true)
	}
}

// rest is the time until the next step. While all peers are there and told, there is
// nothing to do but to read the keys again; what changes that wakes Run.
func (r *run) rest() time.Duration {
	_, missing := r.g.config()
	if r.list == nil || len(missing) > 0 || r.g.unsettled() || r.busy() {
		return tick
	}
	return max(tick, time.Until(r.keyRead.Add(keyInterval)))
}

// report logs an error of the key file once, not at each try.
func (r *run) report(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != r.keyErr && err != nil {
		r.g.logger.Error(err, "Waiting for the gossip key")
	}
	r.keyErr = text
}

func (r *run) start(self netip.Addr) error {
	c := Config(r.g.name)
	c.BindAddr, c.BindPort = self.String(), r.g.port
	c.AdvertiseAddr, c.AdvertisePort = self.String(), r.g.port
	c.Keyring = r.g.ring.keys
	c.Delegate, c.Events, c.Ping = delegate{r.g}, delegate{r.g}, delegate{r.g}
	c.Logger = logger(r.g.logger)
	err := r.g.enter(func() error {
		t, err := newTransport(netip.AddrPortFrom(self, uint16(r.g.port)), r.g.enter) // #nosec G115 -- checked by New
		if err != nil {
			return err
		}
		c.Transport = t
		if r.list, err = memberlist.Create(c); err != nil {
			_ = t.Shutdown()
			return err
		}
		return nil
	})
	if err != nil {
		return describe(self, r.g.port, err)
	}
	r.bind = self
	return nil
}

// Config returns memberlist's settings, tuned: a cut link is noticed within some
// 0.35 s. An agent that stands still is taken for dead so fast, too, which costs
// nothing: its kernel goes on answering for its addresses, and is asked.
func Config(name string) *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = name
	c.ProbeInterval = 100 * time.Millisecond
	c.ProbeTimeout = 50 * time.Millisecond
	c.SuspicionMult = 2
	c.GossipInterval = gossipInterval
	// A prober that doubts itself must not take longer: the wire is asked in any case.
	c.AwarenessMaxMultiplier = 1
	c.PushPullInterval = 15 * time.Second
	c.TCPTimeout = 2 * time.Second
	// While one is remembered as dead it is still told of it, and so learns that
	// it must contradict when a partition heals.
	c.GossipToTheDeadTime = 10 * time.Minute
	c.DeadNodeReclaimTime = time.Second // a node may come back with another address
	c.EnableCompression = false         // messages are tiny
	return c
}

// first gives all peers the chance to tell what they know.
func (r *run) first(ctx context.Context, peers []Peer) {
	for _, p := range peers {
		r.join(p, false)
	}
	r.joins.Go(func() {
		overdue := time.NewTimer(firstJoin)
		defer overdue.Stop()
		poll := time.NewTicker(10 * time.Millisecond)
		defer poll.Stop()
		for r.busy() {
			select {
			case <-ctx.Done():
				return
			case <-overdue.C:
				r.g.reset(true)
				return
			case <-poll.C:
			}
		}
		r.g.reset(true)
	})
}

func (r *run) busy() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.joining) > 0
}

// tell spreads a change of what this agent says of itself.
func (r *run) tell() {
	const key = "" // no peer has this name
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.g.untold() || r.joining[key] {
		return
	}
	r.joining[key] = true
	list := r.list
	r.joins.Go(func() {
		defer r.done(key)
		if err := list.UpdateNode(time.Second); err != nil {
			r.g.logger.V(3).Info("Could not spread this node's state", "err", err)
		}
	})
}

func (r *run) done(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.joining, key)
}

// join joins a peer in the background, if asked to only after it has answered
// a ping, which costs a dead one nothing.
func (r *run) join(p Peer, ping bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.joining[p.Name] {
		return
	}
	r.joining[p.Name] = true
	list := r.list
	r.joins.Go(func() {
		defer r.done(p.Name)
		if ping {
			if _, err := list.Ping(p.Name, r.g.udp(p)); err != nil {
				return
			}
			r.g.heardOf(p.Name)
		}
		if _, err := list.Join([]string{p.Name + "/" + r.g.address(p)}); err != nil {
			r.g.logger.V(3).Info("Could not join a peer", "peer", p.Name, "err", err)
		}
	})
}

func (r *run) stop() {
	if r.list == nil {
		return
	}
	if err := r.list.Shutdown(); err != nil {
		r.g.logger.Error(err, "Stop gossip")
	}
	r.joins.Wait()
	r.list = nil
	r.g.reset(false)
}

// logger brings memberlist's lines into ours: its warnings and errors are about
// peers that cannot be reached, which is its business.
func logger(l klog.Logger) *log.Logger { return log.New(lines{l.V(4)}, "", 0) }

type lines struct{ l klog.Logger }

func (w lines) Write(b []byte) (int, error) {
	w.l.Info("memberlist", "line", strings.TrimSpace(string(b)))
	return len(b), nil
}
