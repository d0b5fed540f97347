package ipam

import (
	"container/heap"
	"net/netip"
	"slices"
)

// half is one address of our reservation. With IPv4 and IPv6 in pairs it is
// one half of a slot, else all of it.
type half struct {
	addr    netip.Addr
	slot    *slot
	allowed bool  // inside the pool's ranges
	rec     bool  // has a record
	phase   Phase // of the record
	busy    bool  // its record is being made
	former  bool  // kept for a former owner; see Former
	ended   bool  // we ended its hold ourselves, and have not deleted its record yet
	// suspect is not 0 while the reservation must be read again before the
	// address may be given: another process ended its record, and may have
	// given its range back.
	suspect uint64
	touched uint64 // when rec was last changed by ourselves
	seen    uint64 // the last scan of the records that had it
	used    uint64 // order of release; 0: never used
	ticket  uint64 // its valid entry in the heap
	free    bool   // counted as free
}

// slot is what OpenNebula holds as one: an address, or a pair.
type slot struct {
	halves [2]*half // by Family.index; nil if there is none
	held   bool     // as last read, or as we did
	shared bool     // VMs may have it beside the hold
	user   string   // who else uses it, as last read
	direct bool     // of a pool without reservation
}

// live reports whether a record needs the slot to be on hold.
func (s *slot) live() bool {
	for _, h := range s.halves {
		if h != nil && h.rec && h.phase != Quarantined {
			return true
		}
	}
	return false
}

// any returns an address of the slot.
func (s *slot) any() netip.Addr {
	if s.halves[0] != nil {
		return s.halves[0].addr
	}
	return s.halves[1].addr
}

func (h *half) available() bool {
	if h.slot.direct { // given is only what is ours already
		return h.allowed && h.rec && h.phase == Ahead && h.slot.held && !h.busy && h.suspect == 0
	}
	return h.allowed && !h.rec && !h.busy && !h.former && h.suspect == 0 && h.slot.user == "" && (!h.slot.held || h.slot.live())
}

// span is one range of the reservation.
type span struct {
	Range
	slots []slot
}

func (s *span) same(r Range) bool {
	return s.First4 == r.First4 && s.First6 == r.First6 && s.Size == r.Size
}

// index knows every address of the reservation, and finds a free one in
// logarithmic time. It does no locking.
type index struct {
	spans  map[RangeID]*span
	byAddr map[netip.Addr]*half
	queue  [2]freeHeap
	nfree  [2]int
	stamp  uint64 // source of used and ticket
	direct bool   // the pool has no reservation
}

func newIndex() *index {
	return &index{spans: map[RangeID]*span{}, byAddr: map[netip.Addr]*half{}}
}

// settle brings the free list up to date after a change to the slot.
func (x *index) settle(s *slot) {
	for i, h := range s.halves {
		if h == nil {
			continue
		}
		free := h.available()
		if free == h.free {
			continue
		}
		h.free = free
		if !free {
			x.nfree[i]--
			continue
		}
		x.nfree[i]++
		x.push(i, h)
	}
}

func (x *index) push(i int, h *half) {
	x.stamp++
	h.ticket = x.stamp
	heap.Push(&x.queue[i], freeEntry{used: h.used, ticket: h.ticket, half: h})
	x.compact(i)
}

// compact drops entries that are no longer valid once they are the majority.
func (x *index) compact(i int) {
	if len(x.queue[i]) < 2*x.nfree[i]+64 {
		return
	}
	kept := x.queue[i][:0]
	for _, e := range x.queue[i] {
		if e.valid() {
			kept = append(kept, e)
		}
	}
	clear(x.queue[i][len(kept):])
	x.queue[i] = kept
	heap.Init(&x.queue[i])
}

// pick returns the free address of a family that was not used for the longest
// time, the lowest first among those never used; nil if none is free. skip
// leaves out addresses that somebody asked for by name.
func (x *index) pick(f Family, skip map[netip.Addr]*wish) *half {
	i := f.index()
	var aside []freeEntry
	var found *half
	for len(x.queue[i]) > 0 && found == nil {
		e := heap.Pop(&x.queue[i]).(freeEntry)
		switch {
		case !e.valid():
		case skip[e.half.addr] != nil:
			aside = append(aside, e)
		default:
			found = e.half
			found.ticket = 0
		}
	}
	for _, e := range aside {
		heap.Push(&x.queue[i], e)
	}
	return found
}

// retire notes that the address was in use until now.
func (x *index) retire(h *half) {
	x.stamp++
	h.used = x.stamp
}

