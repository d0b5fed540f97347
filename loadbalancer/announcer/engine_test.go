package announcer_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/onelb/onelb/loadbalancer/announcer"
	"github.com/onelb/onelb/loadbalancer/announcer/addr"
	"github.com/onelb/onelb/loadbalancer/announcer/arpfilter"
	"github.com/onelb/onelb/loadbalancer/announcer/member"
	"github.com/onelb/onelb/loadbalancer/announcer/wire"
)

// world is all that an engine touches, with time that passes as the test wants.
type world struct {
	t *testing.T
	*announcer.Engine
	self    string
	reports *reports
	changed chan struct{}
	stop    func()

	mu        sync.Mutex
	up        bool
	kernel    map[netip.Addr]time.Time // when it drops the address
	renewFail error
	stall     time.Duration // the next renewal takes so long
	announced []time.Time
	asked     []time.Time
	answerer  net.HardwareAddr // who answers questions; nil: nobody
	every     int              // every so many questions; 0: all
	members   []member.Member
	state     member.State // as told to the group
	ready     bool
	news      []member.Claim // to be drained
	claims    []member.Claim // announced by the engine
	held      map[netip.Addr]announcer.Holding
	filter    arpfilter.State
	on        func(index int, asked netip.Addr) // called with each question
	even      bool
	late      func() (lost bool) // CatchUp's
	slow      time.Duration      // a question takes so long
	peer      *world             // another one on the same wire
	ipvs      bool               // kube-proxy's interface is there
}

var (
	eth      = addr.Interface{Name: "eth0", Index: 2, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Networks: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/24")}}
	stranger = net.HardwareAddr{2, 9, 9, 9, 9, 9}
)

const life = 3 * time.Second

func (w *world) Interfaces() ([]addr.Interface, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := eth
	i.Up = w.up
	if w.ipvs {
		return []addr.Interface{i, {Name: "kube-ipvs0", Index: 9, Own: []netip.Addr{vip4}}}, nil
	}
	return []addr.Interface{i}, nil
}

func (w *world) Ours(func(netip.Addr) bool) ([]addr.Entry, error) {
	var out []addr.Entry
	for a, until := range w.kernel {
		out = append(out, addr.Entry{Address: a, Index: eth.Index, Valid: time.Until(until)})
	}
	return out, nil
}

func (w *world) Add(a netip.Addr, on addr.Interface, valid time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if on.Index != eth.Index {
		return errors.New("no such interface")
	}
	w.kernel[a] = time.Now().Add(valid)
	return nil
}

func (w *world) AddAll(places []addr.Place, valid time.Duration) error {
	var errs []error
	for _, p := range places {
		if err := w.Add(p.Address, p.On, valid); err != nil {
			errs = append(errs, &addr.EntryError{Entry: addr.Entry{Address: p.Address, Index: p.On.Index}, Err: err})
		}
	}
	return errors.Join(errs...)
}

func (w *world) CatchUp() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.late != nil {
		return w.late()
	}
	return false
}

func (w *world) Renew(entries []addr.Entry, valid time.Duration) error {
	w.mu.Lock()
	stall := w.stall
	w.stall = 0
	w.mu.Unlock()
	time.Sleep(stall)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.renewFail != nil {
		return w.renewFail
	}
	for _, e := range entries {
		w.kernel[e.Address] = time.Now().Add(valid)
	}
	return nil
}

func (w *world) Remove(a netip.Addr, _ int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.kernel, a)
	return nil
}

func (w *world) Announce(_ addr.Interface, _ netip.Addr) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.announced = append(w.announced, time.Now())
	return nil
}

func (w *world) Ask(on addr.Interface, a netip.Addr, to net.HardwareAddr) error {
	if w.peer != nil {
		w.peer.question(w.mac(), a, to)
	}
	time.Sleep(w.slow)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.on != nil {
		w.on(on.Index, a)
	}
	if a != vip4 {
		return nil
	}
	w.asked = append(w.asked, time.Now())
	if w.answerer != nil && (w.every == 0 || len(w.asked)%w.every == 0) {
		w.Sighted(wire.Sighting{Address: a, MAC: w.answerer, Index: on.Index})
	}
	return nil
}

