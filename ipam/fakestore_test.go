package ipam

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"
)

var errDead = errors.New("the process is dead")

// life is one process: once it is dead nothing that it does has an effect.
type life struct {
	mu   sync.Mutex
	dead bool
	end  func()
}

func (l *life) die() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = true
	l.end()
}

func (l *life) err(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return errDead
	}
	return ctx.Err()
}

// store is the API server: one record per address, versions, watchers.
type store struct {
	mu       sync.Mutex
	recs     map[netip.Addr]Record
	version  int
	writes   map[string]int
	watchers []*view
	history  func(string, Record) // told of each write; may be nil
}

func newStore() *store {
	return &store{recs: map[netip.Addr]Record{}, writes: map[string]int{}}
}

// put writes a record. The caller holds mu.
func (s *store) put(verb string, r Record) Record {
	s.version++
	r.Version = strconv.Itoa(s.version)
	r.Owners = slices.Clone(r.Owners)
	s.recs[r.Address] = r
	s.told(verb, r)
	return r
}

func (s *store) told(verb string, r Record) {
	s.writes[verb]++
	if s.history != nil {
		s.history(verb, r)
	}
	for _, v := range s.watchers {
		v.hear()
	}
}

// edit is what the rest of the controller does to records: owners, announced.
func (s *store) edit(a netip.Addr, change func(*Record)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.recs[a]
	if !ok {
		return false
	}
	change(&r)
	s.put("edit", r)
	return true
}

// erase is kubectl delete --force.
func (s *store) erase(a netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.recs[a]; ok {
		delete(s.recs, a)
		s.version++
		s.told("erase", r)
	}
}

func (s *store) all() map[netip.Addr]Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.recs)
}

// view is the store as one process sees it: a cache that is told of changes
// after a while, and knows what the process itself wrote.
type view struct {
	*store
	dead   *life
	fault  func(method string) fault
	lag    func() time.Duration // nil: none
	notify func()

	cmu     sync.Mutex
	cache   map[netip.Addr]Record
	pending bool // the cache is about to be brought up to date
}

func (s *store) view(dead *life) *view {
	v := &view{store: s, dead: dead, cache: map[netip.Addr]Record{}}
	s.mu.Lock()
	defer s.mu.Unlock()
	v.pull()
	s.watchers = append(s.watchers, v)
	return v
}

// pull copies the store. The caller holds the store's mu.
func (v *view) pull() {
	v.cmu.Lock()
	defer v.cmu.Unlock()
	v.cache, v.pending = maps.Clone(v.recs), false
}

// hear is called with the store's mu held, at each change.
func (v *view) hear() {
	if v.lag == nil {
		if v.notify != nil {
			v.notify()
		}
		return
	}
	v.cmu.Lock()
	defer v.cmu.Unlock()
	if v.pending {
		return
	}
	v.pending = true
	lag := v.lag()
	// Not time.AfterFunc: what a bubble's timers start corrupts the shadow stack of
	// the race detector once in some ten thousand times (seen with Go 1.26.8), and
	// the test dies of a segmentation violation in the detector's stack depot.
	go func() {
		time.Sleep(lag)
		if v.dead.err(context.Background()) != nil {
			return
		}
		v.mu.Lock()
		v.pull()
		v.mu.Unlock()
		if v.notify != nil {
			v.notify()
		}
	}()
}

func (v *view) stop() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.watchers = slices.DeleteFunc(v.watchers, func(o *view) bool { return o == v })
}

// records locks and returns what the process sees.
func (v *view) records() (map[netip.Addr]Record, func()) {
	if v.lag == nil {
		v.mu.Lock()
		return v.recs, v.mu.Unlock
	}
	v.cmu.Lock()
	return v.cache, v.cmu.Unlock
}

func (v *view) List() []Record {
	recs, unlock := v.records()
	defer unlock()
	all := slices.Collect(maps.Values(recs))
	slices.SortFunc(all, func(a, b Record) int { return a.Address.Compare(b.Address) })
	return all
}

func (v *view) Get(a netip.Addr) (Record, bool) {
	recs, unlock := v.records()
	defer unlock()
	r, ok := recs[a]
	return r, ok
}

func (v *view) do(ctx context.Context, method string, call func() (Record, error)) (Record, error) {
	v.mu.Lock()
	decide := v.fault
	v.mu.Unlock()
	var f fault
	if decide != nil {
		f = decide(method)
	}
	return do(ctx, v.dead, f, func() (Record, error) {
		v.mu.Lock()
		defer v.mu.Unlock()
		return call()
	})
}

func (v *view) own(r Record, exists bool) {
	v.cmu.Lock()
	defer v.cmu.Unlock()
	if exists {
		v.cache[r.Address] = r
	} else {
		delete(v.cache, r.Address)
	}
}

func (v *view) Create(ctx context.Context, r Record) (Record, error) {
	return v.do(ctx, "Create", func() (Record, error) {
		if _, ok := v.recs[r.Address]; ok {
			return Record{}, fmt.Errorf("%s: %w", r.Address, ErrTaken)
		}
		r.ID = strconv.Itoa(v.version)
		if key, ok := r.Detail.(string); ok {
			r.Share = key
		}
		r = v.put("Create", r)
		v.own(r, true)
		return r, nil
	})
}

func (v *view) Update(ctx context.Context, r Record) (Record, error) {
	return v.do(ctx, "Update", func() (Record, error) {
		old, ok := v.recs[r.Address]
		switch {
		case !ok:
			return Record{}, ErrNotFound
		case old.Version != r.Version:
			return Record{}, ErrConflict
		}
		old.Phase, old.OnHold, old.ReleasedAt = r.Phase, r.OnHold, r.ReleasedAt
		old = v.put("Update", old)
		v.own(old, true)
		return old, nil
	})
}

func (v *view) Delete(ctx context.Context, r Record) error {
	_, err := v.do(ctx, "Delete", func() (Record, error) {
		old, ok := v.recs[r.Address]
		switch {
		case !ok:
			return Record{}, nil
		case old.Version != r.Version:
			return Record{}, ErrConflict
		}
		delete(v.recs, r.Address)
		v.version++
		v.told("Delete", old)
		v.own(r, false)
		return Record{}, nil
	})
	return err
}

// Mark is compare-and-swap.
func (v *view) Mark(ctx context.Context, r Record) (Record, error) {
	return v.do(ctx, "Mark", func() (Record, error) {
		old, ok := v.recs[r.Address]
		switch {
		case !ok:
			return Record{}, ErrNotFound
		case old.Version != r.Version:
			return Record{}, ErrConflict
		}
		old.Phase, old.OnHold = r.Phase, r.OnHold
		if r.Phase == SetAside {
			old.Unwanted = false // it was asked for before, when the hold was ours
		}
		if r.Phase >= Claiming {
			old.ReleasedAt = time.Time{}
		}
		old = v.put("Mark", old)
		v.own(old, true)
		return old, nil
	})
}

func (v *view) Take(ctx context.Context, r Record) (Record, error) {
	return v.do(ctx, "Take", func() (Record, error) {
		old, ok := v.recs[r.Address]
		if !ok || old.Phase != Ahead || old.Pool != r.Pool || old.Unwanted {
			if ok {
				v.own(old, true)
			}
			return Record{}, fmt.Errorf("%s: %w", r.Address, ErrTaken)
		}
		old.Phase, old.Owners, old.Detail = Active, slices.Clone(r.Owners), r.Detail
		old = v.put("Take", old)
		v.own(old, true)
		return old, nil
	})
}

var (
	_ Records = (*view)(nil)
	_ Claims  = (*view)(nil)
)
