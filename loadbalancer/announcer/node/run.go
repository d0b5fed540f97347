package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/api/client"
	"github.com/onelb/onelb/api/courtesy"
	"github.com/onelb/onelb/api/reconnect"
	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/announcer"
	"github.com/onelb/onelb/loadbalancer/announcer/addr"
	"github.com/onelb/onelb/loadbalancer/announcer/arpfilter"
	"github.com/onelb/onelb/loadbalancer/announcer/member"
	"github.com/onelb/onelb/loadbalancer/announcer/wire"
)

const component = "onelb-node"

// Agent is the program.
type Agent struct {
	o        Options
	kube     kube
	onelb    client.Interface
	registry *prometheus.Registry
}

// New returns the program for the API server that the options name. It fails
// only if they are unusable; the API server need not be there.
func New(o Options) (*Agent, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	cfg, err := restConfig(o.Kubeconfig)
	if err != nil {
		return nil, err
	}
	kube, err := newKube(rest.AddUserAgent(rest.CopyConfig(cfg), component))
	if err != nil {
		return nil, err
	}
	onelb, err := client.New(rest.AddUserAgent(rest.CopyConfig(cfg), component))
	if err != nil {
		return nil, err
	}
	return newAgent(o, kube, onelb), nil
}

func newAgent(o Options, kube kube, onelb client.Interface) *Agent {
	return &Agent{o: o, kube: kube, onelb: onelb, registry: prometheus.NewRegistry()}
}

func restConfig(file string) (*rest.Config, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", file)
	if err != nil {
		return nil, fmt.Errorf("connection to the API server: %w", err)
	}
	// A node that takes hundreds of addresses writes as many holders.
	cfg.QPS, cfg.Burst = 100, 200
	reconnect.Configure(cfg)
	courtesy.Configure(cfg)
	return cfg, nil
}

// Run holds addresses until ctx is done, and then until others have them if it ends
// for good. On return all it started has ended and the addresses that it still has are
// left to the next start, see announcer.RestartLifetime.
func (a *Agent) Run(ctx context.Context) error {
	logger := klog.FromContext(ctx)
	state, err := openStore(a.o.StateDir, logger)
	if err != nil {
		return err
	}
	table, err := addr.Open(addr.Options{Enter: a.o.Enter})
	if err != nil {
		return err
	}
	defer func() { _ = table.Close() }()
	src, err := newSource(a.kube, a.onelb, a.o.DrainCordoned)
	if err != nil {
		return err
	}
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(a.kube.Events(ctx))
	events := broadcaster.NewRecorder(kubeTypes, corev1.EventSource{Component: component, Host: a.o.NodeName})
	reporter := newStatus(a.o.NodeName, a.onelb.VirtualIPs(), src.virtualIP, events)

	err = a.run(ctx, table, src, state, reporter, events)
	return errors.Join(err, state.flush())
}

func (s *source) virtualIP(name string) (*v1alpha1.VirtualIP, bool) {
	obj, found, err := s.vips.GetStore().GetByKey(name)
	v, ok := obj.(*v1alpha1.VirtualIP)
	return v, found && ok && err == nil
}