// Set is announcer.Filter's.
func (w *world) Set(s arpfilter.State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.filter = s
}

// group is the world's announcer.Group.
type group struct{ *world }

func (g group) Ready() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ready
}

func (g group) Members() []member.Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.members)
}

func (g group) Drain() []member.Claim {
	g.mu.Lock()
	defer g.mu.Unlock()
	defer func() { g.news = nil }()
	return g.news
}

func (g group) Announce(claims ...member.Claim) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.claims = append(g.claims, claims...)
}

func (g group) SetState(s member.State) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.state = s
}

func (w *world) Held() map[netip.Addr]announcer.Holding { return w.held }

func (w *world) SetHeld(h map[netip.Addr]announcer.Holding) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held = h
}

// set changes the world and tells the engine.
func (w *world) set(change func()) {
	w.mu.Lock()
	change()
	w.mu.Unlock()
	select {
	case w.changed <- struct{}{}:
	default:
	}
	w.LinksChanged()
	synctest.Wait()
}

func (w *world) has(a netip.Addr) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.kernel[a].After(time.Now())
}

func (w *world) lastClaim() member.Claim {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.claims) == 0 {
		return member.Claim{}
	}
	return w.claims[len(w.claims)-1]
}

// counts are the numbers of questions, announcements and conflicts so far.
func (w *world) counts() (asked, announced, conflicts int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reports.mu.Lock()
	defer w.reports.mu.Unlock()
	return len(w.asked), len(w.announced), len(w.reports.conflicts)
}

func (w *world) announcements() []time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.announced)
}

// live are the members of those names.
func live(names ...string) (out []member.Member) {
	for _, n := range names {
		out = append(out, member.Member{Name: n, State: member.State{Settled: true}})
	}
	return out
}

// bubble runs a test of node "me" with fake time.
func bubble(t *testing.T, prepare func(*world), test func(*world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "me")
		if prepare != nil {
			prepare(w)
		}
		w.start()
		test(w)
		w.stop()
		synctest.Wait()
	})
}

func newWorld(t *testing.T, self string) *world {
	return &world{t: t, self: self, reports: &reports{}, changed: make(chan struct{}, 1), up: true, ready: true,
		kernel: map[netip.Addr]time.Time{}, held: map[netip.Addr]announcer.Holding{}, members: live(self)}
}

// start runs the engine until stop, which may be called twice.
func (w *world) start() {
	metrics, err := announcer.NewMetrics(prometheus.NewRegistry())
	must(w.t, err)
	w.Engine, err = announcer.New(announcer.Options{
		Node: w.self, Lifetime: life, Even: w.even, Kernel: w, Wire: w, Filter: w, Group: group{w}, Changed: w.changed,
		Reporter: w.reports, Memory: w, Metrics: metrics,
	})
	must(w.t, err)
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	var once sync.Once
	w.stop = func() {
		once.Do(func() {
			cancel()
			must(w.t, <-done)
		})
	}
	synctest.Wait()
}

// wanted is a cluster of me and other with one address.
func wanted(change ...func(*announcer.Address)) *announcer.Cluster {
	c := &announcer.Cluster{
		Nodes: []announcer.Node{{Name: "me"}, {Name: "other"}},
		Addresses: []announcer.Address{{
			Address: vip4, Services: []announcer.Service{{Namespace: "d", Name: "w", UID: "1"}},
		}},
	}
	for _, f := range change {
		f(&c.Addresses[0])
	}
	return c
}

func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func expect(t *testing.T, w *world, held bool, when string) {
	t.Helper()
	if got := w.has(vip4); got != held {
		t.Errorf("%s: held %v", when, got)
	}
}

