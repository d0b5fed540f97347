package provider

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	kubefake "k8s.io/client-go/kubernetes/fake"

	"github.com/onelb/onelb/api/client"
	"github.com/onelb/onelb/api/client/fake"
	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/loadbalancer"
	"github.com/onelb/onelb/loadbalancer/guard"
	"github.com/onelb/onelb/loadbalancer/virtualip"
	"github.com/onelb/onelb/provider/one"
	"github.com/onelb/onelb/provider/providerid"
	"github.com/onelb/onelb/test/onesim"
)

// guardWorld is a front-end with a filtered network, machines in it and a
// reservation of a SHARED range; and an API server with their nodes.
type guardWorld struct {
	*testing.T
	sim         *onesim.Sim
	one         *one.Client
	kube        *kubefake.Clientset
	onelb       *fake.Clientset
	network     int
	reservation int
	machines    []int

	mu         sync.Mutex // guards all below
	events     []ipam.Event
	conditions []metav1.Condition
	calls      int // of guard to OpenNebula, and writes
	dieAt      int // the call at which the process dies; 0: never
	after      bool
	kill       context.CancelFunc
	lives      int
	resync     time.Duration
}

func (w *guardWorld) check(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func newGuardWorld(t *testing.T, nodes int, hotplug time.Duration) *guardWorld {
	t.Helper()
	sim, err := onesim.New(onesim.Options{Delays: onesim.Delays{Hotplug: hotplug}})
	w := &guardWorld{T: t, sim: sim, onelb: fake.New(), kube: kubefake.NewClientset(), resync: 100 * time.Millisecond}
	w.check(err)
	_, err = sim.AddUser("k8s", "k8spass123", "users")
	w.check(err)
	host, err := sim.AddHost("host")
	w.check(err)
	w.network, err = sim.AddVNet("", `NAME="lan" VN_MAD="dummy" BRIDGE="br0" FILTER_IP_SPOOFING="YES"
		AR=[TYPE="IP4",IP="10.20.0.10",SIZE="60"] AR=[TYPE="IP4",IP="10.20.1.1",SIZE="200",SHARED="YES"]`)
	w.check(err)
	endpoint, stop, err := sim.Start("127.0.0.1:0")
	w.check(err)
	t.Cleanup(stop)
	t.Setenv("ONELB_TEST_AUTH", "k8s:k8spass123")
	w.one, err = one.New(one.Options{Endpoint: endpoint, Credentials: one.CredentialEnv("ONELB_TEST_AUTH"), CacheTTL: time.Millisecond})
	w.check(err)
	for i := range nodes {
		id, err := sim.AddVM(onesim.VMSpec{Name: nodeName(i), Owner: "k8s", Host: host, NICs: []onesim.NICSpec{{Network: w.network}}})
		w.check(err)
		w.machines = append(w.machines, id)
		w.addNode(nodeName(i), id)
	}
	return w
}

func nodeName(i int) string { return fmt.Sprintf("node-%02d", i) }

func (w *guardWorld) addNode(name string, machine int) {
	w.Helper()
	_, err := w.kube.CoreV1().Nodes().Create(w.Context(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{ProviderID: providerid.Format(machine)},
	}, metav1.CreateOptions{})
	w.check(err)
}

// reserve cuts a reservation out of a range of the network.
func (w *guardWorld) reserve(rangeID ipam.RangeID, first string, size int) {
	w.Helper()
	id, err := w.one.Reserve(w.Context(), ipam.ReserveRequest{
		Parent: ipam.NetworkID(w.network), Name: "lab-vip", Into: ipam.NoNetwork, Size: size, Range: rangeID, First: netip.MustParseAddr(first),
	})
	w.check(err)
	w.sim.Settle()
	w.reservation = int(id)
}

// address makes a guarded address on hold.
func (w *guardWorld) address(a netip.Addr) {
	w.Helper()
	w.check(w.sim.Hold(w.reservation, a))
	v, err := w.onelb.VirtualIPs().Create(w.Context(), &v1alpha1.VirtualIP{
		ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.VirtualIPName(a), Finalizers: []string{v1alpha1.AddressFinalizer}},
		Spec: v1alpha1.VirtualIPSpec{
			Address: a.String(), Pool: "vip", Role: v1alpha1.RoleL2, Guard: &v1alpha1.Guard{},
			Services: []v1alpha1.ServiceReference{{Namespace: "ns", Name: "s" + a.String(), UID: types.UID(a.String())}},
		},
	}, metav1.CreateOptions{})
	w.check(err)
	apimeta.SetStatusCondition(&v.Status.Conditions, metav1.Condition{Type: v1alpha1.VirtualIPOnHold, Status: metav1.ConditionTrue, Reason: "Held"})
	_, err = w.onelb.VirtualIPs().UpdateStatus(w.Context(), v, metav1.UpdateOptions{})
	w.check(err)
}

