package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Finding is something about a pool that a person should know, although the
// pool works. The zero value is nothing.
type Finding struct {
	Reason  string
	Message string
}

// Reasons of PoolStatus.Overlap and PoolStatus.Stranded.
const (
	ReasonSameNetwork   = "SameNetwork"   // both pools are on one network
	ReasonOtherNetwork  = "OtherNetwork"  // two networks have the same addresses
	ReasonOutsideOfSpec = "OutsideOfSpec" // given before the spec was changed
	ReasonRangeRemoved  = "RangeRemoved"  // the network has the range no more
)

// overlapEvery is the least time between two comparisons of all pools.
const overlapEvery = time.Second

// compareAll notes for each pool which others could give the same addresses.
func (m *Manager) compareAll() {
	if time.Since(m.comparedAt) < overlapEvery {
		return
	}
	m.comparedAt = time.Now()
	var all []area
	for _, p := range m.sorted() {
		if a, ok := p.area(); ok {
			all = append(all, a)
		}
	}
	for i, a := range all {
		a.pool.setOverlap(overlaps(a, slices.Concat(all[:i], all[i+1:])))
	}
}

// area is what a pool could give.
type area struct {
	pool    *pool
	network NetworkID
	name    string
	ranges  []AddressRange
}

func (p *pool) area() (area, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.parent == nil || p.leaving() {
		return area{}, false
	}
	return area{pool: p, network: p.parent.ID, name: p.parentName(), ranges: givable(*p.parent, p.spec.limits())}, true
}

// givable lists what a pool with these limits could give of a network.
func givable(n Network, l limits) []AddressRange {
	var all []AddressRange
	for _, r := range n.Ranges {
		for _, f := range families {
			first := r.first(f)
			if !first.IsValid() || r.Size < 1 {
				continue
			}
			whole := AddressRange{first, advance(first, r.Size-1)}
			if len(l.ranges) == 0 {
				all = append(all, whole)
			}
			for _, limit := range l.ranges {
				if both, ok := whole.and(limit); ok {
					all = append(all, both)
				}
			}
		}
	}
	return all
}

// and returns what two ranges have in common.
func (r AddressRange) and(o AddressRange) (AddressRange, bool) {
	if r.Start.BitLen() != o.Start.BitLen() {
		return AddressRange{}, false
	}
	if r.Start.Less(o.Start) {
		r.Start = o.Start
	}
	if o.End.Less(r.End) {
		r.End = o.End
	}
	return r, !r.End.Less(r.Start)
}

func overlaps(a area, others []area) Finding {
	var f Finding
	var parts []string
	for _, o := range others {
		both, ok := a.common(o)
		switch {
		case !ok:
		case a.network == o.network:
			if f.Reason == "" {
				f.Reason = ReasonSameNetwork
			}
			parts = append(parts, fmt.Sprintf("%s to %s are in pool %q too: whichever pool takes an address first has it", both.Start, both.End, o.pool.name))
		default:
			f.Reason = ReasonOtherNetwork
			parts = append(parts, fmt.Sprintf("%s to %s are in pool %q too, on %s: the same addresses in two networks reach only one of them", both.Start, both.End, o.pool.name, o.name))
		}
	}
	f.Message = strings.Join(parts[:min(len(parts), namedAtMost)], "; ")
	return f
}

func (a area) common(o area) (AddressRange, bool) {
	for _, x := range a.ranges {
		for _, y := range o.ranges {
			if both, ok := x.and(y); ok {
				return both, true
			}
		}
	}
	return AddressRange{}, false
}

func (p *pool) setOverlap(f Finding) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.overlap != f {
		p.overlap = f
		poke(p.wake)
	}
}

// severed lists the ranges of a reservation that its network does not have any
// more: an administrator has removed them by force. Somebody else may be given
// the same addresses, so that nobody gets a new one of them from us.
func severed(reservation, parent Network) []AddressRange {
	var all []AddressRange
	for _, r := range reservation.Ranges {
		for _, f := range families {
			first := r.first(f)
			if !first.IsValid() || r.Size < 1 {
				continue
			}
			last := advance(first, r.Size-1)
			_, ok1 := rangeWith(parent, first)
			_, ok2 := rangeWith(parent, last)
			if !ok1 || !ok2 {
				all = append(all, AddressRange{first, last})
			}
		}
	}
	return all
}

// sever notes what has been cut off, from the reservation and the network as
// both were just read.
func (k *keeper) sever(n Network) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.parent == nil || k.spec.Direct {
		return
	}
	if now := severed(n, *k.parent); !slices.Equal(now, k.severed) {
		k.severed = now
		k.index.limit(k.allows)
	}
}

// stranded tells of addresses in use that the pool would not give any more. The
// caller holds p.mu.
func (p *pool) stranded() Finding {
	if p.leaving() {
		return Finding{}
	}
	if len(p.severed) > 0 {
		r := p.severed[0]
		return Finding{ReasonRangeRemoved, fmt.Sprintf("%s to %s (of %d such ranges) are in our reservation, but %s has them no more: their range was removed by force. "+
			"Those in use stay, no new ones are given; give the network its range back, or move the Services to another pool", r.Start, r.End, len(p.severed), p.parentName())}
	}
	var out []netip.Addr
	for _, r := range p.records {
		if r.Phase == Active && !p.allows(r.Address) {
			out = append(out, r.Address)
		}
	}
	if len(out) == 0 {
		return Finding{}
	}
	var names []string
	for _, a := range out[:min(len(out), namedAtMost)] {
		names = append(names, a.String())
	}
	return Finding{ReasonOutsideOfSpec, fmt.Sprintf("%d addresses in use are outside of spec.ranges, or avoided: %s. They stay with their Services until those are deleted or moved",
		len(out), strings.Join(names, ", "))}
}
