package guard

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
)

// Pool is one whose addresses nodes hold.
type Pool struct {
	Name    string
	Guarded bool
	// Routed: the nodes have no NIC in the pool's network, and send from its addresses
	// by the NIC that has their own address.
	Routed bool
	// Network and Reservation are OpenNebula's IDs; -1 while unknown.
	Network, Reservation int
	// Selector of the nodes that may hold the addresses; nil: all.
	Selector labels.Selector
	// Filtered: NICs that are attached to the network get the filter.
	Filtered bool
	// Conditions are those that the pool has now.
	Conditions []metav1.Condition
	Generation int64
}

// Store keeps the VirtualIPs. See package virtualip.
type Store interface {
	Objects(keep func(*v1alpha1.VirtualIP) bool) []*v1alpha1.VirtualIP
	SetCandidates(ctx context.Context, a netip.Addr, decide func(*v1alpha1.VirtualIP) []v1alpha1.Candidate) error
}

// Options configures a Controller.
type Options struct {
	OpenNebula OpenNebula
	Store      Store
	// Nodes is an informer that the caller runs, MachineOf the machine of a node.
	Nodes     cache.SharedIndexInformer
	MachineOf func(*corev1.Node) (id int, ok bool)
	// Pools lists the pools whose addresses nodes hold. False: they are not known yet.
	Pools func() ([]Pool, bool)
	// Answered reports whether a node may still answer for an address that no
	// Service has any more.
	Answered func(*v1alpha1.VirtualIP) bool
	// Active reports whether an address is given to somebody.
	Active func(*v1alpha1.VirtualIP) bool
	// Report sets conditions of a pool, OnEvent tells about a transition, and
	// OnChange says that an address was freed of its last alias.
	Report   func(pool string, conditions []metav1.Condition)
	OnEvent  func(ipam.Event)
	OnChange func()
	// ReplaceAfter is how long a candidate has to be gone before another one
	// takes its place. Default 5 min: longer than a machine needs to restart.
	ReplaceAfter time.Duration
	// Resync is how often the machines are looked at when nothing happens, while
	// there are guarded addresses. Default 1 min. Without, every 5 min.
	Resync time.Duration
	// Poll is how soon a machine in a hotplug is looked at again, at first.
	// Default 1 s.
	Poll time.Duration
}

// Controller gives the addresses of guarded pools their candidates. All but the
// options is its own goroutine's.
type Controller struct {
	o    Options
	kick chan struct{}

	machines []Machine // the list as last read
	readAt   time.Time
	readWait retry
	missing  map[string]time.Time // nodes that cannot be candidates, since when
	work     map[int]*progress    // machines with something to do
	reported map[string]reported
}

const defaultIdle = 5 * time.Minute

// New checks the options. It starts nothing.
func New(o Options) (*Controller, error) {
	if o.OpenNebula == nil || o.Store == nil || o.Nodes == nil || o.MachineOf == nil || o.Pools == nil ||
		o.Answered == nil || o.Active == nil || o.Report == nil || o.OnEvent == nil || o.OnChange == nil {
		return nil, errors.New("guard: an option is missing")
	}
	if o.ReplaceAfter == 0 {
		o.ReplaceAfter = 5 * time.Minute
	}
	if o.Resync == 0 {
		o.Resync = time.Minute
	}
	if o.Poll == 0 {
		o.Poll = time.Second
	}
	c := &Controller{
		o: o, kick: make(chan struct{}, 1), readWait: retry{first: o.Poll}, missing: map[string]time.Time{},
		work: map[int]*progress{}, reported: map[string]reported{},
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { c.Notify() },
		UpdateFunc: func(a, b any) { c.nodeChanged(a, b) },
		DeleteFunc: func(any) { c.Notify() },
	}
	if _, err := o.Nodes.AddEventHandler(handler); err != nil {
		return nil, err
	}
	return c, nil
}

// nodeChanged leaves out the heartbeats of nodes.
func (c *Controller) nodeChanged(a, b any) {
	was, ok1 := a.(*corev1.Node)
	is, ok2 := b.(*corev1.Node)
	if ok1 && ok2 && c.usable(was) == c.usable(is) && was.Spec.ProviderID == is.Spec.ProviderID && maps.Equal(was.Labels, is.Labels) {
		return
	}
	c.Notify()
}

