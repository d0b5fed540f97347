package bgp

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/onelb/onelb/loadbalancer/bgp/bfd"
)

// Session is how it stands with one peer.
type Session struct {
	Peer    string
	Address netip.Addr
	// State is Idle, Connect, Active, OpenSent, OpenConfirm or Established.
	State string
	// Since is when the session came up or broke last; zero: it was never up.
	Since time.Time
	// Announced is how many routes the peer gets.
	Announced int
	// Received is how many routes the peer has sent. None is accepted.
	Received int
	// Restart: the peer keeps the routes while this node's agent restarts.
	Restart bool
	// BFD is Up, Down, Init or AdminDown; empty: it is not used.
	BFD string
	// BFDProblem is why BFD cannot work; empty: it can, or is not used.
	BFDProblem string
	// LastError is why there is no session; empty while there is one.
	LastError string
	// Reason is the kind of LastError.
	Reason Fault
	// IPv4 and IPv6: the peer takes routes of the family.
	IPv4, IPv6 bool
	// HoldTime is what was agreed on; zero without session.
	HoldTime time.Duration
	// Problem is why the peer cannot be followed as it is wanted.
	Problem string
	// Breaks counts how often the session broke.
	Breaks int
}

// StateEstablished is the State of a session that is up.
const StateEstablished = "Established"

// Fault is the kind of what keeps a session from being there.
type Fault string

// The faults.
const (
	FaultPeerASN   Fault = "PeerASN"   // the peer is in another autonomous system than wanted
	FaultLocalASN  Fault = "LocalASN"  // the peer wants this node in another one
	FaultSilent    Fault = "Silent"    // no answer to the attempt to connect
	FaultTooFar    Fault = "TooFar"    // the same, and the peer is more than one hop away
	FaultRefused   Fault = "Refused"   // no connection
	FaultHoldTime  Fault = "HoldTime"  // no word for the hold time
	FaultBFD       Fault = "BFD"       // BFD found the peer gone
	FaultPeerEnded Fault = "PeerEnded" // the peer said so
	FaultNodeEnded Fault = "NodeEnded" // this node said so
	FaultBroken    Fault = "Broken"    // the connection broke
)

// cause is why there is no session, in the operator's words.
type cause struct {
	reason Fault
	text   string
}

// Up reports whether there is a session.
func (s Session) Up() bool { return s.State == StateEstablished }

func comparePeers(a, b Peer) int { return cmp.Compare(a.Name, b.Name) }

// watch knows how it stands with the peers. Events of the library and its owner
// write, anybody reads.
type watch struct {
	changed func()

	mu    sync.Mutex // guards the rest
	peers map[netip.Addr]*watched
	order []Session // settled last: names, addresses, problems
	last  []Session // told last
}

type watched struct {
	Session
	asn, localASN uint32
	password, far bool
	multihop      uint8
	for4, for6    int // routes that the peer is to have
}

func newWatch(changed func()) *watch {
	return &watch{changed: changed, peers: map[netip.Addr]*watched{}}
}

func (w *watch) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.peers)
	w.order = nil
}

// peer is what is known of an address. The caller holds mu.
func (w *watch) peer(a netip.Addr) *watched {
	p := w.peers[a]
	if p == nil {
		p = &watched{Session: Session{Address: a, State: "Idle"}}
		w.peers[a] = p
	}
	return p
}

// settle takes in what is desired, and what went wrong with it.
func (w *watch) settle(d *Desired, failure error) {
	w.mu.Lock()
	order := make([]Session, 0, len(d.Peers))
	keep := map[netip.Addr]bool{}
	for _, p := range d.Peers {
		s := Session{Peer: p.Name, Address: p.Address, Problem: p.Problem}
		if failure != nil && s.Problem == "" {
			s.Problem = failure.Error()
		}
		order, keep[p.Address] = append(order, s), true
		known := w.peer(p.Address)
		if p.Problem != "" {
			continue
		}
		known.asn, known.localASN, known.password = p.ASN, cmp.Or(p.LocalASN, d.Global.ASN), p.Password != ""
		known.far, known.multihop = p.Far && p.ASN != known.localASN, p.Multihop
		known.for4, known.for6 = 0, 0
		for _, r := range d.Routes {
			switch {
			case !p.gets(r):
			case r.Prefix.Addr().Is4():
				known.for4++
			default:
				known.for6++
			}
		}
	}
	for a := range w.peers {
		if !keep[a] {
			delete(w.peers, a)
		}
	}
	w.order = order
	w.mu.Unlock()
	w.tell()
}

