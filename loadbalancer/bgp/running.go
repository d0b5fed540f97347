package bgp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/server"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/loadbalancer/bgp/bfd"
)

// batch is how many routes are handed over at once: sessions are not served
// meanwhile.
const batch = 500

// running is a server of GoBGP and what it was told.
type running struct {
	server *server.BgpServer
	bfd    *bfd.Server
	endBFD context.CancelFunc
	ended  chan struct{}      // closed when BFD has ended
	end    context.CancelFunc // of the watch, and of BFD if it has not ended
	global Global
	peers  map[string]Peer // by name, as they were accepted
	routes map[netip.Prefix]*Attributes
	groups groups
	rules  *rules          // nil: none yet
	begun  map[string]bool // peers with which a session was begun, also by servers before; the Speaker's
}

// start starts a server without peers.
func start(ctx context.Context, g Global, restarting bool, begun map[string]bool, w *watch, m *Metrics, logger klog.Logger) (*running, error) {
	r := &running{
		server: server.NewBgpServer(server.LoggerOption(newLogger(logger, w, m), nil)), ended: make(chan struct{}),
		global: g, peers: map[string]Peer{}, routes: map[netip.Prefix]*Attributes{}, groups: groups{}, begun: begun,
	}
	r.bfd = bfd.New(bfd.Options{
		Lost:    func(peer netip.Addr, why string) { r.reset(peer, why, w) },
		Refused: m.refusedPackets.Inc, Restarting: restarting, Changed: func() { w.observe(r.bfd.Sessions) },
	})
	go r.server.Serve()
	watching, end := context.WithCancel(ctx)
	r.end = end
	detecting, endBFD := context.WithCancel(watching)
	r.endBFD = endBFD
	go func() {
		defer close(r.ended)
		_ = r.bfd.Run(detecting) // it has no errors
	}()
	err := r.server.StartBgp(ctx, &api.StartBgpRequest{Global: globalConfig(g)})
	if err == nil {
		err = r.server.WatchEvent(watching, server.WatchEventMessageCallbacks{OnPeerUpdate: w.event}, server.WatchPeer())
	}
	if err != nil {
		r.stop(ctx, false)
		return nil, fmt.Errorf("start BGP: %w", err)
	}
	return r, nil
}

func globalConfig(g Global) *api.Global {
	c := &api.Global{Asn: g.ASN, RouterId: g.RouterID.String(), ListenPort: -1}
	if g.ListenPort > 0 {
		c.ListenPort = int32(g.ListenPort)
		for _, a := range g.NextHops {
			if a.IsValid() {
				c.ListenAddresses = append(c.ListenAddresses, a.String())
			}
		}
	}
	return c
}

// stop ends the server. graceful: peers that agreed on graceful restart hear no
// word, and keep the routes.
func (r *running) stop(ctx context.Context, graceful bool) {
	// The peers' BFD must not take for a failure what follows.
	if !graceful {
		r.bfd.Set(nil)
	}
	r.endBFD()
	<-r.ended
	// The only error is that it does not run.
	_ = r.server.StopBgp(ctx, &api.StopBgpRequest{AllowGracefulRestart: graceful})
	r.server.Stop() // ends the library's own BFD, which StopBgp does not
	r.end()
}

// apply brings the server in line with what is desired. It does all it can, and
// joins the errors.
func (r *running) apply(ctx context.Context, d *Desired, restarting bool) error {
	// What is taken back needs no policy, and must not wait for one.
	errs := []error{r.removePeers(ctx, d), r.withdrawOthers(d.Routes)}
	for _, route := range d.Routes {
		r.groups.of(route.Peers)
	}
	if want := rulesFor(r.addressed(d), r.groups); r.rules == nil || !r.rules.equal(want) {
		if err := setPolicies(ctx, r.server, want, r.rules == nil); err != nil {
			return errors.Join(append(errs, err)...) // routes must not reach whom they are not for
		}
		r.rules = &want
	}
	// Routes come first: a peer that keeps those of an earlier session forgets what
	// is missing when the first batch is complete.
	errs = append(errs, r.setRoutes(d.Routes))
	for _, p := range d.Peers {
		errs = append(errs, r.setPeer(ctx, p, restarting))
	}
	r.watchPeers()
	return errors.Join(errs...)
}

// addressed are the peers that are there, or will be.
func (r *running) addressed(d *Desired) []Peer {
	var out []Peer
	for _, p := range d.Peers {
		if old, ok := r.peers[p.Name]; ok {
			out = append(out, old)
		}
		if p.Problem == "" {
			out = append(out, p)
		}
	}
	slices.SortStableFunc(out, func(a, b Peer) int { return a.Address.Compare(b.Address) })
	return slices.CompactFunc(out, func(a, b Peer) bool { return a.Address == b.Address })
}

// followed are the peers as they were accepted, sorted by name.
func (r *running) followed() []Peer {
	var out []Peer
	for _, p := range r.peers {
		out = append(out, p)
	}
	slices.SortFunc(out, comparePeers)
	return out
}