// apply takes over what was read from OpenNebula: ranges and leases. lookup
// finds the record of an address that is new here; suspicions older than
// readAt are settled.
func (x *index) apply(n Network, readAt uint64, allowed func(netip.Addr) bool, lookup func(netip.Addr) (Record, bool)) {
	keep := map[RangeID]bool{}
	for _, r := range n.Ranges {
		if s, ok := x.spans[r.ID]; ok && s.same(r) {
			keep[r.ID] = true
		}
	}
	for id := range x.spans {
		if !keep[id] {
			x.remove(id)
		}
	}
	for _, r := range n.Ranges {
		if !keep[r.ID] && (r.First4.IsValid() || r.First6.IsValid()) {
			x.add(r, allowed, lookup)
		}
		if s, ok := x.spans[r.ID]; ok {
			s.lease(r)
			x.trust(s, readAt)
		}
	}
}

func (x *index) add(r Range, allowed func(netip.Addr) bool, lookup func(netip.Addr) (Record, bool)) {
	leases := r
	leases.Leases = nil
	s := &span{Range: leases, slots: make([]slot, r.Size)}
	for i := range s.slots {
		s.slots[i].direct = x.direct
	}
	for _, f := range families {
		a := r.first(f)
		for i := 0; i < r.Size && a.IsValid(); i++ {
			// Ranges of a network may overlap; the address exists once.
			if _, twice := x.byAddr[a]; !twice {
				h := &half{addr: a, slot: &s.slots[i], allowed: allowed(a)}
				if rec, ok := lookup(a); ok {
					h.rec, h.phase = true, rec.Phase
				}
				s.slots[i].halves[f.index()], s.slots[i].shared = h, r.Shared
				x.byAddr[a] = h
			}
			a = a.Next()
		}
	}
	x.spans[r.ID] = s
}

func (x *index) remove(id RangeID) {
	for i := range x.spans[id].slots {
		for f, h := range x.spans[id].slots[i].halves {
			if h == nil {
				continue
			}
			if h.free {
				h.free = false
				x.nfree[f]--
			}
			h.allowed = false
			delete(x.byAddr, h.addr)
		}
	}
	delete(x.spans, id)
}

// lease takes over who uses what.
func (s *span) lease(r Range) {
	s.Attributes = r.Attributes
	for i := range s.slots {
		s.slots[i].held, s.slots[i].user = false, ""
	}
	for _, l := range r.Leases {
		i, ok := r.place(l)
		switch {
		case ok && l.Held:
			// In a Shared range VMs have an address beside the hold, as aliases. They
			// are its holders' business.
			s.slots[i].held, s.slots[i].user = true, ""
		case ok && !s.slots[i].held:
			s.slots[i].user = l.User
		}
	}
}

func (x *index) trust(s *span, readAt uint64) {
	for i := range s.slots {
		for _, h := range s.slots[i].halves {
			if h != nil && h.suspect <= readAt {
				h.suspect = 0
			}
		}
		x.settle(&s.slots[i])
	}
}

// limit applies changed limits of the pool.
func (x *index) limit(allowed func(netip.Addr) bool) {
	for _, s := range x.spans {
		for i := range s.slots {
			for _, h := range s.slots[i].halves {
				if h != nil {
					h.allowed = allowed(h.addr)
				}
			}
			x.settle(&s.slots[i])
		}
	}
}

// observe takes over a list of records that was read when the clock stood at
// since; scan numbers it. elsewhere tells whether an address has a record of
// another pool. It reports whether a record vanished that we did not remove.
func (x *index) observe(recs []Record, since, scan uint64, elsewhere func(netip.Addr) bool, now func() uint64) (vanished bool) {
	for _, r := range recs {
		h := x.byAddr[r.Address]
		if h == nil {
			continue
		}
		h.seen = scan
		if h.touched > since || (h.rec && h.phase == r.Phase) {
			continue
		}
		h.rec, h.phase = true, r.Phase
		x.settle(h.slot)
	}
	var gone []*half
	for _, h := range x.byAddr {
		if h.rec && h.seen != scan && h.touched <= since && !elsewhere(h.addr) {
			gone = append(gone, h)
		}
	}
	slices.SortFunc(gone, func(a, b *half) int { return a.addr.Compare(b.addr) })
	for _, h := range gone {
		h.rec, h.phase = false, Active
		h.suspect = now()
		x.retire(h)
		x.settle(h.slot)
	}
	return len(gone) > 0
}
