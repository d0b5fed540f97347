package bgp

import (
	"fmt"
	"strings"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// capabilities are the families that the peer takes, and whether it keeps routes.
func capabilities(all []bgp.ParameterCapabilityInterface) (for4, for6, restart bool) {
	multi := false
	for _, c := range all {
		switch c := c.(type) {
		case *bgp.CapMultiProtocol:
			multi = true
			for4 = for4 || c.CapValue == bgp.RF_IPv4_UC
			for6 = for6 || c.CapValue == bgp.RF_IPv6_UC
		case *bgp.CapGracefulRestart:
			restart = true
		}
	}
	// RFC 4760: without the capability, IPv4 it is.
	return for4 || !multi, for6, restart
}

// explain says why there is no session; without text nothing new is known.
func (w *watched) explain(s apiutil.PeerState) cause {
	text := s.DisconnectMessage
	switch s.DisconnectReason { //nolint:exhaustive // the others say nothing to an operator, or are said by the text
	case api.PeerState_DISCONNECT_REASON_BAD_PEER_AS:
		return w.badPeerAS()
	case api.PeerState_DISCONNECT_REASON_NOTIFICATION_RECEIVED, api.PeerState_DISCONNECT_REASON_HARD_RESET:
		if strings.Contains(strings.ToLower(text), "bad peer as") {
			return w.badLocalAS()
		}
		return cause{FaultPeerEnded, "the peer ended the session: " + text}
	case api.PeerState_DISCONNECT_REASON_NOTIFICATION_SENT:
		if w.Reason == FaultBFD {
			return cause{} // that is why
		}
		return cause{FaultNodeEnded, "this node ended the session: " + text}
	case api.PeerState_DISCONNECT_REASON_HOLD_TIMER_EXPIRED:
		return cause{FaultHoldTime, "the peer was silent for the hold time"}
	case api.PeerState_DISCONNECT_REASON_READ_FAILED, api.PeerState_DISCONNECT_REASON_WRITE_FAILED,
		api.PeerState_DISCONNECT_REASON_GRACEFUL_RESTART:
		return cause{FaultBroken, "the connection broke"}
	case api.PeerState_DISCONNECT_REASON_INVALID_MSG:
		return w.badLocalAS() // a refusal in place of the word that begins the session
	}
	return cause{}
}

func (w *watched) badPeerAS() cause {
	return cause{FaultPeerASN, fmt.Sprintf("the peer is in another autonomous system than AS %d: correct spec.asn of the BGPPeer, or the router", w.asn)}
}

func (w *watched) badLocalAS() cause {
	return cause{FaultLocalASN, fmt.Sprintf("the peer refuses this node, most likely because it expects another autonomous system than AS %d: correct the ASN of the BGPConfiguration or spec.localASN of the BGPPeer, or the router", w.localASN)}
}

// refused explains what this node said to end a session that was being begun.
func (w *watched) refused(code, subcode uint8) cause {
	switch {
	case code == bgp.BGP_ERROR_OPEN_MESSAGE_ERROR && subcode == bgp.BGP_ERROR_SUB_BAD_PEER_AS:
		return w.badPeerAS()
	case code == bgp.BGP_ERROR_FSM_ERROR:
		return w.badLocalAS() // as above, while the library waits for the peer's OPEN
	case code == bgp.BGP_ERROR_CEASE, code == bgp.BGP_ERROR_HOLD_TIMER_EXPIRED:
		return cause{} // of a session that was up: the event tells
	}
	return cause{FaultNodeEnded, "this node refused the session: " + bgp.NewNotificationErrorCode(code, subcode).String()}
}

func (w *watched) unreachable(why string) cause {
	silent := strings.Contains(why, "timeout")
	switch {
	case w.far && w.multihop == 0:
		return cause{FaultTooFar, "the peer is on none of this node's networks, and spec.multihop of the BGPPeer is not set: its packets go one hop (" + why + ")"}
	case !silent:
		return cause{FaultRefused, "no connection: " + why}
	case w.password:
		return cause{FaultSilent, "the peer does not answer: it cannot be reached, or its password is another one (" + why + ")"}
	}
	return cause{FaultSilent, "the peer does not answer: it cannot be reached, or it wants a password (" + why + ")"}
}
