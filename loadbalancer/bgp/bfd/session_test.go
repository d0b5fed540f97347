package bfd

import (
	"net/netip"
	"testing"
	"time"
)

// pair is two sessions and a wire between them, with a clock of its own.
type pair struct {
	now  time.Time
	all  [2]*session
	cut  bool
	deaf int // who hears nothing; 0: both hear
	lost [2]int
	sent [2]int
}

func newPair(intervals ...time.Duration) *pair {
	p := &pair{now: time.Unix(1000, 0)}
	for i := range p.all {
		p.all[i] = newSession(Peer{Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), Interval: intervals[i], Multiplier: 3, Hold: time.Minute}, false, p.now)
	}
	return p
}

// run lets time pass in steps of a millisecond.
func (p *pair) run(d time.Duration) {
	for end := p.now.Add(d); p.now.Before(end); p.now = p.now.Add(time.Millisecond) {
		for i, s := range p.all {
			if !s.expires.IsZero() && !p.now.Before(s.expires) && s.expire(p.now) {
				p.lost[i]++
			}
			if s.theirRx > 0 && !p.now.Before(s.sendAt) {
				p.deliver(1-i, s.packet())
				s.sent(p.now)
			}
		}
	}
}

func (p *pair) deliver(to int, k packet) {
	p.sent[1-to]++
	if p.cut || p.deaf > 0 && to == p.deaf {
		return
	}
	k, err := parse(k.append(nil))
	if err != nil {
		panic(err) // a session says nothing that it would not take
	}
	s := p.all[to]
	if s.receive(k, p.now) {
		p.lost[to]++
	}
	if k.poll {
		answer := s.packet()
		answer.poll, answer.final = false, true
		p.deliver(1-to, answer)
	}
}

func (p *pair) states() [2]State { return [2]State{p.all[0].state, p.all[1].state} }

func TestSessionComesUpAndIsMissed(t *testing.T) {
	p := newPair(100*time.Millisecond, 100*time.Millisecond)
	p.run(3 * time.Second)
	if p.states() != [2]State{Up, Up} || p.lost != [2]int{} {
		t.Fatalf("%v, lost %v", p.states(), p.lost)
	}
	for _, s := range p.all {
		if s.polling || s.tx != 100*time.Millisecond || s.detection() != 300*time.Millisecond {
			t.Errorf("polling %v, every %v, detection %v", s.polling, s.tx, s.detection())
		}
	}
	before := p.sent[0]
	p.run(10 * time.Second)
	if n := p.sent[0] - before; n < 100 || n > 134 { // three quarters of the interval to all of it
		t.Errorf("%d packets in 10 s", n)
	}
	p.cut = true
	p.run(299 * time.Millisecond)
	p.run(102 * time.Millisecond) // the last packet may be a whole interval old
	if p.lost != [2]int{1, 1} || p.states() != [2]State{Down, Down} {
		t.Fatalf("%v, lost %v", p.states(), p.lost)
	}
	if p.all[0].diag != diagExpired || p.all[0].theirs != 0 {
		t.Errorf("%+v", p.all[0])
	}
	p.cut = false
	p.run(3 * time.Second)
	if p.states() != [2]State{Up, Up} || p.lost != [2]int{1, 1} {
		t.Errorf("%v, lost %v", p.states(), p.lost)
	}
}

// The slower side decides; a side that is not up is slow.
func TestSlowerSideDecides(t *testing.T) {
	p := newPair(50*time.Millisecond, 500*time.Millisecond)
	before := p.sent
	p.cut = true
	p.run(10 * time.Second)
	if n := p.sent[0] - before[0]; n > 14 {
		t.Errorf("%d packets in 10 s to nobody", n)
	}
	p.cut = false
	p.run(5 * time.Second)
	if p.all[0].detection() != 1500*time.Millisecond || p.all[1].detection() != 1500*time.Millisecond {
		t.Errorf("%v and %v", p.all[0].detection(), p.all[1].detection())
	}
	before = p.sent
	p.run(10 * time.Second)
	if n := p.sent[0] - before[0]; n > 28 {
		t.Errorf("%d packets in 10 s to a peer that takes two a second", n)
	}
}

// A side that goes down on purpose is not lost, nor is one that begins anew.
func TestNewBeginningIsNoLoss(t *testing.T) {
	p := newPair(100*time.Millisecond, 100*time.Millisecond)
	p.run(3 * time.Second)
	p.all[1].state, p.all[1].diag = AdminDown, diagAdmin
	p.deliver(0, p.all[1].packet())
	if p.all[0].state != Down || p.all[0].diag != diagNeighbour || p.lost[0] != 0 {
		t.Fatalf("%+v, lost %v", p.all[0], p.lost)
	}
	p.all[1] = newSession(p.all[1].peer, false, p.now)
	p.all[1].mine = 77
	p.run(3 * time.Second)
	if p.states() != [2]State{Up, Up} || p.lost != [2]int{} {
		t.Fatalf("%v, lost %v", p.states(), p.lost)
	}
	// It begins anew without a word, in less than the detection time.
	p.all[1] = newSession(p.all[1].peer, false, p.now)
	p.all[1].mine = 78
	p.run(3 * time.Second)
	if p.states() != [2]State{Up, Up} || p.lost != [2]int{} {
		t.Errorf("%v, lost %v", p.states(), p.lost)
	}
}

