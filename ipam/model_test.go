package ipam

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var (
	modelSeed  = flag.Uint64("model.seed", 0, "seed of TestModelRandom; 0 takes the time")
	modelSteps = flag.Int("model.steps", 1000, "steps of each model test")
)

// TestModel drives two processes over one OpenNebula and one API server with
// random operations, errors before and after the effect, delays, crashes at
// any call, outdated views, and people and strangers who interfere. An address
// is never given twice, and none is ever lost.
func TestModel(t *testing.T) {
	for seed := uint64(1); seed <= 4; seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { runModel(t, seed) })
	}
}

// TestModelRandom does so with another seed each time. To repeat one:
// go test ./ipam -run TestModelRandom -args -model.seed=N.
func TestModelRandom(t *testing.T) {
	seed := *modelSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-model.seed=%d", seed)
	runModel(t, seed)
}

func runModel(t *testing.T, seed uint64) {
	steps := *modelSteps
	if testing.Short() {
		steps = min(steps, 300)
	}
	if raceDetector {
		// Some ten times slower; stage contract runs it whole.
		steps = min(steps, 40)
	}
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t, seed)
		m.run(steps)
		m.quiesce()
		m.empty()
	})
}

type model struct {
	t       *testing.T
	cloud   *cloud
	store   *store
	procs   []*process // nil: not running
	pools   []PoolSpec
	parents []NetworkID
	shared  NetworkID // of the pool without reservation
	begun   time.Time
	starts  int
	calls   sync.WaitGroup // allocations under way
	serial  int

	mu       sync.Mutex // guards what follows, and rng
	rng      *rand.Rand
	faulty   bool
	created  map[string]netip.Addr // by owner
	claims   map[netip.Addr]bool   // whose record was made to give them back
	problems []string
	crashes  int
	lost     map[netip.Addr]Owner // whose an address was when the records were lost
	lostAt   time.Time
	losses   int
}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{
		t: t, cloud: newCloud(), store: newStore(), procs: make([]*process, 2), begun: time.Now(), faulty: true,
		rng: rand.New(rand.NewPCG(seed, 1)), created: map[string]netip.Addr{}, claims: map[netip.Addr]bool{},
	}
	m.parents = []NetworkID{
		m.cloud.network("public", range4("10.0.8.230", 60), Range{Kind: RangeEther, Size: 10}, pairs("10.0.1.1", "2001:db8:1::1", 40)),
		m.cloud.network("private", range4("10.1.0.1", 40), range6("2001:db8:2::1", 30)),
	}
	a, b := basePool("a"), basePool("b")
	a.Quarantine = 10 * time.Second
	b.Network.Name, b.ChunkSize, b.ReserveAhead = "private", 4, 2
	b.Ranges = []AddressRange{{addr("10.1.0.5"), addr("10.1.0.34")}, {addr("2001:db8:2::3"), addr("2001:db8:2::18")}}
	m.shared = m.cloud.managedNetwork("shared", range4("10.2.0.1", 25), pairs("10.2.1.1", "2001:db8:3::1", 15))
	m.pools = []PoolSpec{a, b, directPool("d")}
	m.store.history = m.record
	return m
}

func (m *model) n(n int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rng.IntN(n)
}

func (m *model) problem(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.problems = append(m.problems, fmt.Sprintf(format, args...))
}

// record watches every write to the store, at the moment of the write.
func (m *model) record(verb string, r Record) {
	switch {
	case r.Direct:
		m.recordDirect(verb, r)
	case verb == "Create" && len(r.Owners) > 0:
		id, in := m.inReservation(r)
		if !in {
			m.problem("%s was given while not in our reservation %d", r.Address, id)
		}
		if was, ok := m.wasLost(r.Address); ok && was != r.Owners[0].named() && m.cloud.use(id, r.Address) == hold {
			m.problem("%s was given to %v, and was %v's before the records were lost", r.Address, r.Owners[0], was)
		}
		m.mu.Lock()
		m.created[r.Owners[0].UID] = r.Address
		delete(m.lost, r.Address) // it is back, or was given up
		delete(m.claims, r.Address)
		m.mu.Unlock()
	case verb == "Create":
		m.mu.Lock()
		m.claims[r.Address] = true
		m.mu.Unlock()
	case verb == "Delete" && m.claimed(r.Address):
	case verb == "Delete" && r.Phase != Quarantined:
		m.problem("%s was deleted in phase %d", r.Address, r.Phase)
	case verb == "Delete" && time.Since(r.ReleasedAt) < 10*time.Second:
		m.problem("%s was deleted %s after its release", r.Address, time.Since(r.ReleasedAt))
	}
}

func (m *model) claimed(a netip.Addr) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.claims[a]
}

