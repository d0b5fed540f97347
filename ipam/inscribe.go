package ipam

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"k8s.io/klog/v2"
)

// AttributeAlive is the attribute of a reservation that says when its cluster's
// controller was last seen alive: RFC 3339, UTC, written once in Options.Interval.
const AttributeAlive = "ONELB_ALIVE"

// maxWriteTime bounds one round of writing: it must never keep a Service waiting.
const maxWriteTime = 10 * time.Second

// scribe is what a keeper knows of what it writes about owners.
type scribe struct {
	seen    uint64    // changes of the records that were last looked at
	due     time.Time // when to compare; zero: nothing has changed
	wait    backoff
	failing bool      // the last attempt failed, and that was said
	full    bool      // not everything fits, and that was said
	alive   time.Time // as last read or written
}

// attend notes that something may have to be written. Many changes are one
// write: it is done Options.OwnersDelay after the first of them. The caller holds mu.
func (k *keeper) attend(changed bool) {
	if (changed || k.scribe.seen != k.changes) && k.scribe.due.IsZero() {
		k.scribe.due = time.Now().Add(k.m.opts.OwnersDelay)
	}
}

// inscription is the new set of attributes of a range.
type inscription struct {
	id         RangeID
	attributes map[string]string
}

// inscribe writes into OpenNebula for whom the addresses are, where that
// differs from what stands there, and that we are alive. It comes after all
// holds and releases, and its failure is no trouble of the pool: it is tried
// again.
func (k *keeper) inscribe(ctx context.Context) {
	k.mu.Lock()
	id, now := k.reservation, time.Now()
	if id == NoNetwork || k.spec.Direct { // a network that is not ours alone is not for us to write into
		k.scribe.due = time.Time{}
		k.mu.Unlock()
		return
	}
	k.attend(false)
	known := k.ready
	due := !k.scribe.due.IsZero() && !now.Before(k.scribe.due)
	k.mu.Unlock()
	if !known || k.scribe.wait.blocked() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, maxWriteTime)
	defer cancel()
	err := k.sayAlive(ctx, id, now)
	if err == nil && due {
		err = k.inscribeRanges(ctx, id)
	}
	k.inscribed(ctx, err)
}

// sayAlive renews the sign of life.
func (k *keeper) sayAlive(ctx context.Context, id NetworkID, now time.Time) error {
	if age := now.Sub(k.scribe.alive); age > -k.m.opts.Interval && age < k.m.opts.Interval {
		return nil
	}
	if err := k.networks.Annotate(ctx, id, map[string]string{AttributeAlive: aliveText(now)}); err != nil {
		return fmt.Errorf("say in reservation %d that we are alive: %w", id, err)
	}
	k.scribe.alive = now
	return nil
}

func aliveText(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// AliveAt is when the cluster that a reservation belongs to last showed itself
// there; zero: never.
func AliveAt(n Network) time.Time {
	t, err := time.Parse(time.RFC3339, n.Attributes[AttributeAlive])
	if err != nil {
		return time.Time{}
	}
	return t
}

func (k *keeper) inscribeRanges(ctx context.Context, id NetworkID) error {
	k.mu.Lock()
	seen := k.changes
	todo, complete := k.inscriptions()
	k.mu.Unlock()
	for _, i := range todo {
		if err := k.networks.AnnotateRange(ctx, id, i.id, i.attributes); err != nil {
			if errors.Is(err, ErrNotFound) {
				k.reread = true
			}
			return fmt.Errorf("write owners into range %d of reservation %d: %w", i.id, id, err)
		}
		k.mu.Lock()
		if s := k.index.spans[i.id]; s != nil {
			s.Attributes = i.attributes
		}
		k.counters.Inscriptions++
		k.mu.Unlock()
	}
	if k.scribe.full == complete {
		k.scribe.full = !complete
		if !complete {
			k.event(EventWarning, EventOwnersNotRecorded, netip.Addr{},
				"a range of reservation %d has more owners than %d bytes hold; some would not get the same address if the cluster's data were lost", id, maxTitles)
		}
	}
	k.scribe.seen, k.scribe.due = seen, time.Time{}
	return nil
}

// inscriptions lists the ranges in which something else stands than should. The
// caller holds mu.
func (k *keeper) inscriptions() (todo []inscription, complete bool) {
	complete = true
	recs := make(map[netip.Addr]*Record, len(k.records))
	for i := range k.records {
		recs[k.records[i].Address] = &k.records[i]
	}
	for id, s := range k.index.spans {
		titles, standing := map[netip.Addr]Title{}, ParseTitles(s.Attributes[AttributeOwners])
		for i := range s.slots {
			for _, h := range s.slots[i].halves {
				if h == nil {
					continue
				}
				if t := k.titleOf(h, recs[h.addr], standing[h.addr]); len(t.Owners) > 0 {
					titles[h.addr] = t
				}
			}
		}
		text, all := Titles(titles)
		complete = complete && all
		if text == s.Attributes[AttributeOwners] {
			continue
		}
		attributes := maps.Clone(s.Attributes)
		if attributes == nil {
			attributes = map[string]string{}
		}
		attributes[AttributeOwners] = text
		if text == "" {
			delete(attributes, AttributeOwners)
		}
		todo = append(todo, inscription{id: id, attributes: attributes})
	}
	slices.SortFunc(todo, func(a, b inscription) int { return cmp.Compare(a.id, b.id) })
	return todo, complete
}

// titleOf is what should stand about an address. Only what is on hold is
// written: a title without hold means nothing.
func (k *keeper) titleOf(h *half, rec *Record, standing Title) Title {
	f := k.formers[h.addr]
	if f != nil && !h.former {
		f = nil // the wait is over
	}
	switch {
	case rec != nil && rec.Phase == Active && rec.OnHold && f != nil:
		return rec.title().with(f.Owners)
	case rec != nil && rec.Phase == Active && rec.OnHold:
		return rec.title()
	case rec == nil && !h.rec && h.slot.held && f != nil:
		return f.Title
	case rec == nil && !h.rec && h.slot.held && h.suspect != 0:
		return standing // its record vanished; the next reading makes a Former of it
	}
	return Title{}
}

// inscribed notes how it went.
func (k *keeper) inscribed(ctx context.Context, err error) {
	if err == nil {
		k.scribe.wait.ok()
		k.scribe.failing = false
		return
	}
	if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return
	}
	k.scribe.wait.fail()
	klog.FromContext(ctx).Error(err, "Owners cannot be recorded in OpenNebula; trying again", "failures", k.scribe.wait.fails)
	if !k.scribe.failing && !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrNotFound) {
		k.scribe.failing = true
		k.event(EventWarning, EventOwnersNotRecorded, netip.Addr{},
			"%v; until it is, Services would not get the same addresses if the cluster's data were lost%s", err, hint(err))
	}
}
