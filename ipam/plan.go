package ipam

import "net/netip"

// run is a run of consecutive free addresses in a range of the pool's network.
type run struct {
	Range RangeID
	First netip.Addr
	Size  int
}

// freeRuns lists the runs of addresses of one family in the network that the
// pool may give and that nobody is seen to use, in the order of the ranges.
// Leases of strangers may be invisible: a run is then a guess, and complete is
// false. avoid leaves out addresses that are known to be refused.
func freeRuns(n Network, l limits, f Family, avoid func(netip.Addr) bool) (runs []run, complete bool) {
	complete = true
	for _, r := range n.Ranges {
		if !r.first(f).IsValid() {
			continue
		}
		if r.hidden() > 0 {
			complete = false
		}
		if r.Used >= r.Size {
			continue
		}
		runs = append(runs, r.freeRuns(l, f, avoid)...)
	}
	return runs, complete
}

func (r Range) freeRuns(l limits, f Family, avoid func(netip.Addr) bool) []run {
	used := r.leased(f)
	var runs []run
	open := false
	a := r.first(f)
	for i := range r.Size {
		if i > 0 {
			a = a.Next()
		}
		if used[i] || !l.allow(a) || (avoid != nil && avoid(a)) {
			open = false
			continue
		}
		if !open {
			runs = append(runs, run{Range: r.ID, First: a})
			open = true
		}
		runs[len(runs)-1].Size++
	}
	return runs
}

// leased returns the places in the range with a visible lease.
func (r Range) leased(f Family) map[int]bool {
	used := make(map[int]bool, len(r.Leases))
	for _, lease := range r.Leases {
		if i, ok := r.place(lease); ok {
			used[i] = true
		}
	}
	return used
}

// place returns the place of a lease in the range. Either half of a pair tells.
func (r Range) place(l Lease) (int, bool) {
	if i, ok := position(r.First4, r.Size, l.IP4); ok && l.IP4.IsValid() {
		return i, true
	}
	i, ok := position(r.First6, r.Size, l.IP6)
	return i, ok && l.IP6.IsValid()
}

// hidden is the number of leases that our user does not see.
func (r Range) hidden() int { return max(0, r.Used-len(r.Leases)) }

// room is the size of the largest reservation of one family that can succeed
// in the range: exact if all leases are visible.
func (r Range) room(f Family) int {
	if r.hidden() > 0 {
		return max(0, r.Size-r.Used)
	}
	longest := 0
	for _, u := range r.freeRuns(limits{}, f, nil) {
		longest = max(longest, u.Size)
	}
	return longest
}

// bestRun chooses the first run that has want addresses, else the longest.
func bestRun(runs []run, want int) (run, bool) {
	var best run
	for _, u := range runs {
		if u.Size >= want {
			u.Size = want
			return u, true
		}
		if u.Size > best.Size {
			best = u
		}
	}
	return best, best.Size > 0
}

// countFree is the number of addresses of a family that the network could
// still give to a pool.
func countFree(n Network, l limits, f Family) int {
	total := 0
	for _, r := range n.Ranges {
		if !r.first(f).IsValid() || r.Used >= r.Size {
			continue
		}
		free := 0
		for _, u := range r.freeRuns(l, f, nil) {
			free += u.Size
		}
		total += max(0, min(free, r.Size-r.Used))
	}
	return total
}

// offers reports whether the network has an address of the family that
// the pool may give, used or not.
func offers(n Network, l limits, f Family) bool {
	for _, r := range n.Ranges {
		first := r.first(f)
		if !first.IsValid() || r.Size < 1 {
			continue
		}
		if l.overlap(first, advance(first, r.Size-1)) {
			return true
		}
	}
	return false
}

// rangeWith returns the range of the network that has the address.
func rangeWith(n Network, a netip.Addr) (Range, bool) {
	for _, r := range n.Ranges {
		if _, ok := position(r.first(familyOf(a)), r.Size, a); ok {
			return r, true
		}
	}
	return Range{}, false
}