// inReservation reports whether the address is in its pool's reservation, and
// whether the network agrees.
func (m *model) inReservation(r Record) (NetworkID, bool) {
	m.cloud.mu.Lock()
	defer m.cloud.mu.Unlock()
	n := m.cloud.byName("k8s", "c-"+r.Pool)
	if n == nil {
		return NoNetwork, false
	}
	if in, _ := n.at(r.Address); in == nil {
		return n.ID, false
	}
	p, i := m.cloud.nets[n.Parent].at(r.Address)
	return n.ID, p != nil && p.use[i] == fmt.Sprintf("VNET %d", n.ID)
}

// fault decides about one call of a process.
func (m *model) fault(string) fault {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.faulty {
		return fault{}
	}
	delay := time.Duration(m.rng.IntN(3000)) * time.Millisecond
	switch p := m.rng.IntN(1000); {
	case p < 30:
		return fault{err: ErrUnavailable}
	case p < 60:
		return fault{err: ErrUnavailable, effect: true}
	case p < 90:
		return fault{before: delay}
	case p < 120:
		return fault{after: delay}
	case p < 124:
		m.crashes++
		return fault{crash: true}
	case p < 128:
		m.crashes++
		return fault{crash: true, effect: true}
	case p < 180:
		return fault{before: delay / 100, after: delay / 200}
	}
	return fault{}
}

func (m *model) startProcess(i int) {
	m.starts++
	m.procs[i] = start(m.t, m.cloud, m.store, func(o *Options, p *process) {
		o.FormerGrace = modelGrace
		p.client.fault, p.view.fault = m.fault, m.fault
		p.view.lag = func() time.Duration { return time.Duration(m.n(3000)) * time.Millisecond }
	})
	m.procs[i].SetPools(m.pools)
}

func (m *model) run(steps int) {
	m.startProcess(0)
	for step := range steps {
		what := m.step()
		synctest.Wait()
		m.bury()
		m.check(fmt.Sprintf("step %d (%s)", step, what))
		m.fail()
	}
}

// bury removes processes that have crashed.
func (m *model) bury() {
	for i, p := range m.procs {
		if p != nil && p.life.err(context.Background()) != nil {
			p.stop()
			m.procs[i] = nil
		}
	}
}

// step does one random thing.
func (m *model) step() string {
	for i, p := range m.procs {
		if p == nil && m.n(10) < 4-3*i {
			m.startProcess(i)
			return "start"
		}
	}
	switch p := m.n(100); {
	case p < 35:
		return m.allocate()
	case p < 60:
		return m.release()
	case p < 64:
		return m.meddle()
	case p < 65:
		return m.stranger()
	case p < 67:
		return m.strangerInShared()
	case p < 68:
		return m.erase()
	case p < 70:
		return m.stopOne()
	case p < 71:
		return m.repool()
	case p < 72 && m.n(4) == 0:
		return m.lose()
	case p < 72:
		time.Sleep(time.Duration(m.n(600)) * time.Second)
		return "wait long"
	case p < 90:
		time.Sleep(time.Duration(m.n(10000)) * time.Millisecond)
		return "wait"
	}
	time.Sleep(time.Duration(m.n(50)) * time.Millisecond)
	return "wait briefly"
}

func (m *model) allocate() string {
	p := m.procs[m.n(len(m.procs))]
	if p == nil {
		return "nobody to allocate"
	}
	for range 1 + m.n(4) {
		if m.comeBack(p) {
			continue
		}
		m.serial++
		r := Request{Pool: m.pools[m.n(3)].Name, Family: families[m.n(2)], Owner: Owner{Namespace: "m", Name: fmt.Sprintf("s%d", m.serial), UID: fmt.Sprint(m.serial)}}
		if m.n(8) == 0 {
			r.Want = m.anyAddress(r)
		}
		m.calls.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			rec, err := p.Allocate(ctx, r)
			m.mu.Lock()
			made := m.created[r.Owner.UID]
			m.mu.Unlock()
			if err == nil && (rec.Address != made || r.Want.IsValid() && r.Want != made) {
				m.problem("%+v got %s, the record says %s", r, rec.Address, made)
			}
		})
	}
	return "allocate"
}

func (m *model) anyAddress(r Request) netip.Addr {
	first := map[string]string{"a4": "10.0.8.230", "a6": "2001:db8:1::1", "b4": "10.1.0.1", "b6": "2001:db8:2::1", "d4": "10.2.0.1", "d6": "2001:db8:3::1"}
	return advance(addr(first[fmt.Sprint(r.Pool, int(r.Family))]), m.n(45))
}

