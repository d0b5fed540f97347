package appliance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/loadbalancer/router"
)

// fakeOne is a virtual router of two instances whose contexts merge as those of
// OpenNebula do: an instance that was written to is in HOTPLUG for a while.
type fakeOne struct {
	t *testing.T

	mu       sync.Mutex // guards what follows
	machines map[int]*Machine
	writes   map[int]int
	hotplug  map[int]time.Time // until when
	down     error
	denied   error // of SetContext
	forgets  bool  // what it is told
	asked    int   // calls of SetContext
	shared   bool  // others write too, between a client's look and its write
	calls    int
	// stop, if set, is called before and after the effect of each call, and ends it
	// with an error if it says so.
	stop func(call int, after bool) bool
}

var errStopped = errors.New("stopped")

// others are variables that are not the cluster's.
func others() map[string]string {
	return map[string]string{
		"NETWORK": "YES", "PASSWORD": "YmxvYg==", "START_SCRIPT": "echo \"a\" $B", "EMPTY": "",
		"ETH0_IP": "203.0.113.3", "ETH0_MASK": "255.255.255.0", "ETH0_NETWORK": "203.0.113.0", "ETH0_VROUTER_IP": "203.0.113.2",
		"ETH1_IP": "10.20.0.3", "ETH1_MASK": "255.255.255.0", "ETH1_NETWORK": "10.20.0.0", "ETH1_VROUTER_IP": "10.20.0.1",
		"ONEAPP_VNF_NAT4_PORT_FWD0": "203.0.113.2:2222:10.20.0.9:22", "ONEAPP_VROUTER_ETH0_VIP1": "203.0.113.50/24",
	}
}

func newFakeOne(t *testing.T) *fakeOne {
	f := &fakeOne{t: t, machines: map[int]*Machine{}, writes: map[int]int{}, hotplug: map[int]time.Time{}}
	for _, id := range []int{3, 4} {
		f.machines[id] = &Machine{ID: id, State: "RUNNING", Ready: true, Context: others()}
	}
	return f
}

// call counts one; the effect is what it does.
func (f *fakeOne) call(effect func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	for id, end := range f.hotplug {
		if !time.Now().Before(end) {
			f.set(id, "RUNNING")
			delete(f.hotplug, id)
		}
	}
	if f.stop != nil && f.stop(f.calls, false) {
		return errStopped
	}
	if f.down != nil {
		return f.down
	}
	err := effect()
	if f.stop != nil && f.stop(f.calls, true) {
		return errStopped
	}
	return err
}

func (f *fakeOne) Instances(context.Context, int) (ids []int, err error) {
	err = f.call(func() error { ids = slices.Sorted(maps.Keys(f.machines)); return nil })
	return ids, err
}

func (f *fakeOne) Machine(_ context.Context, id int) (m Machine, err error) {
	err = f.call(func() error {
		m = *f.machines[id]
		m.Context = maps.Clone(m.Context)
		return nil
	})
	return m, err
}

func (f *fakeOne) SetContext(_ context.Context, id int, variables map[string]string) error {
	return f.call(func() error {
		m := f.machines[id]
		f.asked++
		if f.denied != nil {
			return f.denied
		}
		if m.Busy && !f.shared {
			f.t.Errorf("VM %d was written to in %s", id, m.State)
		}
		if !m.Ready {
			return ipam.ErrNotReady
		}
		if !f.forgets {
			maps.Copy(m.Context, variables)
		}
		f.writes[id]++
		if m.Off {
			return nil
		}
		f.set(id, "HOTPLUG")
		f.hotplug[id] = time.Now().Add(3 * time.Second)
		return nil
	})
}

func (f *fakeOne) set(id int, state string) {
	m := f.machines[id]
	m.Off = state == "POWEROFF"
	m.State, m.Ready, m.Busy, m.Gone = state, state == "RUNNING" || state == "POWEROFF", state == "HOTPLUG", state == "DONE"
}

// edit changes an instance as somebody else does.
func (f *fakeOne) edit(id int, change func(m *Machine)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f.machines[id])
}

func (f *fakeOne) context(id int) map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.machines[id].Context)
}

// written counts the writes of the instance that has most.
func (f *fakeOne) written() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Max(append(slices.Collect(maps.Values(f.writes)), 0))
}

// ours are the variables that are not others, empty ones left out, one a line.
func (f *fakeOne) ours(id int) string {
	f.t.Helper()
	context, known := f.context(id), others()
	for name, value := range known {
		if context[name] != value {
			f.t.Errorf("VM %d: %s is %q, was %q", id, name, context[name], value)
		}
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(context)) {
		if _, theirs := known[name]; !theirs && context[name] != "" {
			fmt.Fprintf(&b, "%s=%s\n", name, context[name])
		}
	}
	return b.String()
}

const identity = "5a1c0a5e-0000-4000-8000-000000000001"

func options(f *fakeOne) Options {
	return Options{Router: "edge", VirtualRouter: 0, Cluster: "lab", Identity: identity, Token: 1, OpenNebula: f}
}

// start runs a client until stop is called.
func start(t *testing.T, o Options) (*Client, func()) {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(ctx) }()
	return c, func() { cancel(); <-done }
}

// document forwards ports of 203.0.113.100 and following to 10.20.0.100 and
// following: one address for each list of ports.
func document(ports ...[]uint16) router.Document {
	var d router.Document
	for i, list := range ports {
		if len(list) == 0 {
			continue
		}
		inner := netip.AddrFrom4([4]byte{10, 20, 0, byte(100 + i)})
		d.Groups = append(d.Groups, router.Group{Name: "vip-" + inner.String(), Members: []router.Member{{Address: inner}}})
		for _, p := range list {
			d.Frontends = append(d.Frontends, router.Frontend{
				Address: netip.AddrFrom4([4]byte{203, 0, 113, byte(100 + i)}), Protocol: router.TCP, Port: p, BackendPort: p,
				Group: "vip-" + inner.String(), Service: fmt.Sprintf("default/s%d", i),
			})
		}
	}
	return d
}

// wanted is what the cluster has in a context for these entries.
func wanted(o Options, d router.Document) string {
	w := newOwner(o.Cluster, o.Identity, o.Token)
	entries, _ := entriesOf(d.Normalize())
	if len(entries) == 0 {
		return ""
	}
	all := w.variables(entries, others())
	all[w.ledger()], all[natVariable], all[natMarker] = w.signature(), yes, yes
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, "%s=%s\n", name, all[name])
	}
	return b.String()
}

// eventually lets the bubble's time pass until ok, an hour at most.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 3600 {
		synctest.Wait()
		if ok() {
			return
		}
		time.Sleep(time.Second)
	}
	t.Fatalf("never: %s", what)
}

func current(c *Client) func() bool {
	return func() bool {
		s := c.State()
		return len(s.Instances) > 0 && !slices.ContainsFunc(s.Instances, func(i router.InstanceState) bool { return !i.Current })
	}
}
