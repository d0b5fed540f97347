package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Former is an address that OpenNebula says was an owner's, on hold since, and
// without record: the store was lost, or the record was removed by force. It is
// kept for that owner (Options.FormerGrace) and given to nobody else.
type Former struct {
	Address netip.Addr
	Pool    string
	Title
	// Taken: the address has a record again, of another owner of the title with
	// whom this one shares it.
	Taken bool
}

// former is a Former as a pool knows it.
type former struct {
	Title
	since time.Time // when it was first seen so
}

// void reports whether the wait is over.
func (f *former) void(now time.Time, grace time.Duration) bool {
	return now.Sub(f.since) >= grace || !f.Until.IsZero() && !now.Before(f.Until)
}

// Formers lists what is kept for an owner, by its namespace and name, sorted by
// pool and address.
func (m *Manager) Formers(o Owner) []Former {
	var all []Former
	for _, p := range m.sorted() {
		p.mu.Lock()
		for _, a := range sortedKeys(p.formersOf[o.named()]) {
			f := p.formers[a]
			h := p.index.byAddr[a]
			if h == nil || f.void(time.Now(), m.opts.FormerGrace) {
				continue
			}
			all = append(all, Former{Address: a, Pool: p.name, Title: f.Title, Taken: h.rec})
		}
		p.mu.Unlock()
	}
	return all
}

// unreadWait is how long anybody waits for the first reading of a pool: a pool
// that is made while OpenNebula is away must not keep others from giving.
const unreadWait = 30 * time.Second

// adoptionWait is how long anybody waits for the other pools once a reservation
// was adopted from another cluster: longer than a keeper takes to look again.
const adoptionWait = time.Minute

// Unread names the pools that are new here and whose reservation has not been read yet, because
// OpenNebula has not answered: an address of an owner may stand there.
func (m *Manager) Unread() []string {
	var names []string
	for _, p := range m.sorted() {
		p.mu.Lock()
		waits := p.trouble == nil || errors.Is(p.trouble, ErrUnavailable) || errors.Is(p.trouble, ErrUnauthenticated)
		waits = waits && time.Since(p.born) < unreadWait
		adopting := errors.Is(p.trouble, ErrForeign) && time.Since(time.Unix(0, m.adopted.Load())) < adoptionWait
		if !p.leaving() && !p.met && (waits || adopting) {
			names = append(names, p.name)
		}
		p.mu.Unlock()
	}
	return names
}

