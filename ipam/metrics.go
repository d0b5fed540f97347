package ipam

// Counters count what happened to a pool since the Manager was made.
type Counters struct {
	Allocations        uint64 // records created by Allocate
	AllocationFailures uint64 // Allocate calls that returned an error
	Holds              uint64 // addresses put on hold
	Releases           uint64 // holds ended because their record was released
	Reserved           uint64 // addresses reserved
	Returned           uint64 // addresses given back
	Repairs            uint64 // holds put back, addresses reserved again
	Orphans            uint64 // holds without record that were released
	OrphansReported    uint64 // holds without record that were left alone
	SetAside           uint64 // addresses set aside, their hold being in doubt
	Conflicts          uint64 // addresses found in use by something else
	Reads              uint64 // times that the reservation was read
	Inscriptions       uint64 // writes of the owners of a range
	Passes             uint64 // passes of the keeper
	Failures           uint64 // passes of the keeper that failed
}

// Counters returns the counters of every pool.
func (m *Manager) Counters() map[string]Counters {
	all := map[string]Counters{}
	for _, p := range m.sorted() {
		p.mu.Lock()
		all[p.name] = p.counters
		p.mu.Unlock()
	}
	return all
}

func (p *pool) count(change func(*Counters)) {
	p.mu.Lock()
	change(&p.counters)
	p.mu.Unlock()
}