// change edits a VirtualIP as somebody else would.
func (w *guardWorld) change(a netip.Addr, edit func(*v1alpha1.VirtualIP)) {
	w.Helper()
	for {
		v, err := w.onelb.VirtualIPs().Get(w.Context(), v1alpha1.VirtualIPName(a), metav1.GetOptions{})
		w.check(err)
		status := v.Status
		edit(v)
		if status.Holder != v.Status.Holder {
			_, err = w.onelb.VirtualIPs().UpdateStatus(w.Context(), v, metav1.UpdateOptions{})
		} else {
			_, err = w.onelb.VirtualIPs().Update(w.Context(), v, metav1.UpdateOptions{})
		}
		if err == nil {
			return
		}
		if !strings.Contains(err.Error(), "modified") && !strings.Contains(err.Error(), "onflict") {
			w.Fatal(err)
		}
	}
}

func (w *guardWorld) release(a netip.Addr) {
	w.Helper()
	w.change(a, func(v *v1alpha1.VirtualIP) {
		now := metav1.Now()
		v.Spec.Services, v.Spec.ReleaseTime = nil, &now
	})
}

func (w *guardWorld) list(a netip.Addr) []v1alpha1.Candidate {
	w.Helper()
	v, err := w.onelb.VirtualIPs().Get(w.Context(), v1alpha1.VirtualIPName(a), metav1.GetOptions{})
	w.check(err)
	return v.Spec.Guard.Candidates
}

// aliases are the machines that have an address as an alias in OpenNebula.
func (w *guardWorld) aliases(a netip.Addr) []int { return w.allAliases()[a] }

func (w *guardWorld) allAliases() map[netip.Addr][]int {
	w.Helper()
	out := map[netip.Addr][]int{}
	for _, id := range w.machines {
		vm, err := w.sim.VM(id)
		w.check(err)
		if vm.State == "DONE" {
			continue
		}
		for _, n := range vm.NICs {
			if n.Alias && n.Network == w.reservation {
				out[n.IP] = append(out[n.IP], id)
			}
		}
	}
	return out
}

func attached(list []v1alpha1.Candidate) []int {
	var out []int
	for _, c := range list {
		if c.State == v1alpha1.CandidateAttached {
			out = append(out, int(c.Machine))
		}
	}
	slices.Sort(out)
	return out
}

// await polls until ok, generously, and leaves most of the processor to what it waits for.
func (w *guardWorld) await(what string, ok func() bool) {
	w.Helper()
	for deadline := time.Now().Add(4 * time.Minute); ; {
		began := time.Now()
		if ok() {
			return
		}
		if time.Now().After(deadline) {
			w.Fatalf("waited in vain: %s; conditions %+v", what, w.seen())
		}
		time.Sleep(5*time.Millisecond + 4*time.Since(began))
	}
}

func (w *guardWorld) seen() []metav1.Condition {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.conditions
}

func (w *guardWorld) sent(reason string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.events, func(e ipam.Event) bool { return e.Reason == reason })
}

// settled reports whether each address is attached to n machines, and nothing more.
func (w *guardWorld) settled(n int, all ...netip.Addr) func() bool {
	return func() bool {
		for _, a := range all {
			if list := w.list(a); len(list) != n || len(attached(list)) != n {
				return false
			}
		}
		on := w.allAliases()
		return !slices.ContainsFunc(all, func(a netip.Addr) bool { return !slices.Equal(attached(w.list(a)), on[a]) })
	}
}