// some returns a random record that fits.
func (m *model) some(fits func(Record) bool) (Record, bool) {
	all := m.store.all()
	keys := sortedKeys(all)
	keys = slices.DeleteFunc(keys, func(a netip.Addr) bool { return !fits(all[a]) })
	if len(keys) == 0 {
		return Record{}, false
	}
	return all[keys[m.n(len(keys))]], true
}

func (m *model) release() string {
	for range 1 + m.n(3) {
		if m.n(2) == 0 {
			if r, ok := m.some(func(r Record) bool { return r.Phase == Active }); ok {
				m.store.let(r.Address, m.n(2) == 0)
			}
			continue
		}
		if r, ok := m.some(func(r Record) bool { return r.Phase == Releasing && r.Announced }); ok {
			m.store.edit(r.Address, func(r *Record) { r.Announced = false })
		}
	}
	return "release"
}

// meddle is what people with rights do inside our reservations.
func (m *model) meddle() string {
	m.cloud.mu.Lock()
	defer m.cloud.mu.Unlock()
	n := m.cloud.byName("k8s", "c-"+m.pools[m.n(2)].Name)
	if n == nil || len(n.ranges) == 0 {
		return "nothing to meddle with"
	}
	r := n.ranges[m.n(len(n.ranges))]
	i := m.n(r.Size)
	switch {
	case r.use[i] == hold:
		delete(r.use, i)
		m.giveUp(advanceValid(r.First4, i), advanceValid(r.First6, i)) // that is how to
		return "take a hold away"
	case r.use[i] != "":
		delete(r.use, i)
		return "end a VM"
	case m.n(2) == 0:
		r.use[i] = hold
		return "make a hold"
	}
	r.use[i] = "VM 42"
	return "start a VM"
}

// stranger is another user who reserves from the same networks.
func (m *model) stranger() string {
	m.cloud.mu.Lock()
	defer m.cloud.mu.Unlock()
	parent := m.cloud.nets[m.parents[m.n(2)]]
	r := parent.ranges[m.n(len(parent.ranges))]
	if r.Kind == RangeEther {
		return "stranger has no use for it"
	}
	m.serial++
	name := fmt.Sprintf("stranger-%d", m.serial)
	var theirs []*fakeNet
	for _, id := range slices.Sorted(maps.Keys(m.cloud.nets)) {
		if n := m.cloud.nets[id]; n.Owner == "stranger" {
			theirs = append(theirs, n)
		}
	}
	if len(theirs) > 12 || len(theirs) > 0 && m.n(3) == 0 {
		n := theirs[m.n(len(theirs))]
		for len(n.ranges) > 0 {
			_ = m.cloud.freeRange(n, n.ranges[0].ID)
		}
		delete(m.cloud.nets, n.ID)
		return "stranger leaves"
	}
	_, _ = m.cloud.reserve("stranger", ReserveRequest{Parent: parent.ID, Range: r.ID, Name: name, Into: NoNetwork, Size: 1 + m.n(3)})
	return "stranger reserves"
}

// erase removes a record by force. A claim is left alone: taking a fence away
// is outside what can be promised.
func (m *model) erase() string {
	if r, ok := m.some(func(r Record) bool { return !r.Direct && (len(r.Owners) > 0 || !r.isClaim()) }); ok {
		m.store.erase(r.Address)
	}
	return "erase"
}

func (m *model) stopOne() string {
	i := m.n(2)
	p := m.procs[i]
	if p == nil {
		return "nobody to stop"
	}
	m.procs[i] = nil
	if m.n(2) == 0 {
		p.crash()
		return "crash"
	}
	p.stop()
	return "stop"
}

// repool changes the pools: b goes, or comes back, or a is tuned or drained.
func (m *model) repool() string {
	switch m.n(7) {
	case 5:
		m.pools[2].Leaving = !m.pools[2].Leaving
	case 6:
		m.pools[2].Draining = !m.pools[2].Draining
	case 0:
		m.pools[1].Leaving = !m.pools[1].Leaving // the addresses of a removed pool are given up
		m.giveUp(slices.DeleteFunc(m.lostAddresses(), func(a netip.Addr) bool { return !m.pools[1].limits().allow(a) })...)
	case 1:
		m.pools[0].ReserveAhead = m.n(8)
	case 2:
		m.pools[0].ChunkSize = 1 + m.n(12)
	case 3:
		m.pools[0].AvoidEdges = !m.pools[0].AvoidEdges
	case 4:
		m.pools[0].Draining = !m.pools[0].Draining
	}
	for _, p := range m.procs {
		if p != nil {
			p.SetPools(m.pools)
		}
	}
	return "change pools"
}

