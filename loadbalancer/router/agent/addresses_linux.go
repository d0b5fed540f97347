package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/loadbalancer/announcer/addr"
	announce "github.com/onelb/onelb/loadbalancer/announcer/wire"
)

const (
	// lifetime of an address in the kernel: it must outlive any absence of the
	// agent, for the router forwards without it. Not for ever: the kernel's
	// mark of our addresses is only trusted on those with a lifetime.
	lifetime = 365 * 24 * time.Hour
	// announceAgain is the slow repetition, for neighbours that lost an entry.
	announceAgain = time.Minute
	// conflictEvery bounds the log about one rival.
	conflictEvery = time.Minute
)

// announceAfter are the repetitions after an address was taken.
var announceAfter = [...]time.Duration{0, 50 * time.Millisecond, 200 * time.Millisecond, time.Second}

// KernelAddresses holds addresses on the interfaces of the network namespace in
// which it was opened.
type KernelAddresses struct {
	table    *addr.Table
	wire     *announce.Wire
	patterns addr.Patterns
	urgent   chan struct{} // something to announce at once

	mu         sync.Mutex // guards what follows
	interfaces []addr.Interface
	routed     routedAddresses
	wanted     []netip.Addr
	dirty      bool // interfaces or kernel may have changed since the last Hold
	held       map[netip.Addr]addr.Interface
	due        map[netip.Addr][]time.Time // announcements to come
	rivals     map[netip.Addr]time.Time   // last log about another claim
}

// OpenAddresses opens the kernel's addresses. Public are names or regular
// expressions of the interfaces that may hold addresses; without any, it is the
// interface whose network contains the address.
func OpenAddresses(public []string) (*KernelAddresses, error) {
	patterns, err := addr.Compile(public)
	if err != nil {
		return nil, fmt.Errorf("public interfaces: %w", err)
	}
	table, err := addr.Open(addr.Options{})
	if err != nil {
		return nil, err
	}
	k := &KernelAddresses{
		table: table, patterns: patterns, urgent: make(chan struct{}, 1), dirty: true,
		held: map[netip.Addr]addr.Interface{}, due: map[netip.Addr][]time.Time{}, rivals: map[netip.Addr]time.Time{},
	}
	if k.wire, err = announce.New(announce.Options{Seen: k.seen}); err != nil {
		return nil, errors.Join(err, table.Close())
	}
	return k, nil
}

// Run implements Addresses. It closes what was opened.
func (k *KernelAddresses) Run(ctx context.Context, changed func()) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return k.wire.Run(ctx) })
	g.Go(func() error { return k.table.WatchLinks(ctx, changed) })
	g.Go(func() error { k.announce(ctx); return nil })
	err := g.Wait()
	return errors.Join(err, k.table.Close())
}

// Refresh implements Addresses.
func (k *KernelAddresses) Refresh() error {
	interfaces, err := k.table.Interfaces()
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.interfaces, k.dirty, k.routed.dirty = interfaces, true, true
	return nil
}

// Where implements Addresses.
func (k *KernelAddresses) Where(a netip.Addr) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	i, err := k.where(a)
	return i.Name, err
}

func (k *KernelAddresses) where(a netip.Addr) (addr.Interface, error) {
	for _, i := range k.interfaces {
		if i.Has(a) {
			return i, fmt.Errorf("address %s is interface %s's own", a, i.Name)
		}
	}
	i, found := addr.Choose(k.interfaces, a, k.patterns)
	if !found {
		return i, fmt.Errorf("address %s is on no network of the router's public interfaces", a)
	}
	return i, nil
}

// Interfaces implements Addresses.
func (k *KernelAddresses) Interfaces() []Interface {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []Interface
	for _, i := range k.interfaces {
		if i.Name != "lo" {
			out = append(out, Interface{Name: i.Name, Index: i.Index, Networks: i.Networks})
		}
	}
	return out
}

// Hold implements Addresses. Addresses that an earlier run left are kept or
// removed like our own.
func (k *KernelAddresses) Hold(ctx context.Context, addresses []netip.Addr) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.dirty && slices.Equal(addresses, k.wanted) {
		return nil
	}
	if !k.dirty {
		return k.move(ctx, addresses)
	}
	want := make(map[netip.Addr]bool, len(addresses))
	for _, a := range addresses {
		want[a] = true
	}
	entries, err := k.table.Ours(func(a netip.Addr) bool { return want[a] || slices.Contains(k.wanted, a) })
	if err != nil {
		return err
	}
	present := make(map[addr.Entry]time.Duration, len(entries))
	for _, e := range entries {
		present[addr.Entry{Address: e.Address, Index: e.Index}] = e.Valid
	}
	var errs []error
	for _, a := range addresses {
		at, err := k.take(ctx, a, present)
		errs = append(errs, err)
		delete(present, at)
	}
	for e := range present {
		errs = append(errs, k.table.Remove(e.Address, e.Index))
		if !want[e.Address] {
			k.forget(e.Address)
		}
	}
	k.forgetGone(want)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	k.wanted, k.dirty = slices.Clone(addresses), false
	return nil
}

