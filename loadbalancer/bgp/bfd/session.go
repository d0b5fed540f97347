package bfd

import (
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"time"
)

// Peer is one to watch.
type Peer struct {
	// Address of the peer, with its zone if it is link-local.
	Address netip.Addr
	// Source is this node's end. Invalid: the kernel chooses.
	Source netip.Addr
	// Interval between two packets, each way; 50 ms to 10 s.
	Interval time.Duration
	// Multiplier is how many packets have to be missing, 2 and more.
	Multiplier uint8
	// Hold is how long the peer is asked to go without a packet when Run ends: for a
	// restart. 0: the session is taken down instead.
	Hold time.Duration
}

// listening is the least time for which a session that may have been held says nothing:
// the peer is heard in that time, and what it says decides.
const listening = time.Second

// slow is the least interval of a session that is not up (RFC 5880, section 6.8.3).
const slow = time.Second

// session is the state of one, without clock and sockets.
type session struct {
	peer         Peer
	state        State
	diag         diagnostic
	mine, theirs uint32 // discriminators
	theirRx      time.Duration
	// tx and rx are the intervals in force. They differ from the wanted one until the
	// peer has confirmed it.
	tx, rx  time.Duration
	theirTx time.Duration
	missing uint8 // how many packets of the peer's may be missing
	polling bool
	expires time.Time // when the peer counts as gone; zero: nothing was heard of it
	sendAt  time.Time
	// resumes: neither side has said anything since the beginning, and the peer may
	// have held the session.
	resumes bool
	// patient is until when a session that resumes may wait for a way to hear the peer:
	// what it was asked for must not run out.
	patient time.Time
}

func newSession(p Peer, resumes bool, now time.Time) *session {
	s := &session{
		peer: p, state: Down, mine: discriminator(p.Address), theirRx: time.Microsecond, tx: max(slow, p.Interval), rx: p.Interval,
		missing: 1, sendAt: now, resumes: resumes,
	}
	if resumes {
		s.sendAt, s.patient = now.Add(p.window()), now.Add(p.Hold/2)
	}
	return s
}

// window is how long a session that may have been held says nothing: the peer sends as
// rarely as was agreed on, and must be heard before it hears of a session that is down.
func (p Peer) window() time.Duration {
	return max(listening, min(time.Duration(p.Multiplier)*p.Interval, p.Hold/2))
}

// deaf takes in that the peer cannot be heard before the next attempt to listen: nothing
// it says can decide.
func (s *session) deaf(now time.Time) {
	at := now.Add(retry + s.peer.window())
	if at.After(s.patient) {
		at = s.patient
	}
	if s.resumes && at.After(s.sendAt) {
		s.sendAt = at
	}
}

// discriminator is the session's number. It is the same after a restart, so that what
// the peer has held goes on.
func discriminator(peer netip.Addr) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(peer.String()))
	return max(h.Sum32(), 1)
}

// edit takes in other intervals. What makes packets rarer waits until the peer knows.
func (s *session) edit(p Peer, now time.Time) {
	s.peer = p
	s.tx, s.rx = min(s.tx, s.wanted()), max(s.rx, p.Interval)
	s.polling = true
	if !s.resumes { // else the peer would hear that the session is down
		s.sendAt = now
	}
}

// wanted is the interval at which the session would like to send.
func (s *session) wanted() time.Duration {
	if s.state == Up {
		return s.peer.Interval
	}
	return max(slow, s.peer.Interval)
}

// receive takes in a packet that is this session's, and reports whether the peer
// says that it does not hear this node any more. A peer whose BFD began anew, with
// another discriminator, is no loss: it is there, and if all of it began anew BGP
// knows. FRR begins anew when the BGP session comes up.
func (s *session) receive(p packet, now time.Time) (lost bool) {
	anew := p.my != s.theirs
	s.theirs, s.theirRx, s.theirTx, s.missing = p.my, p.rx, p.tx, p.multiplier
	if p.final && s.polling {
		s.polling, s.tx, s.rx = false, s.wanted(), s.peer.Interval
	}
	resumes := s.resumes && p.state == Up && p.your == s.mine
	s.resumes = false
	switch {
	case resumes:
		s.enter(Up, diagNone, now)
	case p.state == AdminDown:
		if s.state != Down {
			s.enter(Down, diagNeighbour, now)
		}
	case s.state == Down && p.state == Down:
		s.enter(Init, diagNone, now)
	case s.state == Down && p.state == Init, s.state == Init && p.state >= Init:
		s.enter(Up, diagNone, now)
	case s.state == Up && p.state == Down:
		s.enter(Down, diagNeighbour, now)
		lost = !anew
	}
	s.expires = now.Add(s.detection())
	// The peer may take more packets now than when the next one was planned.
	if latest := now.Add(max(s.tx, s.theirRx)); s.sendAt.After(latest) {
		s.sendAt = latest
	}
	return lost
}

// detection is how long the peer may be silent.
func (s *session) detection() time.Duration {
	return time.Duration(s.missing) * max(s.rx, s.theirTx)
}

// expire takes in that the peer was silent for too long, and reports whether that
// ends a session that was up.
func (s *session) expire(now time.Time) (lost bool) {
	lost = s.state == Up
	s.theirs, s.theirRx, s.expires = 0, time.Microsecond, time.Time{}
	if s.state != Down {
		s.enter(Down, diagExpired, now)
	}
	return lost
}

// enter changes the state and lets the peer know at once.
func (s *session) enter(to State, why diagnostic, now time.Time) {
	s.state, s.diag, s.sendAt = to, why, now
	s.tx, s.rx = s.wanted(), s.peer.Interval
	s.polling = to == Up // the interval is another one now
}

// packet is what the session has to say.
func (s *session) packet() packet {
	return packet{
		state: s.state, diag: s.diag, poll: s.polling, multiplier: s.peer.Multiplier, my: s.mine, your: s.theirs,
		tx: s.wanted(), rx: s.peer.Interval,
	}
}

// holding is the last packet before a restart: the peer is to wait for the next one.
func (s *session) holding() packet {
	p := s.packet()
	p.poll, p.tx = true, max(p.tx, s.peer.Hold/time.Duration(s.peer.Multiplier))
	return p
}

// sent plans the next packet, with the jitter that keeps sessions from marching in
// step (RFC 5880, section 6.8.7).
func (s *session) sent(now time.Time) {
	s.resumes = false
	every := max(s.tx, s.theirRx)
	s.sendAt = now.Add(every - time.Duration(rand.Int64N(int64(every)/4)))
}

// next is when something is due.
func (s *session) next() time.Time {
	if s.theirRx == 0 { // the peer wants none
		return s.expires
	}
	if !s.expires.IsZero() && s.expires.Before(s.sendAt) {
		return s.expires
	}
	return s.sendAt
}
