package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// recordDirect watches every write to a record of the pool without reservation.
func (m *model) recordDirect(verb string, r Record) {
	ours := m.cloud.owned(m.shared)[r.Address]
	switch {
	case verb == "Create" && (r.Phase != Claiming || len(r.Owners) > 0):
		m.problem("made %+v", r)
	case verb == "Take":
		if !ours {
			m.problem("%s was given, its hold is not ours", r.Address)
		}
		m.mu.Lock()
		m.created[r.Owners[0].UID] = r.Address
		m.mu.Unlock()
	case verb == "Delete" && ours:
		m.problem("the record of %s (phase %d) was deleted, our hold is there", r.Address, r.Phase)
	case verb == "Delete" && (len(r.Owners) > 0 || r.Phase < Claiming):
		m.problem("%s was deleted in phase %d", r.Address, r.Phase)
	}
}

// checkDirect is what must be true at every moment of a record.
func (m *model) checkDirect(when string, r Record) {
	switch r.Phase {
	case Active, Releasing, Quarantined, Ahead:
		if !m.cloud.owned(m.shared)[r.Address] {
			m.problem("%s: %s (phase %d) is not on hold by us", when, r.Address, r.Phase)
		}
	case Claiming, Ending, SetAside:
	}
}

// strangerInShared is somebody who holds, releases and uses addresses of the
// network in which a pool without reservation has its own. They do not touch
// what is not theirs.
func (m *model) strangerInShared() string {
	if m.n(4) == 0 {
		return m.unwant()
	}
	m.cloud.mu.Lock()
	defer m.cloud.mu.Unlock()
	ranges := m.cloud.nets[m.shared].ranges
	r := ranges[m.n(len(ranges))]
	for range 1 + m.n(6) {
		i := m.n(r.Size)
		switch {
		case r.use[i] != "" && !r.ours[i]:
			delete(r.use, i)
		case r.use[i] != "":
		case m.n(2) == 0:
			r.use[i] = hold
		default:
			r.use[i] = fmt.Sprintf("VM %d", m.n(100))
		}
	}
	return "stranger in the shared network"
}

// unwant is kubectl delete virtualip of an address that no Service has. Of what
// is set aside a person deletes only what is somebody else's.
func (m *model) unwant() string {
	ours := m.cloud.owned(m.shared)
	r, ok := m.some(func(r Record) bool { return r.Phase == Ahead || r.Phase == SetAside && !ours[r.Address] })
	if ok {
		m.store.edit(r.Address, func(r *Record) { r.Unwanted = true })
	}
	return "unwant"
}

// sharedAtRest: each hold of ours has a record, and each record a hold.
func (m *model) sharedAtRest(recs map[netip.Addr]Record) {
	ours := m.cloud.owned(m.shared)
	aside := 0
	for _, a := range sortedKeys(ours) {
		if !recs[a].Direct {
			m.problem("at rest: %s is on hold by us without record", a)
		}
	}
	for a, r := range recs {
		switch {
		case !r.Direct:
		case r.Phase == SetAside:
			aside++
			if m.cloud.use(m.shared, a) != hold {
				m.problem("at rest: %s is set aside without hold", a)
			}
		case r.Phase != Active && r.Phase != Ahead || !r.OnHold || !ours[a]:
			m.problem("at rest: %+v", r)
		}
	}
	// The network is not ours alone: nothing of ours may stand in it.
	m.cloud.mu.Lock()
	shared := m.cloud.nets[m.shared]
	written := 0
	for name := range shared.Attributes {
		if strings.HasPrefix(name, "ONELB_") {
			written++
		}
	}
	for _, r := range shared.ranges {
		written += len(r.Attributes)
	}
	m.cloud.mu.Unlock()
	if written > 0 {
		m.problem("at rest: %d attributes were written into the shared network", written)
	}
	st, _ := m.procs[0].PoolStatus("d")
	if st.IPv4.SetAside+st.IPv6.SetAside != aside || !st.Ready && st.Reason != ReasonNoFreeAddresses {
		m.problem("at rest: %d are set aside: %+v", aside, st)
	}
	if told := m.procs[0].countEvents(EventAddressSetAside); told < aside {
		m.problem("at rest: %d are set aside, %d events", aside, told)
	}
	m.t.Logf("%d of %d holds in the shared network are ours, %d addresses are set aside, phases %v", len(ours), len(recs), aside, phases(recs))
}

func phases(recs map[netip.Addr]Record) []int {
	n := make([]int, SetAside+1)
	for _, r := range recs {
		n[r.Phase]++
	}
	return slices.Clip(n)
}