// forgetGone ends the announcements of addresses that are not wanted and that somebody else
// has taken off already: the master after this one announces them now.
func (k *KernelAddresses) forgetGone(want map[netip.Addr]bool) {
	routed := make(map[netip.Addr]bool, len(k.routed.wanted))
	for _, r := range k.routed.wanted {
		routed[r.Address] = true
	}
	for a := range k.held {
		if !want[a] && !routed[a] {
			k.forget(a)
		}
	}
}

// move takes what is new and removes what is not wanted any more, while nothing else
// has changed: it costs as much as that is.
func (k *KernelAddresses) move(ctx context.Context, addresses []netip.Addr) error {
	k.dirty = true // until all is done
	was := make(map[netip.Addr]bool, len(k.wanted))
	for _, a := range k.wanted {
		was[a] = true
	}
	var errs []error
	for _, a := range addresses {
		if !was[a] {
			_, err := k.take(ctx, a, nil)
			errs = append(errs, err)
		}
		delete(was, a)
	}
	for a := range was {
		errs = append(errs, k.table.Remove(a, k.held[a].Index))
		k.forget(a)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	k.wanted, k.dirty = slices.Clone(addresses), false
	return nil
}

// take adds one address where it belongs, unless it is there.
func (k *KernelAddresses) take(ctx context.Context, a netip.Addr, present map[addr.Entry]time.Duration) (addr.Entry, error) {
	i, err := k.where(a)
	if err != nil {
		return addr.Entry{}, err
	}
	at := addr.Entry{Address: a, Index: i.Index}
	valid, is := present[at]
	if !is || valid < lifetime/2 {
		if err := k.table.Add(a, i, lifetime); err != nil {
			return at, err
		}
	}
	k.taken(ctx, a, i, !is)
	return at, nil
}

// taken has an address announced that this host now answers for, unless it did before.
func (k *KernelAddresses) taken(ctx context.Context, a netip.Addr, i addr.Interface, anew bool) {
	if before, held := k.held[a]; anew || !held || before.Index != i.Index || !before.Up && i.Up {
		klog.FromContext(ctx).Info("Holding a public address", "address", a, "interface", i.Name, "new", anew)
		k.due[a] = nil
		for _, after := range announceAfter {
			k.due[a] = append(k.due[a], time.Now().Add(after))
		}
		poke(k.urgent)
	}
	k.held[a] = i
}

func (k *KernelAddresses) forget(a netip.Addr) {
	delete(k.held, a)
	delete(k.due, a)
	delete(k.rivals, a)
}

// announce sends what is due until the context ends.
func (k *KernelAddresses) announce(ctx context.Context) {
	again := time.NewTicker(announceAgain)
	defer again.Stop()
	for {
		var next <-chan time.Time
		if wait, any := k.announceDue(ctx); any {
			next = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return
		case <-k.urgent:
		case <-next:
		case now := <-again.C:
			k.mu.Lock()
			for a := range k.held {
				k.due[a] = append(k.due[a], now)
			}
			k.mu.Unlock()
		}
	}
}

// announceDue sends and returns how long until the next announcement.
func (k *KernelAddresses) announceDue(ctx context.Context) (wait time.Duration, any bool) {
	type frame struct {
		address netip.Addr
		on      addr.Interface
	}
	var frames []frame
	k.mu.Lock()
	now := time.Now()
	for a, times := range k.due {
		n := 0
		for n < len(times) && !times[n].After(now) {
			n++
		}
		if n > 0 && k.held[a].Up {
			frames = append(frames, frame{a, k.held[a]})
		}
		if times = times[n:]; len(times) == 0 {
			delete(k.due, a)
			continue
		}
		k.due[a] = times
		if until := times[0].Sub(now); !any || until < wait {
			wait, any = until, true
		}
	}
	k.mu.Unlock()
	for _, f := range frames {
		if err := k.wire.Announce(f.on, f.address); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Cannot announce an address", "address", f.address, "interface", f.on.Name)
		}
	}
	return wait, any
}

// seen is called for every claim of another host.
func (k *KernelAddresses) seen(s announce.Sighting) {
	k.mu.Lock()
	defer k.mu.Unlock()
	i, ours := k.held[s.Address]
	if !ours || i.Index != s.Index || time.Since(k.rivals[s.Address]) < conflictEvery {
		return
	}
	k.rivals[s.Address] = time.Now()
	klog.Background().Info("Another host claims an address of ours", "address", s.Address, "mac", s.MAC.String(), "interface", i.Name)
}
