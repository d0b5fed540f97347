package bfd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	// Port is where BFD of one hop is heard (RFC 5881).
	Port = 3784
	// stall is by how much the loop may be late before it is this process that stood
	// still: what the peers sent meanwhile is yet to be read.
	stall = 20 * time.Millisecond
	// retry is the time between two attempts to listen, and the longest between two
	// looks at what is due.
	retry = time.Second
	// farewells are how often a peer is told that this end goes down on purpose: any of
	// the packets may be lost.
	farewells = 3
	// redial is how long a socket is kept by which nothing comes of a peer. It keeps the
	// source address and the route of the time when it was made.
	redial = 5 * time.Second
)

// Status is how it stands with a peer.
type Status struct {
	Address netip.Addr
	State   State
	// Problem is why no packets can be taken, or sent; empty: they can.
	Problem string
}

// Options of New.
type Options struct {
	// Lost is called, by one goroutine, when a peer that was there is gone, with the
	// reason.
	Lost func(peer netip.Addr, why string)
	// Changed is called when Sessions has something new. It must not block.
	Changed func()
	// Restarting: an earlier Server may have left sessions that the peers hold.
	Restarting bool
	// Refused is called for each packet that is no session's. It must not block.
	Refused func()
}

// Server watches peers.
type Server struct {
	o    Options
	wake chan struct{}
	lost chan loss

	mu       sync.Mutex // guards the rest
	sessions map[netip.Addr]*running
	problem  [2]string // why there is no listener, by family
}

// running is a session with its socket.
type running struct {
	*session
	out     *net.UDPConn // nil: there is no way to the peer just now
	dialled time.Time
	problem string
	// forgiven: the peer got more time once since it was heard last.
	forgiven bool
}

type loss struct {
	peer netip.Addr
	why  string
}

// New returns a Server that does nothing before Run.
func New(o Options) *Server {
	return &Server{o: o, wake: make(chan struct{}, 1), lost: make(chan loss, 256), sessions: map[netip.Addr]*running{}}
}

// Set hands over the peers to watch. Addresses are unique. Those that are not wanted
// any more are taken down.
func (s *Server) Set(peers []Peer) {
	now := time.Now()
	s.mu.Lock()
	wanted := map[netip.Addr]bool{}
	for _, p := range peers {
		wanted[p.Address] = true
		r := s.sessions[p.Address]
		switch {
		case r != nil && r.peer == p:
		case r != nil && r.peer.Source == p.Source:
			r.edit(p, now)
		default:
			r.end(false)
			s.sessions[p.Address] = &running{session: newSession(p, s.o.Restarting && r == nil, now)}
		}
	}
	for a, r := range s.sessions {
		if !wanted[a] {
			r.end(false)
			delete(s.sessions, a)
		}
	}
	s.mu.Unlock()
	s.nudge()
	s.o.Changed()
}

func (s *Server) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Sessions are the states, sorted by address.
func (s *Server) Sessions() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Status, 0, len(s.sessions))
	for a, r := range s.sessions {
		st := Status{Address: a, State: r.state, Problem: s.problem[family(a)]}
		if st.Problem == "" {
			st.Problem = r.problem
		}
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b Status) int { return a.Address.Compare(b.Address) })
	return out
}

func family(a netip.Addr) int {
	if a.Is6() {
		return 1
	}
	return 0
}

// Run watches until ctx is done, and takes the sessions down in order. On return all
// it started has ended.
func (s *Server) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	listeners := &listeners{server: s, readers: &all}
	defer listeners.close()
	working, end := context.WithCancel(ctx)
	defer end()
	all.Go(func() { s.report(working) })
	timer := time.NewTimer(0)
	defer timer.Stop()
	planned := time.Now()
	for {
		select {
		case <-ctx.Done():
			s.resign()
			return nil
		case <-s.wake:
		case <-timer.C:
		}
		now := time.Now()
		s.awake(planned, now)
		listeners.adjust(ctx, now)
		planned = s.step(now)
		timer.Reset(time.Until(planned))
	}
}