func (r *running) announced() []Route {
	out := make([]Route, 0, len(r.routes))
	for prefix, a := range r.routes {
		out = append(out, Route{prefix, a})
	}
	slices.SortFunc(out, func(a, b Route) int { return a.Prefix.Compare(b.Prefix) })
	return out
}

// removePeers ends the sessions that are not wanted, and those whose peer has another
// address now.
func (r *running) removePeers(ctx context.Context, d *Desired) error {
	var errs []error
	for _, old := range r.followed() {
		i := slices.IndexFunc(d.Peers, func(p Peer) bool { return p.Name == old.Name })
		if i >= 0 && (d.Peers[i].Problem != "" || d.Peers[i].Address == old.Address) {
			continue
		}
		if err := r.server.DeletePeer(ctx, &api.DeletePeerRequest{Address: old.Address.String()}); err != nil {
			errs = append(errs, fmt.Errorf("remove BGP peer %s: %w", old.Name, err))
			continue
		}
		delete(r.peers, old.Name)
	}
	return errors.Join(errs...)
}

// setPeer begins a session, or edits it. GoBGP begins it anew where that is
// unavoidable.
func (r *running) setPeer(ctx context.Context, p Peer, restarting bool) error {
	old, there := r.peers[p.Name]
	if p.Problem != "" || there && old == p {
		return nil
	}
	var err error
	if there {
		_, err = r.server.UpdatePeer(ctx, &api.UpdatePeerRequest{Peer: peerConfig(p, false)})
	} else {
		err = r.server.AddPeer(ctx, &api.AddPeerRequest{Peer: peerConfig(p, restarting && !r.begun[p.Name])})
	}
	if err != nil && there {
		// What it has now is unknown: the next attempt begins it anew.
		_ = r.server.DeletePeer(ctx, &api.DeletePeerRequest{Address: old.Address.String()}) // it fails only without such a peer
		delete(r.peers, p.Name)
	}
	if err != nil {
		return fmt.Errorf("set BGP peer %s: %w", p.Name, err)
	}
	r.peers[p.Name], r.begun[p.Name] = p, true
	return nil
}

// watchPeers has BFD watch the peers that want it.
func (r *running) watchPeers() {
	var all []bfd.Peer
	for _, p := range r.followed() {
		if p.BFDInterval > 0 {
			all = append(all, bfd.Peer{Address: p.Address, Source: p.Source, Interval: p.BFDInterval, Multiplier: p.BFDMultiplier, Hold: p.RestartTime})
		}
	}
	r.bfd.Set(all)
}

// reset ends the session with a peer that is gone.
func (r *running) reset(peer netip.Addr, why string, w *watch) {
	w.failed(peer, func(*watched) cause { return cause{FaultBFD, why} })
	// The only error is that there is no such session any more.
	_ = r.server.ResetPeer(context.Background(), &api.ResetPeerRequest{Address: peer.String(), Communication: bfdDown})
}

// bfdDown is what a peer is told that is there after all.
const bfdDown = "BFD down"

// withdrawOthers withdraws what is not wanted any more.
func (r *running) withdrawOthers(want []Route) error {
	wanted := make(map[netip.Prefix]bool, len(want))
	for _, route := range want {
		wanted[route.Prefix] = true
	}
	var gone []netip.Prefix
	for prefix := range r.routes {
		if !wanted[prefix] {
			gone = append(gone, prefix)
		}
	}
	slices.SortFunc(gone, netip.Prefix.Compare)
	var errs []error
	for some := range slices.Chunk(gone, batch) {
		errs = append(errs, r.withdraw(some))
	}
	return errors.Join(errs...)
}

// setRoutes announces what differs.
func (r *running) setRoutes(want []Route) error {
	var add []Route
	for _, route := range want {
		if old := r.routes[route.Prefix]; old == nil || !old.equal(route.Attributes) {
			add = append(add, route)
		}
	}
	var errs []error
	for some := range slices.Chunk(add, batch) {
		errs = append(errs, r.announce(some))
	}
	return errors.Join(errs...)
}

func (r *running) withdraw(prefixes []netip.Prefix) error {
	var paths []*apiutil.Path
	for _, prefix := range prefixes {
		p, err := withdrawal(prefix)
		if err != nil {
			return fmt.Errorf("withdraw %s: %w", prefix, err)
		}
		paths = append(paths, p)
	}
	if err := r.server.DeletePath(apiutil.DeletePathRequest{Paths: paths}); err != nil {
		return fmt.Errorf("withdraw %d routes: %w", len(paths), err)
	}
	for _, prefix := range prefixes {
		delete(r.routes, prefix)
	}
	return nil
}

func (r *running) announce(routes []Route) error {
	var paths []*apiutil.Path
	for _, route := range routes {
		p, err := path(route, r.global.NextHops, r.groups.of(route.Peers))
		if err != nil {
			return fmt.Errorf("announce %s: %w", route.Prefix, err)
		}
		paths = append(paths, p)
	}
	if _, err := r.server.AddPath(apiutil.AddPathRequest{Paths: paths}); err != nil {
		return fmt.Errorf("announce %d routes: %w", len(paths), err)
	}
	for _, route := range routes {
		r.routes[route.Prefix] = route.Attributes
	}
	return nil
}