func (a *Agent) run(ctx context.Context, table *addr.Table, src *source, state *store, reporter *status, events record.EventRecorder) error {
	metrics, err := announcer.NewMetrics(a.registry)
	if err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	a.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	detector := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "onelb_node_detector_delay_seconds",
		Help:    "Time from the last answer of another agent to this one's pings until it was doubted, of those that did not answer within a second after that either and so counted as dead. What a doubted agent holds is asked for on the wire at once. Each agent pings all others in turn, one each tenth of a second, so with many of them the time includes the wait for its turn; the agents tell each other.",
		Buckets: []float64{.1, .2, .3, .4, .5, .75, 1, 2, 5, 10}})
	doubts := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "onelb_node_doubts_total",
		Help: "How often another agent did not answer in time. Most that do soon afterwards had too little processor time."})
	a.registry.MustRegister(detector, doubts)
	group, err := member.New(member.Options{
		Name: a.o.NodeName, Port: a.o.GossipPort, KeyFile: a.o.GossipKeyFile, Enter: a.o.Enter,
		Logger: klog.FromContext(ctx).WithName("gossip"),
		Died:   func(silence time.Duration) { detector.Observe(silence.Seconds()) }, Doubted: doubts.Inc,
	})
	if err != nil {
		return err
	}
	var engine *announcer.Engine
	w, err := wire.New(wire.Options{
		Enter: a.o.Enter, Seen: func(s wire.Sighting) { engine.Sighted(s) }, Asked: func(s wire.Sighting) { engine.Asked(s) },
	})
	if err != nil {
		return err
	}
	failures := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "onelb_node_arp_filter_failures_total",
		Help: "Failed attempts to write the nftables table arp onelb. Without it, other interfaces of this node may answer ARP for the addresses, and with kube-proxy in IPVS mode other nodes."})
	a.registry.MustRegister(failures)
	filter := arpfilter.New(arpfilter.Options{
		Enter: a.o.Enter, Release: max(announcer.RestartLifetime, 3*a.o.AddressLifetime),
		Alive: func() bool { return alive(engine, a.o.AddressLifetime) == nil },
		Failed: func(err error) {
			if err != nil {
				failures.Inc()
			}
		},
	})
	speaking, err := a.newBGPLoop(src, state, func() []announcer.Peer { return engine.Peers() }, a.registry)
	if err != nil {
		return fmt.Errorf("set up BGP: %w", err)
	}
	engine, err = announcer.New(announcer.Options{
		Node: a.o.NodeName, Lifetime: a.o.AddressLifetime, Even: a.o.Even, Kernel: table, Wire: w, Filter: filter, Group: group,
		Changed: group.Changed(), Reporter: reporter, Memory: state, Metrics: metrics,
		PeersChanged: speaking.nudge,
	})
	if err != nil {
		return err
	}
	remembered := func(take bool) {
		a.introduce(group, state.cluster)
		engine.SetRemembered(state.cluster, take)
	}
	if len(state.cluster.Nodes) > 0 {
		remembered(false)
	}

	told := ctx // to end
	working, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	g, ctx := errgroup.WithContext(working)
	g.Go(func() error {
		defer end()
		select {
		case <-ctx.Done():
		case <-told.Done():
			a.leave(ctx, src, engine, speaking.speaker)
		}
		return nil
	})
	g.Go(func() error { return w.Run(ctx) })
	filtering, enough := context.WithCancel(context.WithoutCancel(ctx)) // until the engine has said its last word
	g.Go(func() error { return filter.Run(filtering) })
	g.Go(func() error { return group.Run(ctx) })
	g.Go(func() error {
		defer enough()
		return engine.Run(ctx)
	})
	g.Go(func() error { return table.WatchLinks(ctx, engine.LinksChanged) })
	g.Go(func() error { return state.Run(ctx) })
	if a.o.KubeProxyHealth != "" {
		g.Go(func() error { return a.watchProxy(ctx, engine.SetUnwell) })
	}
	g.Go(func() error { return unmapStart(ctx) })
	g.Go(func() error { return reporter.Run(ctx) })
	g.Go(func() error { return speaking.src.Run(ctx) })
	g.Go(func() error { return speaking.finder.Run(ctx) })
	g.Go(func() error { return speaking.Run(ctx) })
	g.Go(func() error { return speaking.speaker.Run(ctx) })
	g.Go(func() error { return speaking.status.Run(ctx, events) })
	g.Go(func() error { return speaking.writer.Run(ctx, events) })
	g.Go(func() error {
		return src.Run(ctx, func(c *announcer.Cluster) {
			a.introduce(group, c)
			engine.SetCluster(c)
			state.setCluster(c)
			speaking.nudge()
		}, func() { remembered(true) })
	})
	g.Go(func() error {
		return serve(ctx, a.o.MetricsAddress, a.listen, a.registry,
			func() error { return alive(engine, a.o.AddressLifetime) }, func() error { return ready(group) })
	})
	return g.Wait()
}

// introduce tells the group where the agents are.
func (a *Agent) introduce(group *member.Group, c *announcer.Cluster) {
	var peers []member.Peer
	for _, n := range c.Nodes {
		for _, address := range n.Addresses {
			peers = append(peers, member.Peer{Name: n.Name, Address: address})
		}
	}
	for _, n := range c.Nodes {
		if n.Name == a.o.NodeName && len(n.Addresses) > 0 {
			group.SetPeers(n.Addresses[0], peers)
		}
	}
}

func (a *Agent) listen(address string) (l net.Listener, err error) {
	err = a.enter(func() (err error) {
		l, err = (&net.ListenConfig{}).Listen(context.Background(), "tcp", address)
		return err
	})
	return l, err
}

var (
	errHung     = errors.New("the loop that renews addresses stands still")
	errNoGossip = errors.New("waiting for the gossip key, for this node's InternalIP or for the other agents")
)

func alive(e *announcer.Engine, lifetime time.Duration) error {
	if e.Idle() > lifetime {
		return errHung
	}
	return nil
}

func ready(g *member.Group) error {
	if !g.Ready() {
		return errNoGossip
	}
	return nil
}