// start runs one process until stop, with a store of its own.
func (w *guardWorld) start() (stop func()) {
	w.Helper()
	ctx, cancel := context.WithCancel(w.Context())
	w.mu.Lock()
	w.kill, w.conditions = cancel, nil
	w.mu.Unlock()
	inf := client.NewVirtualIPInformer(w.onelb, 0)
	var c *guard.Controller
	var ready sync.WaitGroup
	ready.Add(1)
	store, err := virtualip.New(virtualip.Options{Client: w.onelb.VirtualIPs(), Informer: inf, OnChange: func() { ready.Wait(); c.Notify() }})
	w.check(err)
	shared := informers.NewSharedInformerFactory(w.kube, 0)
	c, err = guard.New(guard.Options{
		OpenNebula: mortal{machines{w.one}, w}, Store: mortalStore{store, w}, Nodes: shared.Core().V1().Nodes().Informer(), MachineOf: machineOf,
		Pools: func() ([]guard.Pool, bool) {
			return []guard.Pool{{Name: "vip", Guarded: true, Network: w.network, Reservation: w.reservation, Filtered: true, Conditions: w.seen()}}, inf.HasSynced()
		},
		Answered: loadbalancer.MayAnswer, Active: virtualip.Active, OnChange: func() {},
		Report:  func(_ string, n []metav1.Condition) { w.mu.Lock(); w.conditions = n; w.mu.Unlock() },
		OnEvent: func(e ipam.Event) { w.mu.Lock(); w.events = append(w.events, e); w.mu.Unlock() },
		Poll:    10 * time.Millisecond, Resync: w.resync, ReplaceAfter: 300 * time.Millisecond,
	})
	w.check(err)
	ready.Done()
	var wg sync.WaitGroup
	wg.Go(func() { inf.RunWithContext(ctx) })
	shared.Start(ctx.Done())
	wg.Go(func() { _ = c.Run(ctx) })
	return func() { cancel(); wg.Wait(); shared.Shutdown() }
}

var errKilled = errors.New("the process was killed")

// count notes a call, and kills the process at the one that was chosen: before
// it is done, or after.
func (w *guardWorld) count(call func() error) error {
	w.mu.Lock()
	w.calls++
	dies, after, kill := w.calls == w.dieAt, w.after, w.kill
	w.mu.Unlock()
	if dies && !after {
		kill()
		return errKilled
	}
	err := call()
	if dies {
		kill()
		return errKilled
	}
	return err
}

type mortal struct {
	machines
	w *guardWorld
}

func (m mortal) AttachAlias(ctx context.Context, vm, network int, parent string, a netip.Addr) error {
	return m.w.count(func() error { return m.machines.AttachAlias(ctx, vm, network, parent, a) })
}

func (m mortal) DetachNIC(ctx context.Context, vm, nic int) error {
	return m.w.count(func() error { return m.machines.DetachNIC(ctx, vm, nic) })
}

type mortalStore struct {
	*virtualip.Store
	w *guardWorld
}

func (s mortalStore) SetCandidates(ctx context.Context, a netip.Addr, decide func(*v1alpha1.VirtualIP) []v1alpha1.Candidate) error {
	set := func() error { return s.Store.SetCandidates(ctx, a, decide) }
	for _, v := range s.Objects(func(v *v1alpha1.VirtualIP) bool { return v.Spec.Address == a.String() && v.Spec.Guard != nil }) {
		if !slices.Equal(decide(v), v.Spec.Guard.Candidates) {
			return s.w.count(set)
		}
	}
	return set() // nothing to write
}

func addresses(first string, n int) []netip.Addr {
	all := make([]netip.Addr, n)
	for i, a := 0, netip.MustParseAddr(first); i < n; i, a = i+1, a.Next() {
		all[i] = a
	}
	return all
}

// TestGuardManyAddresses attaches 100 addresses to three of ten nodes each,
// evenly, and never two at once to a machine.
func TestGuardManyAddresses(t *testing.T) {
	w := newGuardWorld(t, 10, 5*time.Millisecond)
	w.resync = 2 * time.Second
	w.reserve(1, "10.20.1.1", 100)
	all := addresses("10.20.1.1", 100)
	for _, a := range all {
		w.address(a)
	}
	stop := w.start()
	defer stop()
	w.await("all addresses attached", w.settled(guard.Enough, all...))
	for _, id := range w.machines {
		vm, err := w.sim.VM(id)
		w.check(err)
		if n := len(vm.NICs) - 1; n != 30 {
			t.Errorf("VM %d has %d aliases, want 30", id, n)
		}
	}
	w.await("the condition", func() bool { return apimeta.IsStatusConditionTrue(w.seen(), v1alpha1.PoolGuarded) })
	if c := apimeta.FindStatusCondition(w.seen(), v1alpha1.PoolSpoofingFilter); c == nil || c.Status != metav1.ConditionFalse || c.Reason != guard.ReasonGuarded {
		t.Errorf("condition %+v", c)
	}
	for _, a := range all[:50] {
		w.release(a)
	}
	w.await("half of them detached", w.settled(0, all[:50]...))
	if !w.settled(guard.Enough, all[50:]...)() {
		t.Error("addresses that were not released have lost candidates")
	}
}

