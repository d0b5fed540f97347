package node

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/announcer"
	"github.com/onelb/onelb/loadbalancer/bgp"
)

// bgpInterval is how often passwords and the machine's addresses are looked at.
const bgpInterval = 5 * time.Second

// bgpLoop makes of what the API server says, and of who may hold addresses, what the
// speaker is to do. Nothing of it runs in the goroutine that holds addresses.
type bgpLoop struct {
	node    string
	src     *bgpSource
	peers   func() []announcer.Peer
	state   *store
	speaker *bgp.Speaker
	around  surroundings
	status  *bgpStatus
	writer  *announcers
	wake    chan struct{}
	latest  atomic.Pointer[network] // from the API server

	// The rest belongs to Run.
	announced *announcements
	fresh     bool // the API server has answered
	told      string
}

func (a *Agent) newBGPLoop(src *source, state *store, peers func() []announcer.Peer, registry *prometheus.Registry) (*bgpLoop, error) {
	metrics, err := bgp.NewMetrics(registry)
	if err != nil {
		return nil, err
	}
	l := &bgpLoop{
		node: a.o.NodeName, peers: peers, state: state, wake: make(chan struct{}, 1), announced: newAnnouncements(a.o.NodeName),
		around: surroundings{passwords: a.o.BGPPasswordDir, addresses: a.interfaceAddrs}, status: newBGPStatus(a.o.NodeName, a.onelb.BGPNodes()),
	}
	if l.src, err = newBGPSource(src, a.onelb, a.o.NodeName, l.nudge); err != nil {
		return nil, err
	}
	l.writer = &announcers{
		node: a.o.NodeName, vips: a.onelb.VirtualIPs(), cached: src.virtualIP, wake: make(chan struct{}, 1), written: map[string]string{},
		view: func() (*network, []announcer.Peer, []*v1alpha1.BGPNode) {
			return l.latest.Load(), l.peers(), list[*v1alpha1.BGPNode](l.src.nodes)
		},
	}
	l.speaker, err = bgp.New(bgp.Options{Restarting: len(state.network.Addresses) > 0, Changed: l.status.nudge, Metrics: metrics})
	return l, err
}

func (a *Agent) interfaceAddrs() (all []net.Addr, err error) {
	enter := a.o.Enter
	if enter == nil {
		enter = func(f func() error) error { return f() }
	}
	err = enter(func() (err error) {
		all, err = net.InterfaceAddrs()
		return err
	})
	return all, err
}

// nudge says that something has changed.
func (l *bgpLoop) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Run works until ctx is done. It ends before the speaker does.
func (l *bgpLoop) Run(ctx context.Context) error {
	logger := klog.FromContext(ctx)
	late := time.Now().Add(patience)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		next, addresses := l.step(logger, late)
		rest := restAfter(addresses)
		timer.Reset(max(time.Until(next), rest))
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			continue
		case <-l.wake:
		}
		timer.Reset(max(rebuildInterval, rest))
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
	}
}

// step hands over what is desired now, and returns when to look again, and how many
// addresses it looked at.
func (l *bgpLoop) step(logger klog.Logger, late time.Time) (time.Time, int) {
	now := time.Now()
	nodes := l.peers()
	n, ok := l.network(logger, now, late)
	if !ok || nodes == nil {
		return now.Add(bgpInterval / 10), 0
	}
	d := &bgp.Desired{}
	var problems []string
	var next time.Time
	if n.Config != nil && len(n.Peers) > 0 {
		d.Global = globalOf(n, l.node)
		d.Peers = l.around.peersOf(n, d.Global)
		d.Routes, problems, next = l.announced.routes(n, nodes, now)
	}
	for _, p := range d.Peers {
		if p.Problem != "" {
			problems = append(problems, "BGPPeer "+p.Name+": "+p.Problem)
		}
	}
	if text := strings.Join(problems, "; "); text != l.told {
		l.told = text
		logger.Info("The BGP configuration cannot be followed in full", "problems", problems)
	}
	l.speaker.Set(d)
	l.status.set(n, d, problems, l.speaker)
	if at := now.Add(bgpInterval); next.IsZero() || at.Before(next) {
		return at, len(n.Addresses)
	}
	return next, len(n.Addresses)
}

// network is what the API server says, or said before the agent was started if it
// does not answer in time. False: nobody knows yet.
func (l *bgpLoop) network(logger klog.Logger, now, late time.Time) (*network, bool) {
	if l.src.synced() {
		l.fresh = true
		n := l.src.build(logger)
		l.state.setNetwork(n)
		l.latest.Store(n)
		l.writer.nudge()
		return n, true
	}
	return l.state.network, !l.fresh && now.After(late)
}
