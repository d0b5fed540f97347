package announcer_test

import (
	"context"
	"errors"
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
	ipvsOwn   []netip.Addr       // what is on it
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
		return []addr.Interface{i, {Name: "kube-ipvs0", Index: 9, Own: w.ipvsOwn}}, nil
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
	w.mu.Lock()
	slow := w.slow
	w.mu.Unlock()
	time.Sleep(slow)
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