// Notify says that VirtualIPs or pools have changed. Many calls cause few looks.
func (c *Controller) Notify() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// passGap is the least time between two passes.
const passGap = 100 * time.Millisecond

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	ctx = klog.NewContext(ctx, klog.FromContext(ctx).WithName("guard"))
	if !cache.WaitForCacheSync(ctx.Done(), c.o.Nodes.HasSynced) {
		return nil
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-c.kick:
			if !sleep(ctx, min(passGap, c.o.Poll)) {
				return nil
			}
		}
		timer.Reset(max(time.Until(c.pass(ctx)), 0))
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// pass does all that can be done now, and says when to look again.
func (c *Controller) pass(ctx context.Context) time.Time {
	pools, known := c.o.Pools()
	if !known {
		return time.Now().Add(c.o.Poll)
	}
	vips := c.guarded()
	idle := time.Now().Add(defaultIdle)
	if len(vips) > 0 {
		idle = time.Now().Add(c.o.Resync)
	}
	if len(pools) == 0 && len(vips) == 0 {
		return idle
	}
	if err := c.read(ctx, len(vips) > 0); err != nil {
		return c.readWait.until
	}
	w := c.world(pools, vips)
	c.choose(ctx, w, vips)
	w.add(c.guarded())
	next := c.serve(ctx, w)
	c.report(w)
	if len(c.missing) > 0 {
		idle = earlier(idle, time.Now().Add(c.o.ReplaceAfter/4))
	}
	return earlier(idle, next)
}

func earlier(a, b time.Time) time.Time {
	if !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func (c *Controller) guarded() []*v1alpha1.VirtualIP {
	return c.o.Store.Objects(func(v *v1alpha1.VirtualIP) bool { return v.Spec.Guard != nil })
}

// read lists the machines, unless that was done just now. A pass while hotplugs
// are under way has no need of it: these machines are read one by one.
func (c *Controller) read(ctx context.Context, guarded bool) error {
	every := defaultIdle
	if guarded {
		every = c.o.Resync
	}
	if !c.readAt.IsZero() && time.Since(c.readAt) < every*9/10 && !c.newMachine() {
		return nil
	}
	if c.readWait.blocked() {
		return errWait
	}
	list, err := c.o.OpenNebula.Machines(ctx)
	if err != nil {
		c.readWait.fail()
		if ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Cannot list the virtual machines; trying again", "failures", c.readWait.failures)
		}
		return err
	}
	c.readWait.ok()
	c.machines, c.readAt = list, time.Now()
	return nil
}

// newMachine reports whether a node has come whose machine is not in the list.
func (c *Controller) newMachine() bool {
	for _, obj := range c.o.Nodes.GetStore().List() {
		n, ok := obj.(*corev1.Node)
		if !ok || !c.usable(n) || time.Since(c.readAt) < c.o.Poll {
			continue
		}
		id, ok := c.o.MachineOf(n)
		if _, since := c.missing[n.Name]; ok && !since && c.machine(id) == nil {
			return true
		}
	}
	return false
}

func (c *Controller) machine(id int) *Machine {
	for i := range c.machines {
		if c.machines[i].ID == id {
			return &c.machines[i]
		}
	}
	return nil
}

// choose writes the candidates of every address.
func (c *Controller) choose(ctx context.Context, w *world, vips []*v1alpha1.VirtualIP) {
	for _, p := range w.pools {
		var subjects []subject
		for _, v := range vips {
			if v.Spec.Pool == p.Name {
				subjects = append(subjects, c.subject(v))
			}
		}
		c.write(ctx, subjects, plan(w.nodesOf(p), subjects))
	}
	var lost []subject // their pool is gone: nothing new for them
	for _, v := range vips {
		if _, ok := w.pool(v.Spec.Pool); !ok {
			lost = append(lost, c.subject(v))
		}
	}
	c.write(ctx, lost, plan(nil, lost))
}

func (c *Controller) subject(v *v1alpha1.VirtualIP) subject {
	s := subject{wanted: c.o.Active(v), list: v.Spec.Guard.Candidates}
	s.address, _ = netip.ParseAddr(v.Spec.Address) // checked when it was taken in
	if v.Status.Holder != nil {
		s.holder = v.Status.Holder.Name
	}
	return s
}

func (c *Controller) write(ctx context.Context, subjects []subject, lists [][]v1alpha1.Candidate) {
	for i, s := range subjects {
		if ctx.Err() != nil || same(s.list, lists[i]) {
			continue
		}
		err := c.o.Store.SetCandidates(ctx, s.address, func(v *v1alpha1.VirtualIP) []v1alpha1.Candidate {
			if now := c.subject(v); now.wanted != s.wanted || !same(now.list, s.list) {
				c.Notify() // it is not what was planned for
				return now.list
			}
			return lists[i]
		})
		if err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Cannot write the candidates of an address; trying again", "address", s.address)
			c.Notify()
		}
	}
}