// awake gives the peers more time, once, if this process stood still.
func (s *Server) awake(planned, now time.Time) {
	if now.Sub(planned) < stall {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.sessions {
		if grace := now.Add(r.peer.Interval); !r.forgiven && !r.expires.IsZero() && r.expires.Before(grace) {
			r.expires, r.forgiven = grace, true
		}
	}
}

// step does what is due and returns when the next thing is.
func (s *Server) step(now time.Time) time.Time {
	next, news := now.Add(retry), false
	s.mu.Lock()
	for a, r := range s.sessions {
		problem := r.problem
		if !r.expires.IsZero() && !now.Before(r.expires) {
			silent := r.detection()
			if r.expire(now) {
				s.tell(a, fmt.Sprintf("BFD heard nothing of the peer for %v", silent))
			}
			r.hangUp()
			news = true
		}
		if r.stale(now) {
			r.hangUp()
		}
		r.open(now)
		if s.problem[family(a)] != "" {
			r.deaf(now)
		}
		if r.theirRx > 0 && !now.Before(r.sendAt) {
			r.send(r.packet())
			r.sent(now)
		}
		news = news || r.problem != problem
		if at := r.next(); !at.IsZero() && at.Before(next) {
			next = at
		}
	}
	s.mu.Unlock()
	if news {
		s.o.Changed()
	}
	return next
}

// tell queues the loss of a peer. The queue holds more than there are peers.
func (s *Server) tell(a netip.Addr, why string) {
	select {
	case s.lost <- loss{a, why}:
	default:
	}
}

func (s *Server) report(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case l := <-s.lost:
			s.o.Lost(l.peer, l.why)
		}
	}
}

// take takes in what was heard.
func (s *Server) take(way heard, b []byte) {
	p, err := parse(b)
	s.mu.Lock()
	r := s.sessions[way.from]
	// 255 hops left: no router was on the way, so the sender is on this network.
	if err != nil || r == nil || way.hops != 255 || !r.meant(way.to) || p.your != 0 && p.your != r.mine {
		s.mu.Unlock()
		s.o.Refused()
		return
	}
	was := r.state
	r.forgiven = false
	if r.receive(p, time.Now()) {
		s.tell(way.from, "BFD of the peer does not hear this node")
	}
	if p.poll {
		answer := r.packet()
		answer.poll, answer.final = false, true
		r.send(answer)
	}
	news := r.state != was
	s.mu.Unlock()
	if news {
		s.nudge()
		s.o.Changed()
	}
}

// resign has the peers hold the sessions, or takes them down on purpose.
func (s *Server) resign() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.sessions {
		r.end(true)
	}
	clear(s.sessions)
}

// end takes a session down on purpose, or has the peer hold it for a restart.
func (r *running) end(restart bool) {
	if r == nil {
		return
	}
	if restart && r.resumes {
		r.hangUp() // the peer holds the session still, and for this one nothing has begun
		return
	}
	last := r.holding()
	if !restart || r.state != Up || r.peer.Hold == 0 {
		r.state, r.diag, r.polling = AdminDown, diagAdmin, false
		last = r.packet()
	}
	for range farewells {
		r.send(last)
	}
	r.hangUp()
}

// hangUp closes the socket that the session sends from.
func (r *running) hangUp() {
	if r.out != nil {
		_ = r.out.Close()
		r.out = nil
	}
}

// meant reports whether a packet to an address is for this session: the peer may have
// others, with other addresses of this machine.
func (r *running) meant(to netip.Addr) bool {
	return r.out != nil && addrOf(r.out.LocalAddr()).WithZone("") == to.WithZone("")
}

// stale reports whether another socket may do better: the device came back, or has
// another address. One whose peer may still hold the session has to hear it first.
func (r *running) stale(now time.Time) bool {
	return r.out != nil && !r.resumes && r.state == Down && r.expires.IsZero() && now.Sub(r.dialled) > redial
}

// open makes the socket that the session sends from.
func (r *running) open(now time.Time) {
	if r.out != nil {
		return
	}
	out, err := dial(r.peer)
	if err != nil {
		r.problem = "BFD: " + reason(err)
		return
	}
	r.out, r.dialled = out, now
}

func (r *running) send(p packet) {
	if r.out == nil {
		return
	}
	_, err := r.out.Write(p.append(make([]byte, 0, packetSize)))
	switch {
	case errors.Is(err, syscall.ECONNREFUSED): // the answer to an earlier packet; it shows in the peer's silence
	case err != nil:
		r.problem = "BFD: " + reason(err)
	default:
		r.problem = ""
	}
}

// reason is an error without the port, which is another one each time.
func reason(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err.Error()
	}
	return err.Error()
}
