package arpfilter

import (
	"cmp"
	"context"
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/google/nftables"
	"k8s.io/klog/v2"
)

const (
	// renewInterval is also how soon a removed table is made again.
	renewInterval = 10 * time.Second
	// lapseTime is longer than kubelet waits before it restarts a crashing agent.
	lapseTime = 10 * time.Minute
	// defaultRelease is time for a restart.
	defaultRelease = 10 * time.Second
)

// Place is an address on the interface that holds it.
type Place struct {
	Address netip.Addr
	Index   int
}

// State is what is wanted. IPv6 addresses in it are ignored.
type State struct {
	// Known are the addresses for which only held places answer.
	Known []netip.Addr
	Held  []Place
	// Elsewhere: this host has known addresses on an interface of somebody else's,
	// so that it would answer even after the held one has lapsed.
	Elsewhere bool
}

// Options of New.
type Options struct {
	// Enter runs a function in the network namespace to work in. Nil: the
	// caller's.
	Enter func(func() error) error
	// Release is how long the host answers for held addresses without a renewal, if it
	// has them elsewhere. It should not be less than their lifetime. Zero: 10 s.
	Release time.Duration
	// Alive says whether whoever calls Set does its work; if not, nothing is renewed
	// that lets the host answer. Nil: it does.
	Alive func() bool
	// Failed is told about each attempt to write; nil for one that worked.
	Failed func(error)
}

// Filter writes the table.
type Filter struct {
	o       Options
	changed chan struct{}

	mu   sync.Mutex // guards want
	want *elements  // nil: nothing was handed over yet

	written *elements // what the kernel has, nil if that is not known; used by Run
}

// elements are the sets' keys in the kernel's bytes, sorted, and whether held ones
// have to be renewed.
type elements struct {
	known, held []string
	renewed     bool
}

func (e *elements) equal(x *elements) bool {
	return slices.Equal(e.known, x.known) && slices.Equal(e.held, x.held) && e.renewed == x.renewed
}

// New returns a Filter that does nothing before Run.
func New(o Options) *Filter {
	if o.Enter == nil {
		o.Enter = func(f func() error) error { return f() }
	}
	if o.Release == 0 {
		o.Release = defaultRelease
	}
	if o.Alive == nil {
		o.Alive = func() bool { return true }
	}
	if o.Failed == nil {
		o.Failed = func(error) {}
	}
	return &Filter{o: o, changed: make(chan struct{}, 1)}
}

// Set hands over the desired state. The last call counts.
func (f *Filter) Set(s State) {
	want := encode(s)
	f.mu.Lock()
	same := f.want != nil && f.want.equal(want)
	f.want = want
	f.mu.Unlock()
	if same {
		return
	}
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

func encode(s State) *elements {
	e := &elements{renewed: s.Elsewhere}
	for _, a := range s.Known {
		if a.Is4() {
			e.known = append(e.known, string(a.AsSlice()))
		}
	}
	for _, p := range s.Held {
		if p.Address.Is4() {
			b := binary.NativeEndian.AppendUint32(nil, uint32(p.Index)) // #nosec G115 -- an interface index
			e.held = append(e.held, string(append(b, p.Address.AsSlice()...)))
		}
	}
	for _, l := range []*[]string{&e.known, &e.held} {
		slices.Sort(*l)
		*l = slices.Compact(*l)
	}
	return e
}

// Run writes until ctx is done, and then once more what was handed over last: whoever
// calls Set ends before. It leaves that table, unless no address is known: then it
// removes it.
func (f *Filter) Run(ctx context.Context) error {
	renewal := time.NewTimer(renewInterval)
	defer renewal.Stop()
	failing := ""
	for {
		renew := false
		select {
		case <-ctx.Done():
			f.leave(ctx)
			return nil
		case <-f.changed:
		case <-renewal.C:
			renew = true
		}
		f.mu.Lock()
		want := f.want
		f.mu.Unlock()
		if renew || f.written == nil || want != nil && want.renewed != f.written.renewed {
			renewal.Reset(f.interval(want))
		}
		if want == nil {
			continue
		}
		err := f.write(want, renew)
		f.o.Failed(err)
		if text := errorText(err); text != failing {
			failing = text
			klog.FromContext(ctx).Info("The ARP filter was written", "err", err)
		}
	}
}

// interval is the time between two renewals.
func (f *Filter) interval(want *elements) time.Duration {
	if want != nil && want.renewed {
		return min(renewInterval, f.o.Release/3)
	}
	return renewInterval
}

// leave removes a table that has nothing to do. While there are addresses, nobody
// knows whether another agent follows, and without the table all nodes would answer
// for what kube-proxy in IPVS mode has given them. So it must be there, and say what
// was wanted last, before the agent has gone: on a busy machine it may not yet.
func (f *Filter) leave(ctx context.Context) {
	f.mu.Lock()
	want := f.want
	f.mu.Unlock()
	if want == nil {
		return
	}
	if len(want.known)+len(want.held) > 0 {
		if f.written == nil || !f.written.equal(want) {
			err := f.write(want, false)
			f.o.Failed(err)
			klog.FromContext(ctx).Info("The ARP filter was written at the end", "err", err)
		}
		return
	}
	err := f.transaction("remove", func(conn *nftables.Conn) error {
		conn.AddTable(table) // so that the deletion cannot fail
		conn.DelTable(table)
		return nil
	})
	f.o.Failed(err)
	if err != nil {
		klog.FromContext(ctx).Info("The ARP filter is left behind", "err", err)
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// write makes the kernel equal to want: by what differs from what was written
// last, or, if that fails or is not known, anew.
func (f *Filter) write(want *elements, renew bool) error {
	if f.written != nil && f.written.renewed == want.renewed && f.edit(f.written, want, renew) == nil {
		f.written = want
		return nil
	}
	f.written = nil
	if err := f.rebuild(want); err != nil {
		return err
	}
	f.written = want
	return nil
}

// without are the elements of a that b has not; both are sorted.
func without(a, b []string) []string {
	var out []string
	for _, x := range a {
		if _, found := slices.BinarySearchFunc(b, x, cmp.Compare[string]); !found {
			out = append(out, x)
		}
	}
	return out
}