// TestGuardKilled kills the process at every call that it makes, before and
// after it is done, through attach and release; another process goes on.
func TestGuardKilled(t *testing.T) {
	for _, after := range []bool{false, true} {
		t.Run(fmt.Sprintf("after=%t", after), func(t *testing.T) {
			w := newGuardWorld(t, 2, 3*time.Millisecond)
			w.reserve(1, "10.20.1.1", 2)
			w.after = after
			ended := false
			for n := 1; !ended && n < 100; n++ {
				ended = w.life(n)
			}
			if !ended {
				t.Error("no end of calls")
			}
			t.Logf("killed at %d calls", w.lives)
		})
	}
}

// life is one round in which the process dies at the n-th call and another one
// goes on. True: there were fewer calls.
func (w *guardWorld) life(n int) bool {
	w.Helper()
	all := addresses("10.20.1.1", 2)
	for _, a := range all {
		w.address(a)
	}
	w.mu.Lock()
	w.calls, w.dieAt = 0, n
	w.mu.Unlock()
	watch := make(chan struct{})
	done := make(chan struct{})
	go func() { defer close(done); w.watchOrder(watch, all) }()
	stop := w.start()
	again := func(ok func() bool) func() bool {
		return func() bool {
			w.mu.Lock()
			died := w.calls >= n && w.dieAt > 0
			w.mu.Unlock()
			if died {
				stop()
				w.mu.Lock()
				w.dieAt = 0
				w.mu.Unlock()
				stop = w.start()
			}
			return ok()
		}
	}
	w.await(fmt.Sprintf("attached, killed at call %d", n), again(w.settled(2, all...)))
	for _, a := range all {
		w.release(a)
	}
	w.await(fmt.Sprintf("detached, killed at call %d", n), again(w.settled(0, all...)))
	stop()
	close(watch)
	<-done
	w.mu.Lock()
	never := w.dieAt > 0
	if !never {
		w.lives++
	}
	w.mu.Unlock()
	for _, a := range all {
		w.check(w.sim.Release(w.reservation, a))
		w.change(a, func(v *v1alpha1.VirtualIP) { v.Finalizers = nil })
		w.check(w.onelb.VirtualIPs().Delete(w.Context(), v1alpha1.VirtualIPName(a), metav1.DeleteOptions{}))
	}
	return never
}

// watchOrder looks all the time for an alias that no VirtualIP names: it would
// outlive the hold.
func (w *guardWorld) watchOrder(end chan struct{}, all []netip.Addr) {
	for {
		select {
		case <-end:
			return
		case <-time.After(2 * time.Millisecond):
		}
		for _, a := range all {
			// First OpenNebula, then the list: what is attached was listed before;
			// and what is off the list was detached before.
			on := w.aliases(a)
			list := w.list(a)
			for _, id := range on {
				if !slices.ContainsFunc(list, func(c v1alpha1.Candidate) bool { return int(c.Machine) == id }) && slices.Contains(w.aliases(a), id) {
					w.Errorf("VM %d has %s, its list says %v", id, a, list)
				}
			}
		}
	}
}

