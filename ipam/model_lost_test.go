package ipam

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// modelGrace is for how long the model's addresses are kept for former owners.
const modelGrace = 10 * time.Minute

// lose is etcd lost: no process is left, and no record. What OpenNebula has on
// record by then stays with who had it.
func (m *model) lose() string {
	for i, p := range m.procs {
		if p != nil {
			m.procs[i] = nil
			p.crash()
		}
	}
	m.calls.Wait()
	lost := map[netip.Addr]Owner{}
	for a, r := range m.store.all() {
		id, in := m.inReservation(r)
		if t := m.cloud.owners("c-" + r.Pool)[a]; in && r.Phase == Active && m.cloud.use(id, a) == hold && len(r.Owners) == 1 && t.Has(r.Owners[0]) && len(t.Owners) == 1 {
			lost[a] = r.Owners[0].named()
		}
	}
	m.mu.Lock()
	m.lost, m.lostAt = lost, time.Now()
	m.losses++
	m.mu.Unlock()
	m.store.lose()
	m.disown()
	m.startProcess(0)
	return "lose all records"
}

// disown: without reservation nothing tells whose a hold is but our records. When
// they are lost it is anybody's, and so nobody's to touch.
func (m *model) disown() {
	m.cloud.mu.Lock()
	defer m.cloud.mu.Unlock()
	for _, r := range m.cloud.nets[m.shared].ranges {
		clear(r.ours)
	}
}

// wasLost returns whose an address was, while it has to be kept for him.
func (m *model) wasLost(a netip.Addr) (Owner, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o, ok := m.lost[a]
	return o, ok && time.Since(m.lostAt) < modelGrace
}

func (m *model) lostAddresses() []netip.Addr {
	m.mu.Lock()
	defer m.mu.Unlock()
	return sortedKeys(m.lost)
}

func (m *model) giveUp(addrs ...netip.Addr) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range addrs {
		delete(m.lost, a)
	}
}

// comeBack is a Service of the lost cluster that is created again.
func (m *model) comeBack(p *process) bool {
	lost := m.lostAddresses()
	if len(lost) == 0 || m.n(3) > 0 {
		return false
	}
	a := lost[m.n(len(lost))]
	was, ok := m.wasLost(a)
	if !ok {
		return false
	}
	m.serial++
	was.UID = fmt.Sprint(m.serial)
	for _, f := range p.Formers(was) {
		m.calls.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			if rec, err := p.Allocate(ctx, Request{Pool: f.Pool, Want: f.Address, Owner: was}); err == nil && rec.Address != f.Address {
				m.problem("%v got %s, wanted back %s", was, rec.Address, f.Address)
			}
		})
		return true
	}
	return false
}