func TestTakesAfterSilence(t *testing.T) {
	bubble(t, nil, func(w *world) {
		w.SetCluster(wanted())
		after(50 * time.Millisecond)
		expect(t, w, false, "while it asks")
		after(20 * time.Millisecond)
		expect(t, w, true, "after four questions")
		if asked, _, _ := w.counts(); asked != 4 {
			t.Errorf("asked %d times", asked)
		}
		after(100 * time.Second)
		all := w.announcements()
		var got []time.Duration
		for _, a := range all[:4] {
			got = append(got, a.Sub(all[0]))
		}
		if fmt.Sprint(got) != "[0s 50ms 200ms 1s]" {
			t.Errorf("announced at %v", got)
		}
		for i := 4; i < len(all); i++ {
			if gap := all[i].Sub(all[i-1]); gap < 10*time.Second || gap > 30*time.Second {
				t.Errorf("later announcement after %v", gap)
			}
		}
		if n := len(all); n < 7 || n > 14 {
			t.Errorf("%d announcements in 101 s", n)
		}
		expect(t, w, true, "a long time later")
		if c := w.lastClaim(); c.Node != "me" || c.Epoch != 1 || c.Released {
			t.Errorf("claimed %+v", c)
		}
	})
}

func TestDoesNotTakeWhatAnswers(t *testing.T) {
	bubble(t, func(w *world) { w.answerer = stranger }, func(w *world) {
		w.SetCluster(wanted(func(a *announcer.Address) { a.Holder = &announcer.Holding{Node: "other", Epoch: 5} }))
		after(4 * time.Second)
		expect(t, w, false, "while somebody answers")
		if _, _, conflicts := w.counts(); conflicts != 0 {
			t.Error("reported although a dead agent's address may live so long")
		}
		after(8 * time.Second)
		asked, _, _ := w.counts()
		after(10 * time.Second)
		expect(t, w, false, "while somebody answers")
		now, _, conflicts := w.counts()
		if n := now - asked; n > 15 {
			t.Errorf("asked %d times in 10 s", n)
		}
		if conflicts != 1 {
			t.Errorf("reported %d times", conflicts)
		}
		w.set(func() { w.answerer = nil })
		after(1200 * time.Millisecond)
		expect(t, w, true, "after the answers have ended")
		if c := w.lastClaim(); c.Epoch != 6 {
			t.Errorf("claimed %+v, want an epoch above the old one", c)
		}
	})
}

func TestDeadAgentsAddressIsTakenWhenItLapses(t *testing.T) {
	bubble(t, func(w *world) { w.answerer = stranger }, func(w *world) {
		w.SetCluster(wanted(func(a *announcer.Address) { a.Holder = &announcer.Holding{Node: "other", Epoch: 5} }))
		after(2500 * time.Millisecond)
		w.mu.Lock()
		w.answerer = nil
		w.mu.Unlock()
		after(50 * time.Millisecond)
		expect(t, w, true, "a twentieth of a second after it lapsed")
	})
}

// Of several candidates that hear the same silence, the first one takes it.
func TestCandidatesHaveTheirTurn(t *testing.T) {
	first, second := "me", "other"
	all := []announcer.Peer{{Name: "me", Live: true}, {Name: "other", Live: true}}
	if takers(all, announcer.Subject{Address: vip4, Wanted: true})[0] != "me" {
		first, second = second, first
	}
	for name, wait := range map[string]time.Duration{first: 0, second: announcer.Step} {
		bubble(t, func(w *world) {
			// An agent that meets others when it starts is not settled; here neither is.
			w.answerer, w.self, w.members = stranger, name, []member.Member{{Name: "me"}, {Name: "other"}}
		}, func(w *world) {
			w.SetCluster(wanted(func(a *announcer.Address) { a.Holder = &announcer.Holding{Node: "third", Epoch: 5} }))
			after(2500 * time.Millisecond)
			w.mu.Lock()
			w.answerer = nil
			w.mu.Unlock()
			if wait > 0 {
				after(wait)
				expect(t, w, false, "while it is the first one's turn")
			}
			after(400 * time.Millisecond)
			expect(t, w, true, name+"'s turn")
		})
	}
}

