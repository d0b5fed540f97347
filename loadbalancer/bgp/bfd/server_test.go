package bfd

import (
	"context"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestStrangersAreRefused: what is not the peer's own, from this network and of this
// session, is counted and has no effect.
func TestStrangersAreRefused(t *testing.T) {
	var refused atomic.Int32
	s := New(Options{Lost: func(netip.Addr, string) {}, Changed: func() {}, Refused: func() { refused.Add(1) }})
	peer := netip.MustParseAddr("127.0.0.9")
	s.Set([]Peer{{Address: peer, Interval: time.Second, Multiplier: 3}})
	t.Cleanup(func() { s.Set(nil) })
	s.step(time.Now()) // sends, and so has an address
	mine, own := s.sessions[peer].mine, addrOf(s.sessions[peer].out.LocalAddr())
	way := heard{peer, own, 255}
	down := packet{state: Down, multiplier: 3, my: 5, tx: time.Second, rx: time.Second}
	other := down
	other.your = mine + 1
	for name, f := range map[string]func(){
		"garbage":              func() { s.take(way, []byte("who are you?")) },
		"nothing":              func() { s.take(way, nil) },
		"an unknown sender":    func() { s.take(heard{netip.MustParseAddr("127.0.0.10"), own, 255}, down.append(nil)) },
		"from behind a router": func() { s.take(heard{peer, own, 254}, down.append(nil)) },
		"another session":      func() { s.take(way, other.append(nil)) },
		"to another address":   func() { s.take(heard{peer, netip.MustParseAddr("127.0.0.11"), 255}, down.append(nil)) },
	} {
		before := refused.Load()
		f()
		if refused.Load() != before+1 || s.Sessions()[0].State != Down {
			t.Errorf("%s: counted %d, %+v", name, refused.Load()-before, s.Sessions())
		}
	}
	s.take(way, down.append(nil))
	if got := s.Sessions()[0]; got.State != Init || refused.Load() != 6 {
		t.Errorf("the peer itself: %+v, counted %d", got, refused.Load())
	}
}

// A socket that leads nowhere is made anew, and what is wrong with it is told.
func TestSocketIsMadeAnew(t *testing.T) {
	news := 0
	s := New(Options{Lost: func(netip.Addr, string) {}, Changed: func() { news++ }, Refused: func() {}})
	peer := netip.MustParseAddr("127.0.0.9")
	s.Set([]Peer{{Address: peer, Interval: 100 * time.Millisecond, Multiplier: 3}})
	t.Cleanup(func() { s.Set(nil) })
	r := s.sessions[peer]
	now := time.Now()
	anew := func(what string, want bool) {
		t.Helper()
		before := r.out
		if s.step(now); (r.out != before) != want || r.out == nil {
			t.Errorf("%s: made anew %v, want %v", what, r.out != before, want)
		}
	}
	anew("first", true)
	now = now.Add(redial)
	anew("down for a while", false)
	now = now.Add(time.Second)
	anew("down for long", true)
	for _, state := range []State{Down, Init} {
		r.receive(packet{state: state, multiplier: 3, my: 5, your: r.mine, tx: time.Hour, rx: 100 * time.Millisecond}, now)
	}
	now = now.Add(time.Hour)
	anew("up", false)
	now = now.Add(3 * time.Hour)
	anew("expired", true)
	now, r.resumes = now.Add(time.Minute), true
	r.sendAt = now.Add(time.Second)
	anew("it may be held", false)
	r.resumes = false
	anew("it is not any more", true)
	r.sendAt, news = now, 0
	_ = r.out.Close()
	if s.step(now); s.Sessions()[0].Problem != "BFD: use of closed network connection" || news != 1 {
		t.Errorf("%+v, told %d times", s.Sessions(), news)
	}
	now = now.Add(redial + time.Second)
	anew("it could not be used", true)
	if got := s.Sessions()[0].Problem; got != "" || news != 2 {
		t.Errorf("%q, told %d times", got, news)
	}
}

// A Server that ends before it has heard the peers that hold their sessions says nothing:
// the next one may go on with them.
func TestEndsWhileOthersHold(t *testing.T) {
	end := func(restarting bool) *session {
		s := New(Options{Lost: func(netip.Addr, string) {}, Changed: func() {}, Refused: func() {}, Restarting: restarting})
		peer := netip.MustParseAddr("127.0.0.9")
		s.Set([]Peer{{Address: peer, Interval: time.Second, Multiplier: 3, Hold: time.Minute}})
		r := s.sessions[peer]
		r.open(time.Now())
		s.resign()
		if r.out != nil {
			t.Error("its socket is open")
		}
		return r.session
	}
	if s := end(true); s.state != Down {
		t.Errorf("a held session became %s", s.state)
	}
	if s := end(false); s.state != AdminDown {
		t.Errorf("a session of its own became %s", s.state)
	}
}

// A loss is told once, and a process that stood still gives the peers time, once.
func TestLossIsTold(t *testing.T) {
	lost := make(chan string, 9)
	s := New(Options{Lost: func(_ netip.Addr, why string) { lost <- why }, Changed: func() {}, Refused: func() {}})
	peer := netip.MustParseAddr("127.0.0.9")
	s.Set([]Peer{{Address: peer, Interval: 100 * time.Millisecond, Multiplier: 3}})
	t.Cleanup(func() { s.Set(nil) })
	r := s.sessions[peer]
	now := time.Now()
	for _, state := range []State{Down, Init} {
		r.receive(packet{state: state, multiplier: 3, my: 5, your: r.mine, tx: 100 * time.Millisecond, rx: 100 * time.Millisecond}, now)
	}
	if r.state != Up {
		t.Fatalf("%+v", r.session)
	}
	at := r.expires
	s.awake(at, at.Add(2*stall))
	if want := at.Add(2*stall + r.peer.Interval); r.expires != want {
		t.Errorf("it expires at %v, want %v", r.expires, want)
	}
	at = r.expires
	s.awake(at, at.Add(2*stall))
	if r.expires != at {
		t.Error("there was time twice")
	}
	s.step(at)
	s.step(at.Add(time.Second))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.report(ctx) }()
	if why := <-lost; why != "BFD heard nothing of the peer for 300ms" {
		t.Error(why)
	}
	cancel()
	<-done
	if len(lost) > 0 {
		t.Error("it was told twice")
	}
}