// tell calls changed if there is something new.
func (w *watch) tell() {
	now := w.list()
	w.mu.Lock()
	news := !slices.Equal(now, w.last)
	w.last = now
	w.mu.Unlock()
	if news {
		w.changed()
	}
}

func (w *watch) list() []Session {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make([]Session, 0, len(w.order))
	for _, s := range w.order {
		p := w.peer(s.Address)
		known := p.Session
		known.Peer, known.Problem = s.Peer, s.Problem
		if known.Up() {
			if p.IPv4 {
				known.Announced += p.for4
			}
			if p.IPv6 {
				known.Announced += p.for6
			}
			known.LastError, known.Reason = "", ""
		} else {
			known.Received, known.Restart, known.IPv4, known.IPv6, known.HoldTime = 0, false, false, false, 0
		}
		out = append(out, known)
	}
	return out
}

func (w *watch) established() (n int) {
	for _, s := range w.list() {
		if s.Up() {
			n++
		}
	}
	return n
}

// event takes in what the library tells.
func (w *watch) event(e *apiutil.WatchEventMessage_PeerEvent, at time.Time) {
	if e.Type != apiutil.PEER_EVENT_STATE {
		return
	}
	w.mu.Lock()
	p, was := w.peer(e.Peer.Conf.NeighborAddress), false
	was = p.Up()
	p.State = stateName(e.Peer.State.SessionState)
	switch {
	case p.Up() && !was:
		p.Since, p.Reason, p.LastError = at, "", ""
		p.IPv4, p.IPv6, p.Restart = capabilities(e.Peer.State.RemoteCap)
	case !p.Up() && was:
		p.Since = at
		p.Breaks++
	}
	p.because(p.explain(e.Peer.State))
	w.mu.Unlock()
	w.tell()
}

// because notes a cause, if it says anything.
func (w *watched) because(c cause) bool {
	if c.text == "" {
		return false
	}
	w.Reason, w.LastError = c.reason, c.text
	return true
}

// failed takes in why a session could not be begun.
func (w *watch) failed(a netip.Addr, why func(*watched) cause) {
	w.mu.Lock()
	p, known := w.peers[a]
	news := known && p.because(why(p))
	w.mu.Unlock()
	if news {
		w.tell()
	}
}

// refresh reads what no event tells.
func (w *watch) refresh(ctx context.Context, r *running) {
	_ = r.server.ListPeer(ctx, &api.ListPeerRequest{}, func(n *api.Peer) { // it fails only when it does not run
		a, err := netip.ParseAddr(n.GetState().GetNeighborAddress())
		if err != nil {
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		p := w.peer(a)
		p.Received, p.HoldTime = 0, time.Duration(n.GetTimers().GetState().GetNegotiatedHoldTime())*time.Second
		for _, f := range n.AfiSafis {
			p.Received += int(f.GetState().GetReceived())
		}
	})
	w.observe(r.bfd.Sessions)
}

// observe takes in how it stands with BFD; sessions is called in the order of the changes.
func (w *watch) observe(sessions func() []bfd.Status) {
	w.mu.Lock()
	for _, p := range w.peers {
		p.BFD, p.BFDProblem = "", ""
	}
	for _, b := range sessions() {
		if p, known := w.peers[b.Address]; known {
			p.BFD, p.BFDProblem = b.State.String(), b.Problem
		}
	}
	w.mu.Unlock()
	w.tell()
}

func stateName(s bgp.FSMState) string {
	names := []string{"Idle", "Connect", "Active", "OpenSent", "OpenConfirm", StateEstablished}
	if int(s) < 0 || int(s) >= len(names) {
		return names[0]
	}
	return names[s]
}