func TestYieldsToHigherClaim(t *testing.T) {
	bubble(t, func(w *world) { w.members = live("me", "other") }, func(w *world) {
		w.SetCluster(wanted())
		after(time.Second)
		expect(t, w, true, "at first")
		w.set(func() { w.news = []member.Claim{{Address: vip4, Node: "other", Epoch: 2}} })
		expect(t, w, false, "at once")
		after(10 * time.Second)
		expect(t, w, false, "as long as the other lives")
		w.set(func() { w.members = live("me") })
		after(time.Second)
		expect(t, w, true, "after the other's death")
		if c := w.lastClaim(); c.Epoch != 3 {
			t.Errorf("claimed %+v", c)
		}
	})
}

func TestStoodStill(t *testing.T) {
	bubble(t, nil, func(w *world) {
		w.SetCluster(wanted())
		after(time.Second)
		w.set(func() { w.stall, w.renewFail = 10*time.Second, errors.New("too late") })
		after(2 * time.Second) // in the stall
		w.mu.Lock()
		w.renewFail, w.answerer = nil, stranger // meanwhile another one has taken it
		w.mu.Unlock()
		after(9 * time.Second)
		w.mu.Lock()
		_, there := w.kernel[vip4]
		w.mu.Unlock()
		if there {
			t.Error("added an address again that it had let lapse, although another host has it")
		}
		w.set(func() { w.answerer = nil })
		after(5 * time.Second)
		expect(t, w, true, "when nobody has it")
	})
}

func TestRenewFailures(t *testing.T) {
	bubble(t, nil, func(w *world) {
		w.SetCluster(wanted())
		after(time.Second)
		w.set(func() {
			w.renewFail = errors.Join(&addr.EntryError{Entry: addr.Entry{Address: vip4, Index: 2}, Err: errors.New("not now")})
		})
		after(2 * time.Second)
		expect(t, w, true, "after a failure or two")
		w.set(func() { w.renewFail = nil })
		after(10 * time.Second)
		expect(t, w, true, "when it works again")
		if c := w.lastClaim(); c.Epoch != 1 {
			t.Errorf("taken again: %+v", c)
		}
	})
}

func TestRemembered(t *testing.T) {
	other := netip.MustParseAddr("10.77.0.101")
	prepare := func(w *world) {
		w.kernel[vip4] = time.Now().Add(time.Second)
		w.held[vip4] = announcer.Holding{Node: "me", Interface: "eth0", Epoch: 7}
	}
	c := wanted()
	c.Addresses = append(c.Addresses, announcer.Address{Address: other, Services: c.Addresses[0].Services})
	bubble(t, prepare, func(w *world) {
		w.SetRemembered(c, false)
		after(10 * time.Second)
		expect(t, w, true, "what it had")
		if w.has(other) {
			t.Error("took an address that it only remembers")
		}
		w.SetRemembered(c, true)
		after(time.Second)
		if !w.has(other) {
			t.Error("did not take the address although the API server is away")
		}
		w.SetCluster(wanted(func(a *announcer.Address) { a.Services = nil }))
		after(100 * time.Millisecond)
		expect(t, w, false, "released meanwhile")
		w.SetRemembered(c, true)
		after(time.Second)
		expect(t, w, false, "an old state after a new one")
	})
	bubble(t, prepare, func(w *world) {
		after(2 * time.Second)
		expect(t, w, false, "without knowing anything, it must lapse")
	})
	bubble(t, prepare, func(w *world) {
		w.SetCluster(&announcer.Cluster{Nodes: c.Nodes})
		after(10 * time.Millisecond)
		expect(t, w, false, "nobody knows it")
	})
	bubble(t, prepare, func(w *world) {
		w.SetCluster(c)
		after(100 * time.Millisecond)
		if h, _ := w.reports.holder(vip4); h == nil || h.Epoch != 7 {
			t.Errorf("reported %+v", h)
		}
		w.stop()
		if left := time.Until(w.kernel[vip4]); left < 9*time.Second {
			t.Errorf("left for %v only", left)
		}
		if w.held[vip4].Epoch != 7 {
			t.Errorf("remembered %+v", w.held)
		}
	})
}

