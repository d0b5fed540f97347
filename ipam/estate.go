package ipam

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"k8s.io/klog/v2"
)

// Reservation is what a list tells about a reservation.
type Reservation struct {
	ID         NetworkID
	Name       string
	Attributes map[string]string
}

// Inventory lists what our OpenNebula user owns.
type Inventory interface {
	// Reservations lists our own user's reservations, sorted by ID, in one call.
	Reservations(ctx context.Context) ([]Reservation, error)
}

// Estate counts the reservations of this cluster's name that no pool wants.
type Estate struct {
	// Orphans is how many there were at the last look.
	Orphans int
	// Adopted is how many were taken over to be given back, in all.
	Adopted uint64
}

// Estate returns what is known of reservations that no pool wants.
func (m *Manager) Estate() Estate {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.estate
}

// surveyor looks for reservations that nobody wants: a call to reserve that
// OpenNebula finished after its caller had given up and the pool was gone, or a
// pool whose objects were removed by force.
type surveyor struct {
	m    *Manager
	seen map[NetworkID]time.Time
	told map[NetworkID]bool
}

// survey looks at every Interval until ctx ends.
func (m *Manager) survey(ctx context.Context) {
	s := &surveyor{m: m, seen: map[NetworkID]time.Time{}, told: map[NetworkID]bool{}}
	pause := min(m.opts.Interval, m.opts.OrphanGrace)
	for sleep(ctx, jitter(pause)) {
		list, err := m.opts.Inventory.Reservations(ctx)
		if err != nil {
			if ctx.Err() == nil {
				klog.FromContext(ctx).V(2).Info("Cannot list our reservations; trying again", "reason", err.Error())
			}
			continue
		}
		s.look(ctx, list)
	}
}

// look takes over what has been wanted by nobody for the grace time: a pool is
// made for it that is being removed, and its keeper gives back what is ours, in
// the way in which the last addresses of any pool are given back.
func (s *surveyor) look(ctx context.Context, list []Reservation) {
	seen := map[NetworkID]time.Time{}
	for _, r := range list {
		pool, ok := s.m.abandoned(r)
		if !ok || s.official(ctx, r) {
			continue
		}
		since, again := s.seen[r.ID]
		if !again {
			since = time.Now()
		}
		seen[r.ID] = since
		if !again || time.Since(since) < s.m.opts.OrphanGrace {
			continue
		}
		s.settle(ctx, r, pool)
	}
	s.seen = seen
	for id := range s.told {
		if _, ok := seen[id]; !ok {
			delete(s.told, id)
		}
	}
	s.m.mu.Lock()
	s.m.estate.Orphans = len(seen)
	s.m.mu.Unlock()
}

// official reports whether a reservation is one of OpenNebula's own
// cloud-controller-manager, or it cannot be seen whether it is.
func (s *surveyor) official(ctx context.Context, r Reservation) bool {
	if r.Attributes[AttributeClusterUID] != "" {
		return false
	}
	n, err := s.m.opts.Networks.Get(ctx, r.ID)
	if err != nil {
		klog.FromContext(ctx).V(2).Info("A reservation that no pool wants cannot be read", "reservation", r.ID, "name", r.Name, "err", err)
	}
	return err != nil || n.official()
}

func (s *surveyor) settle(ctx context.Context, r Reservation, pool string) {
	if !s.told[r.ID] {
		s.told[r.ID] = true
		klog.FromContext(ctx).Info("Found a reservation that no pool wants", "reservation", r.ID, "name", r.Name)
		end := "it is given back"
		if s.m.opts.ReportOrphans {
			end = fmt.Sprintf("it is left alone, as --orphans=report says; to give it back: onevnet delete %d", r.ID)
		}
		s.m.event(Event{
			Pool: pool, Type: EventWarning, Reason: EventOrphanReservation,
			Message: fmt.Sprintf("reservation %q (%d) in OpenNebula is of this cluster, but no pool or address wants it; %s", r.Name, r.ID, end),
		})
	}
	if !s.m.opts.ReportOrphans {
		s.m.takeOver(pool)
	}
}

// abandoned reports whether no pool and no record wants a reservation of our
// cluster's name, and of which pool it was.
func (m *Manager) abandoned(r Reservation) (string, bool) {
	pool, ok := strings.CutPrefix(r.Name, m.opts.Cluster+"-")
	uid, of := r.Attributes[AttributeClusterUID], r.Attributes[AttributePool]
	if !ok || pool == "" || uid != "" && (uid != m.opts.Identity || of != pool) {
		return "", false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.pools[pool]; !m.known || p != nil && !p.over() {
		return "", false
	}
	for _, rec := range m.records.List() {
		if rec.Pool == pool {
			return "", false
		}
	}
	return pool, true
}

// over reports whether the pool has no reservation and wants none.
func (p *pool) over() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.removed && p.leaving()
}

// takeOver lets a keeper give back the reservation of a pool that does not exist.
func (m *Manager) takeOver(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.pools[name]
	if p == nil {
		p = newPool(m, name)
		p.setAbsent()
		m.pools[name] = p
	} else {
		p.mu.Lock()
		p.removed = false
		p.respecced()
		p.mu.Unlock()
	}
	m.estate.Adopted++
	poke(m.respec)
}

// reportOrphan makes the event of a hold without record that is left alone.
func (k *keeper) reportOrphan(ctx context.Context, a netip.Addr) {
	if k.toldOrphan[a] {
		return
	}
	k.toldOrphan[a] = true
	k.count(func(c *Counters) { c.OrphansReported++ })
	klog.FromContext(ctx).Info("Found a hold without record", "address", a)
	k.event(EventWarning, EventOrphanFound, a, "%s is on hold in our reservation %d but given to nobody; it is left alone, as --orphans=report says; to end it: %s",
		a, k.reservationID(), k.byHand(k.reservationID(), a))
}

// byHand is the command with which a person ends the hold of an address. OpenNebula
// finds an address that it makes of a MAC by that only, or by the IPv4 address of
// the pair, and calls the release of anything else a success.
func (k *keeper) byHand(id NetworkID, a netip.Addr) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := k.index.byAddr[a]
	for _, s := range k.index.spans {
		if _, inside := position(s.First6, s.Size, a); !inside || h == nil || s.Kind != RangeIP6SLAAC && s.Kind != RangeIP4SLAAC {
			continue
		}
		if pair := h.slot.halves[IPv4.index()]; pair != nil {
			a = pair.addr
			break
		}
		return fmt.Sprintf("onevnet release %d MAC, with the MAC address of the lease that has %s", id, a)
	}
	return fmt.Sprintf("onevnet release %d %s", id, a)
}