// A peer that does not hear this side says so, and that is a loss.
func TestPeerDoesNotHear(t *testing.T) {
	p := newPair(100*time.Millisecond, 100*time.Millisecond)
	p.run(3 * time.Second)
	p.deaf = 1
	p.run(time.Second)
	if p.lost != [2]int{1, 1} {
		t.Errorf("lost %v, %+v", p.lost, p.all[0])
	}
}

// Other intervals come without a break, whether longer or shorter.
func TestIntervalsAreEdited(t *testing.T) {
	p := newPair(100*time.Millisecond, 100*time.Millisecond)
	p.run(3 * time.Second)
	for _, interval := range []time.Duration{2 * time.Second, 50 * time.Millisecond} {
		peer := p.all[0].peer
		peer.Interval = interval
		p.all[0].edit(peer, p.now)
		p.run(10 * time.Second)
		if p.lost != [2]int{} || p.all[0].polling || p.all[0].tx != interval || p.all[0].rx != interval {
			t.Fatalf("%v: lost %v, %+v", interval, p.lost, p.all[0])
		}
		if want := 3 * max(interval, 100*time.Millisecond); p.all[0].detection() != want || p.all[1].detection() != want {
			t.Errorf("%v: %v and %v, want %v", interval, p.all[0].detection(), p.all[1].detection(), want)
		}
	}
}

func TestPeerThatWantsNoPackets(t *testing.T) {
	p := newPair(100*time.Millisecond, 100*time.Millisecond)
	p.run(3 * time.Second)
	k := p.all[1].packet()
	k.rx = 0
	p.all[0].receive(k, p.now)
	if s := p.all[0]; s.next() != s.expires {
		t.Errorf("next is %v, and the peer expires at %v", s.next(), s.expires)
	}
}

// A session that is held survives a restart of minutes less than the hold, and is lost
// after it; who held nothing begins as always.
func TestHold(t *testing.T) {
	for _, tt := range []struct {
		interval, away time.Duration
		lost           int
	}{
		{100 * time.Millisecond, 0, 0}, {100 * time.Millisecond, 50 * time.Second, 0}, {100 * time.Millisecond, 61 * time.Second, 1},
		{5 * time.Second, 0, 0}, {5 * time.Second, 40 * time.Second, 0}, {5 * time.Second, 61 * time.Second, 1},
	} {
		p := newPair(tt.interval, tt.interval)
		p.run(30 * tt.interval)
		p.deliver(0, p.all[1].holding())
		peer := p.all[1].peer
		p.cut = true
		p.run(tt.away)
		p.cut = false
		p.all[1] = newSession(peer, true, p.now)
		p.run(2 * tt.interval)
		if tt.lost == 0 && p.all[1].state != Up || p.lost[0] != tt.lost {
			t.Errorf("every %v, away for %v: %v, lost %v", tt.interval, tt.away, p.states(), p.lost)
		}
		p.run(50 * tt.interval)
		if p.states() != [2]State{Up, Up} || p.lost[0] != tt.lost || p.all[0].detection() != 3*tt.interval {
			t.Errorf("every %v, away for %v, afterwards: %v, lost %v, detection %v", tt.interval, tt.away, p.states(), p.lost, p.all[0].detection())
		}
	}
}

// What may have been held is left in peace: an edit, and ears that are not there yet,
// say nothing to the peer before it was heard, but not for ever.
func TestHeldSessionIsLeftInPeace(t *testing.T) {
	now := time.Unix(1000, 0)
	peer := Peer{Address: netip.MustParseAddr("192.0.2.1"), Interval: 100 * time.Millisecond, Multiplier: 3, Hold: time.Minute}
	s := newSession(peer, true, now)
	peer.Interval = 200 * time.Millisecond
	s.edit(peer, now)
	if want := now.Add(listening); s.sendAt != want {
		t.Errorf("after an edit it speaks at %v, want %v", s.sendAt, want)
	}
	for _, tt := range []struct{ at, want time.Duration }{
		{0, retry + listening}, {10 * time.Second, 10*time.Second + retry + listening}, {29500 * time.Millisecond, 30 * time.Second}, {31 * time.Second, 30 * time.Second},
	} {
		if s.deaf(now.Add(tt.at)); s.sendAt != now.Add(tt.want) {
			t.Errorf("deaf after %v it speaks after %v, want %v", tt.at, s.sendAt.Sub(now), tt.want)
		}
	}
	s.sent(now)
	at := s.sendAt
	if s.deaf(now.Add(10 * time.Second)); s.sendAt != at {
		t.Error("it waits after it has spoken")
	}
}
