package bgp

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
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
	// LastError is why there is no session; empty while there is one.
	LastError string
	// Problem is why the peer cannot be followed as it is wanted.
	Problem string
	// Breaks counts how often the session broke.
	Breaks int
}

// StateEstablished is the State of a session that is up.
const StateEstablished = "Established"

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
	password      bool
	speaks        [2]bool
	for4, for6    int       // routes that the peer is to have
	halfway       time.Time // since when BFD is in state Init; zero: it is not
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
			if p.speaks[0] {
				known.Announced += p.for4
			}
			if p.speaks[1] {
				known.Announced += p.for6
			}
			known.LastError = ""
		} else {
			known.Received, known.Restart = 0, false
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
		p.Since = at
		p.speaks, p.Restart = capabilities(e.Peer.State.RemoteCap)
	case !p.Up() && was:
		p.Since = at
		p.Breaks++
	}
	if why := p.explain(e.Peer.State); why != "" {
		p.LastError = why
	}
	w.mu.Unlock()
	w.tell()
}

// failed takes in why a session could not be begun; empty: that says nothing.
func (w *watch) failed(a netip.Addr, why func(*watched) string) {
	w.mu.Lock()
	text := ""
	if p, known := w.peers[a]; known {
		if text = why(p); text != "" {
			p.LastError = text
		}
	}
	w.mu.Unlock()
	if text != "" {
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
		p.Received, p.BFD = 0, ""
		for _, f := range n.AfiSafis {
			p.Received += int(f.GetState().GetReceived())
		}
		if n.GetBfd().GetEnabled() {
			p.BFD = bfdName(n.GetState().GetBfdState().GetSessionState())
		}
		switch {
		case p.BFD != "Init" || !p.Up():
			p.halfway = time.Time{}
		case p.halfway.IsZero():
			p.halfway = time.Now()
		}
	})
	w.tell()
}

// stuckTime is far more than BFD needs to get from Init to Up.
const stuckTime = 4 * time.Second

// stuck are the addresses of peers whose BFD does not get on. The library binds the
// peer's discriminator once: when the peer begins its BFD session anew in between, as
// FRR does when the BGP session comes up, neither side understands the other again.
func (w *watch) stuck() (out []netip.Addr) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for a, p := range w.peers {
		if !p.halfway.IsZero() && time.Since(p.halfway) > stuckTime {
			out = append(out, a)
			p.halfway = time.Time{}
		}
	}
	return out
}

func stateName(s bgp.FSMState) string {
	names := []string{"Idle", "Connect", "Active", "OpenSent", "OpenConfirm", StateEstablished}
	if int(s) < 0 || int(s) >= len(names) {
		return names[0]
	}
	return names[s]
}

func bfdName(s api.BfdSessionState) string {
	switch s {
	case api.BfdSessionState_BFD_SESSION_STATE_UP:
		return "Up"
	case api.BfdSessionState_BFD_SESSION_STATE_INIT:
		return "Init"
	case api.BfdSessionState_BFD_SESSION_STATE_ADMIN_DOWN:
		return "AdminDown"
	case api.BfdSessionState_BFD_SESSION_STATE_DOWN, api.BfdSessionState_BFD_SESSION_STATE_UNSPECIFIED:
	}
	return "Down"
}

// capabilities are the families that the peer takes, and whether it keeps routes.
func capabilities(all []bgp.ParameterCapabilityInterface) (speaks [2]bool, restart bool) {
	multi := false
	for _, c := range all {
		switch c := c.(type) {
		case *bgp.CapMultiProtocol:
			multi = true
			speaks[0] = speaks[0] || c.CapValue == bgp.RF_IPv4_UC
			speaks[1] = speaks[1] || c.CapValue == bgp.RF_IPv6_UC
		case *bgp.CapGracefulRestart:
			restart = true
		}
	}
	if !multi {
		speaks[0] = true // RFC 4760: without the capability, IPv4 it is
	}
	return speaks, restart
}

// explain says why there is no session, in the operator's words; empty: nothing
// new is known.
func (w *watched) explain(s apiutil.PeerState) string {
	text := s.DisconnectMessage
	switch s.DisconnectReason { //nolint:exhaustive // the others say nothing to an operator, or are said by the text
	case api.PeerState_DISCONNECT_REASON_BAD_PEER_AS:
		return w.badPeerAS()
	case api.PeerState_DISCONNECT_REASON_NOTIFICATION_RECEIVED, api.PeerState_DISCONNECT_REASON_HARD_RESET:
		if strings.Contains(strings.ToLower(text), "bad peer as") {
			return w.badLocalAS()
		}
		return "the peer ended the session: " + text
	case api.PeerState_DISCONNECT_REASON_NOTIFICATION_SENT:
		return "this node ended the session: " + text
	case api.PeerState_DISCONNECT_REASON_HOLD_TIMER_EXPIRED:
		return "the peer was silent for the hold time"
	case api.PeerState_DISCONNECT_REASON_READ_FAILED, api.PeerState_DISCONNECT_REASON_WRITE_FAILED,
		api.PeerState_DISCONNECT_REASON_GRACEFUL_RESTART:
		return "the connection broke"
	case api.PeerState_DISCONNECT_REASON_INVALID_MSG:
		return w.badLocalAS() // a refusal in place of the word that begins the session
	}
	return ""
}

func (w *watched) badPeerAS() string {
	return fmt.Sprintf("the peer is in another autonomous system than AS %d: correct spec.asn of the BGPPeer, or the router", w.asn)
}

func (w *watched) badLocalAS() string {
	return fmt.Sprintf("the peer refuses this node, most likely because it expects another autonomous system than AS %d: correct the ASN of the BGPConfiguration or spec.localASN of the BGPPeer, or the router", w.localASN)
}

// refused explains what this node said to end a session that was being begun.
func (w *watched) refused(code, subcode uint8) string {
	switch {
	case code == bgp.BGP_ERROR_OPEN_MESSAGE_ERROR && subcode == bgp.BGP_ERROR_SUB_BAD_PEER_AS:
		return w.badPeerAS()
	case code == bgp.BGP_ERROR_FSM_ERROR:
		return w.badLocalAS() // as above, while the library waits for the peer's OPEN
	case code == bgp.BGP_ERROR_CEASE, code == bgp.BGP_ERROR_HOLD_TIMER_EXPIRED:
		return "" // of a session that was up: the event tells
	}
	return "this node refused the session: " + bgp.NewNotificationErrorCode(code, subcode).String()
}

func (w *watched) unreachable(why string) string {
	if strings.Contains(why, "timeout") && w.password {
		return "the peer does not answer: it cannot be reached, or its password is another one (" + why + ")"
	}
	if strings.Contains(why, "timeout") {
		return "the peer does not answer: it cannot be reached, or it wants a password (" + why + ")"
	}
	return "no connection: " + why
}