func TestCarrier(t *testing.T) {
	bubble(t, func(w *world) { w.members = live("me", "other") }, func(w *world) {
		w.SetCluster(wanted())
		after(time.Second)
		w.set(func() { w.up = false })
		after(200 * time.Millisecond)
		w.set(func() { w.up = true })
		after(2 * time.Second)
		expect(t, w, true, "after a short break")
		w.set(func() { w.up = false })
		after(400 * time.Millisecond)
		expect(t, w, false, "after a long one")
		if c := w.lastClaim(); !c.Released {
			t.Errorf("did not tell the others: %+v", c)
		}
		w.set(func() { w.up = true })
		after(900 * time.Millisecond)
		expect(t, w, false, "just after the carrier came back")
		after(time.Second)
		expect(t, w, true, "if nobody else took it")
	})
	bubble(t, nil, func(w *world) { // alone
		w.SetCluster(wanted())
		after(time.Second)
		w.set(func() { w.up = false })
		after(10 * time.Second)
		expect(t, w, true, "there is nobody to take it")
	})
}

func TestWaitsForTheGroup(t *testing.T) {
	bubble(t, func(w *world) { w.ready, w.members = false, nil }, func(w *world) {
		w.SetCluster(wanted())
		after(10 * time.Second)
		expect(t, w, false, "as long as the others may have it")
		w.set(func() { w.ready, w.members = true, live("me") })
		after(100 * time.Millisecond)
		expect(t, w, true, "when there is nobody")
	})
}

func TestReportsUntilItIsKnown(t *testing.T) {
	bubble(t, nil, func(w *world) {
		w.SetCluster(wanted())
		after(time.Second)
		h, _ := w.reports.holder(vip4)
		if h == nil || h.Epoch != 1 || h.Interface != "eth0" {
			t.Fatalf("reported %+v", h)
		}
		w.reports.forget()
		known := *h
		w.SetCluster(wanted(func(a *announcer.Address) { a.Holder = &known }))
		after(time.Second)
		if _, told := w.reports.holder(vip4); told {
			t.Error("reported what is known")
		}
		w.SetCluster(wanted()) // somebody wiped it out
		after(time.Second)
		if _, told := w.reports.holder(vip4); !told {
			t.Error("not reported again")
		}
		w.SetCluster(wanted(func(a *announcer.Address) { a.Holder, a.Services = &known, nil }))
		after(10 * time.Millisecond)
		if h, told := w.reports.holder(vip4); !told || h != nil {
			t.Errorf("release reported as %+v, %v", h, told)
		}
	})
}

func TestConflictIsReportedAndNotFought(t *testing.T) {
	bubble(t, nil, func(w *world) {
		w.SetCluster(wanted())
		after(5 * time.Second)
		_, before, _ := w.counts()
		for range 100 { // ten seconds of a stranger's announcements
			w.Sighted(wire.Sighting{Address: vip4, MAC: stranger, Index: eth.Index})
			after(100 * time.Millisecond)
		}
		expect(t, w, true, "in a conflict")
		_, now, conflicts := w.counts()
		if n := now - before; n < 8 || n > 13 {
			t.Errorf("announced %d times in 10 s", n)
		}
		if conflicts != 1 {
			t.Errorf("reported %d times", conflicts)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	if _, err := announcer.New(announcer.Options{Node: "me", Lifetime: time.Second}); !errors.Is(err, announcer.ErrOptions) {
		t.Errorf("got %v", err)
	}
}