// check is what must be true at every moment.
func (m *model) check(when string) {
	for _, r := range m.store.all() {
		if r.Direct {
			m.checkDirect(when, r)
			continue
		}
		if id, in := m.inReservation(r); !in && r.Phase != Quarantined {
			m.problem("%s: %s (phase %d) has left reservation %d", when, r.Address, r.Phase, id)
		}
	}
	m.cloud.mu.Lock()
	defer m.cloud.mu.Unlock()
	if len(m.cloud.robbed) > 0 {
		m.problem("%s: strangers' holds were released: %v", when, m.cloud.robbed)
	}
	for _, id := range m.parents {
		for _, r := range m.cloud.nets[id].ranges {
			for i, use := range r.use {
				var child NetworkID
				_, _ = fmt.Sscanf(use, "VNET %d", &child)
				f := IPv4
				if !r.First4.IsValid() {
					f = IPv6
				}
				a := advance(r.first(f), i)
				n := m.cloud.nets[child]
				if n == nil {
					m.problem("%s: %s is reserved for a network that does not exist", when, a)
				} else if in, _ := n.at(a); in == nil {
					m.problem("%s: %s is reserved for network %d, which does not have it", when, a, child)
				}
			}
		}
	}
}

// quiesce ends the faults and lets one process put everything in order.
func (m *model) quiesce() {
	m.mu.Lock()
	m.faulty = false
	m.mu.Unlock()
	m.calls.Wait()
	for i, p := range m.procs {
		if p != nil {
			p.stop()
			m.procs[i] = nil
		}
	}
	m.pools[1].Leaving, m.pools[0].Draining, m.pools[2].Leaving, m.pools[2].Draining = false, false, false, false
	for _, n := range m.cloud.nets {
		for _, r := range n.ranges {
			maps.DeleteFunc(r.use, func(_ int, use string) bool { return strings.HasPrefix(use, "VM ") })
		}
	}
	for a, r := range m.store.all() {
		if r.Phase == Releasing {
			m.store.edit(a, func(r *Record) { r.Announced = false })
		}
	}
	m.startProcess(0)
	time.Sleep(time.Hour)
	synctest.Wait()
	m.check("at rest")
	m.atRest()
	m.t.Logf("%d records at rest, %d given in all, %d starts, %d crashes in calls, %d losses of all records, %d calls",
		len(m.store.all()), len(m.created), m.starts, m.crashes, m.losses, m.cloud.count(""))
	// Linear: a hold and a release for each address given, beside what the
	// clock, restarts and faults cost.
	for name, c := range m.procs[0].Counters() {
		if c.Passes > 500 {
			m.problem("%d passes for %s in an hour with nothing to do", c.Passes, name)
		}
	}
	passes := int(time.Since(m.begun)/DefaultInterval)*8 + 40*m.starts
	if most := 8*len(m.created) + passes; m.cloud.count("") > most {
		m.problem("%d calls, expected no more than %d", m.cloud.count(""), most)
	}
	m.fail()
}

func (m *model) atRest() {
	recs := m.store.all()
	m.sharedAtRest(recs)
	for _, r := range recs {
		if r.Direct {
			continue
		}
		id, _ := m.inReservation(r)
		if r.Phase != Active || !r.OnHold || m.cloud.use(id, r.Address) != hold {
			m.problem("at rest: %+v, in OpenNebula %q", r, m.cloud.use(id, r.Address))
		}
	}
	for _, spec := range m.pools[:2] {
		n := m.cloud.find("k8s", "c-"+spec.Name)
		if n == nil || n.Attributes[AttributeClusterUID] != "uid" {
			m.problem("at rest: reservation of %s: %+v", spec.Name, n)
			continue
		}
		for _, r := range n.ranges {
			for i := range r.use {
				_, four := recs[advanceValid(r.First4, i)]
				_, six := recs[advanceValid(r.First6, i)]
				if !four && !six {
					m.problem("at rest: %s and %s in %s are used by %q without record", advanceValid(r.First4, i), advanceValid(r.First6, i), n.Name, r.use[i])
				}
			}
		}
		if st, _ := m.procs[0].PoolStatus(spec.Name); !st.Ready || st.Reason != ReasonReserved {
			m.problem("at rest: %+v", st)
		}
	}
}

func advanceValid(a netip.Addr, n int) netip.Addr {
	if !a.IsValid() {
		return a
	}
	return advance(a, n)
}

// fail ends the test if there is a problem, and all that runs with it.
func (m *model) fail() {
	m.mu.Lock()
	problems := strings.Join(m.problems, "\n")
	m.mu.Unlock()
	if problems == "" {
		return
	}
	for _, p := range m.procs {
		if p != nil {
			p.crash()
		}
	}
	m.calls.Wait()
	m.t.Fatal(problems)
}