// TestGuardReplaces: a node that goes is replaced after a while, its machine
// loses the alias only when another node holds the address; foreign aliases stay.
func TestGuardReplaces(t *testing.T) {
	w := newGuardWorld(t, 5, 5*time.Millisecond)
	w.reserve(1, "10.20.1.1", 4)
	other, err := w.sim.AddVNet("k8s", `NAME="other" VN_MAD="dummy" BRIDGE="br1" AR=[TYPE="IP4",IP="10.30.0.1",SIZE="9"]`)
	w.check(err)
	for _, id := range w.machines {
		w.check(w.one.AttachAlias(t.Context(), id, other, "NIC0", netip.AddrFrom4([4]byte{10, 30, 0, byte(1 + id - w.machines[0])})))
	}
	w.sim.Settle()
	a := netip.MustParseAddr("10.20.1.2")
	w.address(a)
	stop := w.start()
	defer stop()
	w.await("attached", w.settled(guard.Enough, a))
	holder := w.list(a)[0]
	w.change(a, func(v *v1alpha1.VirtualIP) {
		v.Status.Holder = &v1alpha1.Holder{Name: holder.Node, Epoch: 1, Since: metav1.NowMicro()}
	})
	w.check(w.kube.CoreV1().Nodes().Delete(t.Context(), holder.Node, metav1.DeleteOptions{}))
	w.await("another candidate", func() bool {
		return len(attached(w.list(a))) == guard.Enough && slices.ContainsFunc(w.list(a), func(c v1alpha1.Candidate) bool {
			return c.Node == holder.Node && c.State == v1alpha1.CandidateDetaching
		})
	})
	if !slices.Contains(w.aliases(a), int(holder.Machine)) {
		t.Error("the holder lost its alias while it held the address")
	}
	next := w.list(a)
	i := slices.IndexFunc(next, func(c v1alpha1.Candidate) bool { return c.State == v1alpha1.CandidateAttached })
	w.change(a, func(v *v1alpha1.VirtualIP) {
		v.Status.Holder = &v1alpha1.Holder{Name: next[i].Node, Epoch: 2, Since: metav1.NowMicro()}
	})
	w.await("detached from the one that went", w.settled(guard.Enough, a))
	if slices.Contains(w.aliases(a), int(holder.Machine)) {
		t.Error("the alias stayed")
	}
	for _, id := range w.machines {
		vm, err := w.sim.VM(id)
		w.check(err)
		if !slices.ContainsFunc(vm.NICs, func(n onesim.NICSnapshot) bool { return n.Alias && n.Network == other }) {
			t.Errorf("VM %d lost an alias of somebody else", id)
		}
	}

	// A machine that is terminated is off the list at once.
	gone := attached(w.list(a))[0]
	w.check(w.sim.SetVMState(gone, "DONE"))
	w.await("the terminated one off the list", func() bool {
		return !slices.ContainsFunc(w.list(a), func(c v1alpha1.Candidate) bool { return int(c.Machine) == gone })
	})
}

// TestGuardRepairs: an alias that somebody detaches is attached again, one that
// nobody knows of is detached.
func TestGuardRepairs(t *testing.T) {
	w := newGuardWorld(t, 4, 5*time.Millisecond)
	w.reserve(1, "10.20.1.1", 4)
	a, stray := netip.MustParseAddr("10.20.1.1"), netip.MustParseAddr("10.20.1.3")
	w.address(a)
	stop := w.start()
	defer stop()
	w.await("attached", w.settled(guard.Enough, a))
	victim := attached(w.list(a))[0]
	vm, err := w.sim.VM(victim)
	w.check(err)
	i := slices.IndexFunc(vm.NICs, func(n onesim.NICSnapshot) bool { return n.Alias })
	w.check(w.one.DetachNIC(t.Context(), victim, vm.NICs[i].ID))
	w.await("seen", func() bool { return len(attached(w.list(a))) < guard.Enough })
	w.await("attached again", w.settled(guard.Enough, a))
	w.await("a stray alias attached by somebody", func() bool {
		return w.one.AttachAlias(t.Context(), victim, w.reservation, "NIC0", stray) == nil
	})
	w.await("the stray detached", func() bool { return len(w.aliases(stray)) == 0 })
}

// TestGuardDriverFails: OpenNebula takes the call and the driver fails. Others
// become candidates, and an operator is told.
func TestGuardDriverFails(t *testing.T) {
	w := newGuardWorld(t, 4, 3*time.Millisecond)
	w.reserve(1, "10.20.1.1", 1)
	a := netip.MustParseAddr("10.20.1.1")
	for _, id := range w.machines[:2] {
		w.check(w.sim.FailDriver("attachnic", id, 7))
	}
	w.address(a)
	stop := w.start()
	defer stop()
	w.await("the event", func() bool { return w.sent(guard.ReasonGuardFailed) })
	w.await("attached in the end", w.settled(guard.Enough, a))
	w.await("recovery", func() bool { return w.sent(guard.ReasonGuardRecovered) })
}

// TestGuardNotShared: a range that is not SHARED is refused by OpenNebula, which
// the condition says.
func TestGuardNotShared(t *testing.T) {
	w := newGuardWorld(t, 3, time.Millisecond)
	w.reserve(0, "10.20.0.40", 2)
	w.address(netip.MustParseAddr("10.20.0.40"))
	stop := w.start()
	defer stop()
	w.await("the condition", func() bool {
		c := apimeta.FindStatusCondition(w.seen(), v1alpha1.PoolGuarded)
		return c != nil && c.Reason == guard.ReasonGuardFailing && strings.Contains(c.Message, `SHARED="YES"`)
	})
}