// Reserved reports whether an address is in the reservation of a pool.
func (m *Manager) Reserved(name string, a netip.Addr) bool {
	p, ok := m.pool(name)
	if !ok {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.index.byAddr[a] != nil
}

// meet takes over for whom OpenNebula says the addresses are. It is called
// after each reading; the first one of a process also tells of shared addresses
// to which not all owners have come back. The caller holds p.mu.
func (p *pool) meet(get func(netip.Addr) (Record, bool)) {
	first := !p.met
	p.met = true
	now := time.Now()
	next := map[netip.Addr]*former{}
	for _, s := range p.index.spans {
		if p.leaving() || p.spec.Direct {
			break // who removes a pool gives its addresses up; without reservation, what stands there is not ours
		}
		for a, t := range ParseTitles(s.Attributes[AttributeOwners]) {
			if _, in := position(s.first(familyOf(a)), s.Size, a); !in {
				continue
			}
			if f := p.learnOne(a, t, first, get); f != nil {
				f.since = now
				if old := p.formers[a]; old != nil {
					f.since = old.since
				}
				next[a] = f
			}
		}
	}
	p.setFormers(next)
}

// learnOne returns what is still to be waited for, nil: nobody.
func (p *pool) learnOne(a netip.Addr, t Title, first bool, get func(netip.Addr) (Record, bool)) *former {
	h := p.index.byAddr[a]
	if h == nil || h.slot.user != "" {
		return nil
	}
	rec, ok := get(a)
	switch {
	case !ok && !h.slot.held:
		return nil // released in order; what stands there is outdated
	case ok && (rec.Phase != Active || rec.Share == "" || rec.Share != t.Share || !first && p.formers[a] == nil):
		return nil
	case ok:
		t = t.without(rec)
	}
	if len(t.Owners) == 0 {
		return nil
	}
	return &former{Title: t}
}

// setFormers replaces all. The caller holds p.mu.
func (p *pool) setFormers(next map[netip.Addr]*former) {
	concerned := make([]netip.Addr, 0, len(p.formers)+len(next))
	for a := range p.formers {
		concerned = append(concerned, a)
	}
	p.formers, p.formersOf = next, map[Owner]map[netip.Addr]bool{}
	for a, f := range next {
		concerned = append(concerned, a)
		for _, o := range f.Owners {
			if p.formersOf[o] == nil {
				p.formersOf[o] = map[netip.Addr]bool{}
			}
			p.formersOf[o][a] = true
		}
	}
	for _, a := range concerned {
		p.markFormer(a)
	}
}

// markFormer brings the index up to date. The caller holds p.mu.
func (p *pool) markFormer(a netip.Addr) {
	h := p.index.byAddr[a]
	if h == nil {
		return
	}
	f := p.formers[a]
	h.former = f != nil && !f.void(time.Now(), p.m.opts.FormerGrace)
	p.settle(h.slot)
}

// arrived notes who has a record again. The caller holds p.mu.
func (p *pool) arrived(r Record) {
	f := p.formers[r.Address]
	if f == nil {
		return
	}
	left := f.without(r)
	if r.Phase == Active && r.Share != "" && r.Share == f.Share && len(left.Owners) > 0 {
		for _, o := range f.Owners {
			if !left.Has(o) {
				delete(p.formersOf[o], r.Address)
			}
		}
		f.Title = left
		return
	}
	for _, o := range f.Owners {
		delete(p.formersOf[o], r.Address)
		if len(p.formersOf[o]) == 0 {
			delete(p.formersOf, o)
		}
	}
	delete(p.formers, r.Address)
	p.markFormer(r.Address)
}

// comesBack reports whether the request is that of a former owner for its
// address. Such a one gets it whatever the pool's limits are now, and also if it
// is draining: the pool keeps what it has given. The caller holds p.mu.
func (p *pool) comesBack(r Request) bool {
	f := p.formers[r.Want]
	return f != nil && !f.void(time.Now(), p.m.opts.FormerGrace) && f.Has(r.Owner)
}

// takeFormer chooses an address that is kept for a former owner. done is false
// if nobody is waited for. The caller holds p.mu.
func (p *pool) takeFormer(r Request) (h *half, done bool, err error) {
	h = p.index.byAddr[r.Want]
	if h == nil || !h.former || h.rec {
		return nil, false, nil
	}
	switch {
	case !p.comesBack(r):
		return nil, true, fmt.Errorf("%s is kept for %s, which had it before records were lost; it comes free when its hold is released in OpenNebula: %w",
			r.Want, ownerNames(p.formers[r.Want].Owners), ErrTaken)
	case h.slot.user != "":
		return nil, true, fmt.Errorf("%s is used by %s: %w", r.Want, h.slot.user, ErrInUse)
	case h.busy || h.suspect != 0:
		return nil, true, nil
	}
	return h, true, nil
}

// takePreferred returns the preferred address if it can be had at once: also one
// that is on hold for nobody, since whoever prefers it had it. The caller holds p.mu.
func (p *pool) takePreferred(r Request) *half {
	h := p.index.byAddr[r.Prefer]
	if h == nil || familyOf(h.addr) != r.Family || !h.allowed || h.rec || h.busy || h.former || h.suspect != 0 || h.slot.user != "" || p.wishes[h.addr] != nil {
		return nil
	}
	h.ticket = 0
	return h
}

func ownerNames(owners []Owner) string {
	names := make([]string, len(owners))
	for i, o := range owners {
		names[i] = o.Namespace + "/" + o.Name
	}
	slices.Sort(names)
	var text strings.Builder
	for i, n := range names {
		if i > 0 {
			text.WriteString(", ")
		}
		text.WriteString(n)
	}
	return text.String()
}
