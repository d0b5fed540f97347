package node

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/vishvananda/netlink"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/announcer"
	"github.com/onelb/onelb/loadbalancer/bgp"
	"github.com/onelb/onelb/loadbalancer/bgp/unnumbered"
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
	finder  *unnumbered.Finder
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
		status: newBGPStatus(a.o.NodeName, a.onelb.BGPNodes()),
	}
	l.finder = unnumbered.New(unnumbered.Options{Enter: a.o.Enter, Changed: l.nudge})
	l.around = surroundings{passwords: a.o.BGPPasswordDir, addresses: a.interfaceAddrs, router: l.finder.Router, vrf: a.checkVRF}
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
	err = a.enter(func() (err error) {
		all, err = net.InterfaceAddrs()
		return err
	})
	return all, err
}

// checkVRF says what is wrong with a device that should be a VRF's.
func (a *Agent) checkVRF(device string) error {
	return a.enter(func() error {
		l, err := netlink.LinkByName(device)
		switch {
		case err != nil:
			return fmt.Errorf("this node has no device %s", device)
		case l.Type() != "vrf":
			return fmt.Errorf("device %s is no VRF, but of type %s", device, l.Type())
		case l.Attrs().Flags&net.FlagUp == 0:
			return fmt.Errorf("VRF %s is down", device)
		}
		return nil
	})
}

// enter runs f in the network namespace to work in.
func (a *Agent) enter(f func() error) error {
	if a.o.Enter == nil {
		return f()
	}
	return a.o.Enter(f)
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
		rested := time.Now().Add(restAfter(addresses))
		timer.Reset(max(time.Until(next), time.Until(rested)))
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			continue
		case <-l.wake:
		}
		timer.Reset(max(rebuildInterval, time.Until(rested)))
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
	l.finder.Set(devicesOf(n)) // none, if there is nothing to do
	if n.Config != nil && len(n.Peers) > 0 {
		d.Global = globalOf(n, l.node)
		d.Peers = l.around.peersOf(n, d.Global)
		d.Routes, problems, next = l.announced.routes(n, nodes, list[*v1alpha1.BGPNode](l.src.nodes), now)
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
