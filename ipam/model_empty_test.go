package ipam

import (
	"testing/synctest"
	"time"
)

// empty releases everything and removes the pools: the networks must be as
// they were.
func (m *model) empty() {
	for a, r := range m.store.all() {
		switch r.Phase {
		case Active:
			m.store.let(a, false)
		case SetAside:
			m.cloud.set(m.shared, a, "") // as the event says
		default:
		}
	}
	time.Sleep(time.Minute)
	m.procs[0].SetPools(nil)
	time.Sleep(time.Hour)
	synctest.Wait()
	if recs := m.store.all(); len(recs) > 0 {
		m.problem("records are left: %v", recs)
	}
	for _, n := range m.cloud.nets {
		if n.Owner == "k8s" {
			m.problem("%s is left", n.Name)
		}
	}
	if left := m.cloud.owned(m.shared); len(left) > 0 {
		m.problem("holds without record are left: %v", left)
	}
	m.check("at the end")
	m.fail()
	m.procs[0].stop()
}
