package loadbalancer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/api/client"
	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/loadbalancer/appliance"
	"github.com/onelb/onelb/loadbalancer/virtualip"
)

// Defaults of an AddressPool, for objects that were made before the API server
// filled them in.
const (
	defaultChunk      = 8
	defaultAhead      = 4
	defaultQuarantine = 30 * time.Second
	statusTimeout     = 10 * time.Second
)

// poolSet hands the AddressPool objects to IPAM and writes their status.
type poolSet struct {
	client   client.AddressPools
	informer cache.SharedIndexInformer
	ipam     Allocator
	events   *events
	routers  []string
	// appliances are those of routers that are stock appliances.
	appliances []string
	queue      workqueue.TypedRateLimitingInterface[string]
	placer     placer               // nil: none
	loaded     func()               // told when pools may say something else; nil: nobody
	placed     map[string]string    // what placer was told last, by pool; used by Run only
	written    map[string]time.Time // when the status was written last, by pool; used by Run only

	mu      sync.Mutex // guards all below
	views   map[string]*poolView
	invalid map[string]error
	further map[string][]metav1.Condition // of others than us
}

func newPoolSet(c client.AddressPools, inf cache.SharedIndexInformer, a Allocator, e *events, routers, appliances []string) *poolSet {
	return &poolSet{
		client: c, informer: inf, ipam: a, events: e, routers: routers, appliances: appliances,
		queue:  workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](100*time.Millisecond, 30*time.Second)),
		placed: map[string]string{}, written: map[string]time.Time{},
		views: map[string]*poolView{}, invalid: map[string]error{}, further: map[string][]metav1.Condition{},
	}
}

func (p *poolSet) watch() error {
	_, err := p.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    p.changed,
		UpdateFunc: p.updated,
		DeleteFunc: p.changed,
	})
	if err != nil {
		return fmt.Errorf("watch AddressPools: %w", err)
	}
	return nil
}

func (p *poolSet) changed(obj any) {
	if d, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = d.Obj
	}
	p.load()
	if pool, ok := obj.(*v1alpha1.AddressPool); ok {
		p.queue.Add(pool.Name)
	}
}

// updated looks at the whole set only if more than the status is new, which is
// mostly our own writing.
func (p *poolSet) updated(old, obj any) {
	before, ok := old.(*v1alpha1.AddressPool)
	now, ok2 := obj.(*v1alpha1.AddressPool)
	if ok && ok2 && before.UID == now.UID && equality.Semantic.DeepEqual(before.Spec, now.Spec) &&
		before.DeletionTimestamp.IsZero() == now.DeletionTimestamp.IsZero() && slices.Equal(before.Finalizers, now.Finalizers) {
		p.queue.Add(now.Name)
		return
	}
	p.changed(obj)
}

// statusChanged is called by IPAM, from any goroutine.
func (p *poolSet) statusChanged(name string) { p.queue.Add(name) }

// load gives IPAM the whole set as it is now. It does nothing before the set is
// known, since a pool that is missing is a pool that goes. A new pool comes to it
// with our finalizer only: else it could be deleted while its reservation is being
// made, and after a crash nobody would know of that.
func (p *poolSet) load() {
	if !p.informer.HasSynced() {
		return
	}
	specs := []ipam.PoolSpec{}
	views := map[string]*poolView{}
	invalid := map[string]error{}
	for _, obj := range p.informer.GetStore().List() {
		pool, ok := obj.(*v1alpha1.AddressPool)
		if !ok {
			continue
		}
		v, verr := viewOf(pool)
		v.Appliance = v.Router != nil && slices.Contains(p.appliances, v.Router.Name)
		views[pool.Name] = v
		spec, err := specOf(pool)
		if err = errors.Join(verr, err); err == nil {
			err = p.checkRouter(v)
		}
		if err != nil {
			invalid[pool.Name] = err
			v.Problem = err
		}
		if _, known := p.ipam.PoolStatus(pool.Name); known || hasPoolFinalizer(pool) {
			specs = append(specs, spec)
		}
	}
	slices.SortFunc(specs, func(a, b ipam.PoolSpec) int { return compareStrings(a.Name, b.Name) })
	p.mu.Lock()
	p.views, p.invalid = views, invalid
	p.mu.Unlock()
	p.ipam.SetPools(specs)
	if p.loaded != nil {
		p.loaded()
	}
}

func compareStrings(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (p *poolSet) checkRouter(v *poolView) error {
	r := v.Router
	switch {
	case r == nil:
		return nil
	case v.Appliance:
		if err := appliance.UnservablePool(r); err != nil {
			return fmt.Errorf("router %q has driver: appliance in the cloud-config: %w", r.Name, err)
		}
		return nil
	case slices.Contains(p.routers, r.Name):
		return nil
	}
	return fmt.Errorf("router %q is not in the cloud-config file: add it under routers, or change spec.router.name", r.Name)
}

// Views returns all pools with what IPAM says of them now, sorted by name.
func (p *poolSet) Views() []*poolView {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]*poolView, 0, len(p.views))
	for _, v := range p.views {
		out = append(out, p.complete(v))
	}
	slices.SortFunc(out, func(a, b *poolView) int { return compareStrings(a.Name, b.Name) })
	return out
}

// settleWait is how long a Service waits for pools that IPAM has not looked at
// yet: a person often makes both in one go.
const settleWait = 3 * time.Second

// WaitSettled waits, a few seconds at most, until IPAM has looked at every
// pool. It says nothing about the result.
func (p *poolSet) WaitSettled(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleWait)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for p.pending() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// pending reports whether IPAM is still making up its mind about a pool.
func (p *poolSet) pending() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, v := range p.views {
		st, ok := p.ipam.PoolStatus(name)
		if v.Problem == nil && (!ok || (!st.Ready && (st.Reason == ipam.ReasonPending || st.Reason == ipam.ReasonReserving))) {
			return true
		}
	}
	return false
}

// View returns one pool.
func (p *poolSet) View(name string) (*poolView, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	v, ok := p.views[name]
	if !ok {
		return nil, false
	}
	return p.complete(v), true
}

// SNAT is what a pool says of the addresses that backends see. A pool that is gone
// says nothing.
func (p *poolSet) SNAT(name string) v1alpha1.SNAT {
	p.mu.Lock()
	defer p.mu.Unlock()
	if v := p.views[name]; v != nil && v.Router != nil && v.Router.SNAT != "" {
		return v.Router.SNAT
	}
	return v1alpha1.SNATAuto
}

// complete adds IPAM's view to a copy of v.
func (p *poolSet) complete(v *poolView) *poolView {
	st, ok := p.ipam.PoolStatus(v.Name)
	return v.with(st, ok)
}

// with is a copy of v with what is known of the pool; not ok: nothing is.
func (v *poolView) with(st ipam.PoolStatus, ok bool) *poolView {
	c := *v
	switch {
	case c.Problem != nil:
	case !ok:
		c.Problem = errors.New("it is not set up yet")
	case !st.Ready:
		c.Problem = fmt.Errorf("%s: %s", st.Reason, st.Message)
	}
	if ok && (st.Ready || st.Reason == ipam.ReasonDraining) {
		c.Families = familiesOf(st)
	}
	return &c
}

func familiesOf(st ipam.PoolStatus) []ipam.Family {
	out := []ipam.Family{}
	if st.IPv4.Total > 0 {
		out = append(out, ipam.IPv4)
	}
	if st.IPv6.Total > 0 {
		out = append(out, ipam.IPv6)
	}
	return out
}

// Run writes the pools' status until ctx ends.
func (p *poolSet) Run(ctx context.Context) {
	go func() { <-ctx.Done(); p.queue.ShutDown() }()
	for {
		name, quit := p.queue.Get()
		if quit {
			return
		}
		if err := errors.Join(p.writeStatus(ctx, name), p.place(ctx, name)); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Cannot bring an AddressPool to its status or its addresses; trying again", "addressPool", name)
			p.queue.AddRateLimited(name)
		} else {
			p.queue.Forget(name)
		}
		p.queue.Done(name)
	}
}

// placer brings what a pool says of interfaces and nodes to its addresses.
type placer interface {
	// HasSynced reports whether all addresses are known.
	HasSynced() bool
	Place(ctx context.Context, pool string, d virtualip.Detail) error
}

// place lets the addresses that Services have follow an edit of their pool. One
// that cannot be used changes nothing.
func (p *poolSet) place(ctx context.Context, name string) error {
	p.mu.Lock()
	v := p.views[name]
	p.mu.Unlock()
	if v == nil || v.Problem != nil || p.placer == nil || !p.placer.HasSynced() {
		return nil
	}
	says := fmt.Sprint(v.Interfaces, v.NodeSelector, v.NodePreferences)
	if p.placed[name] == says {
		return nil
	}
	if err := p.placer.Place(ctx, name, virtualip.Detail{Interfaces: v.Interfaces, NodeSelector: v.NodeSelector, NodePreferences: v.NodePreferences}); err != nil {
		return fmt.Errorf("place addresses of AddressPool %s: %w", name, err)
	}
	p.placed[name] = says
	return nil
}

func (p *poolSet) writeStatus(ctx context.Context, name string) error {
	obj, ok, err := p.informer.GetStore().GetByKey(name)
	if err != nil || !ok {
		delete(p.written, name)
		return err
	}
	pool, ok := obj.(*v1alpha1.AddressPool)
	if !ok {
		return nil
	}
	st, known := p.ipam.PoolStatus(name)
	p.mu.Lock()
	invalid, further := p.invalid[name], p.further[name]
	stock := stockAppliance(p.views[name])
	p.mu.Unlock()
	if done, err := p.finalize(ctx, pool, st); done || err != nil {
		return err
	}
	if !known && invalid == nil {
		return nil // IPAM will call again
	}
	next := poolStatus(pool, st, invalid)
	setFinding(&next.Conditions, v1alpha1.PoolStockAppliance, stock, pool.Generation)
	for _, n := range further {
		apimeta.SetStatusCondition(&next.Conditions, n)
	}
	observePool(name, st, apimeta.IsStatusConditionTrue(next.Conditions, v1alpha1.PoolReady))
	if invalid != nil {
		p.events.once(pool, pool.UID, corev1.EventTypeWarning, ReasonInvalidPool, invalid.Error())
	}
	if equality.Semantic.DeepEqual(pool.Status, next) {
		return nil
	}
	if wait := time.Until(p.written[name].Add(countsGap)); wait > 0 && onlyCounts(pool.Status, next) {
		p.queue.AddAfter(name, wait)
		return nil
	}
	p.written[name] = time.Now()
	body, err := json.Marshal(map[string]any{"status": next})
	if err != nil {
		return fmt.Errorf("encode status of AddressPool %s: %w", name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	_, err = p.client.Patch(ctx, name, types.MergePatchType, body, metav1.PatchOptions{}, "status")
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write status of AddressPool %s: %w", name, err)
	}
	return nil
}

// countsGap is the least time between two writes of a status that differ in how
// many addresses are used: in a burst of Services every one of them changes that,
// and the API server has more urgent things to write then.
const countsGap = time.Second

// onlyCounts reports whether two statuses differ in numbers of addresses at most.
func onlyCounts(a, b v1alpha1.AddressPoolStatus) bool {
	a.IPv4, a.IPv6 = b.IPv4, b.IPv6
	return equality.Semantic.DeepEqual(a, b)
}

func hasPoolFinalizer(pool *v1alpha1.AddressPool) bool {
	return slices.Contains(pool.Finalizers, v1alpha1.PoolFinalizer)
}

// finalize holds the deletion of a pool back until the last of its addresses
// and its reservation have been given back. It reports whether the pool is gone.
func (p *poolSet) finalize(ctx context.Context, pool *v1alpha1.AddressPool, st ipam.PoolStatus) (bool, error) {
	has := hasPoolFinalizer(pool)
	finalizers := slices.DeleteFunc(slices.Clone(pool.Finalizers), func(f string) bool { return f == v1alpha1.PoolFinalizer })
	switch {
	case pool.DeletionTimestamp.IsZero() && !has:
		finalizers = append(finalizers, v1alpha1.PoolFinalizer)
	case !pool.DeletionTimestamp.IsZero() && has && st.Reason == ipam.ReasonRemoved:
	default:
		return false, nil
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": pool.UID, "resourceVersion": pool.ResourceVersion, "finalizers": finalizers,
	}})
	if err != nil {
		return false, fmt.Errorf("encode finalizers of AddressPool %s: %w", pool.Name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	if _, err := p.client.Patch(ctx, pool.Name, types.MergePatchType, body, metav1.PatchOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return false, fmt.Errorf("write finalizers of AddressPool %s: %w", pool.Name, err)
	}
	return !pool.DeletionTimestamp.IsZero(), nil
}

// Event sends IPAM's event on the pool it is about.
func (p *poolSet) Event(e ipam.Event) {
	p.mu.Lock()
	invalid := p.invalid[e.Pool] != nil
	p.mu.Unlock()
	if invalid && (e.Reason == ipam.EventPoolReady || e.Reason == ipam.EventPoolNotReady) {
		return // InvalidPool has said what is wrong; that it gives nothing follows
	}
	poolEvents.WithLabelValues(e.Pool, e.Reason).Inc()
	obj, ok, err := p.informer.GetStore().GetByKey(e.Pool)
	pool, isPool := obj.(*v1alpha1.AddressPool)
	if err != nil || !ok || !isPool {
		// The pool is gone; what is left of it can still be told.
		gone := &corev1.ObjectReference{APIVersion: v1alpha1.GroupVersion.String(), Kind: "AddressPool", Name: e.Pool}
		p.events.recorder.Event(gone, string(e.Type), e.Reason, trim(e.Message))
		return
	}
	p.events.recorder.Event(pool, string(e.Type), e.Reason, trim(e.Message))
}

func poolStatus(pool *v1alpha1.AddressPool, st ipam.PoolStatus, invalid error) v1alpha1.AddressPoolStatus {
	next := *pool.Status.DeepCopy()
	next.ObservedGeneration = pool.Generation
	if st.Ready || st.Reason == ipam.ReasonDraining {
		next.NetworkID, next.ReservationID, next.NetworkName = networkID(st.NetworkID), networkID(st.ReservationID), st.NetworkName
		next.IPv4, next.IPv6 = counts(st.IPv4), counts(st.IPv6)
	}
	c := metav1.Condition{
		Type: v1alpha1.PoolReady, Status: metav1.ConditionTrue, Reason: st.Reason,
		Message: st.Message, ObservedGeneration: pool.Generation,
	}
	switch {
	case invalid != nil:
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, "Invalid", invalid.Error()
	case !st.Ready:
		c.Status = metav1.ConditionFalse
	}
	apimeta.SetStatusCondition(&next.Conditions, c)
	setFinding(&next.Conditions, v1alpha1.PoolOverlapping, st.Overlap, pool.Generation)
	setFinding(&next.Conditions, v1alpha1.PoolStranded, st.Stranded, pool.Generation)
	return next
}

// stockAppliance tells others than us, onelbctl explain among them, what the
// cloud-config says of a pool's router.
func stockAppliance(v *poolView) ipam.Finding {
	if v == nil || !v.Appliance {
		return ipam.Finding{}
	}
	return ipam.Finding{
		Reason:  "DriverAppliance",
		Message: fmt.Sprintf("router %s is a stock appliance: IPv4 only, TCP or TCP with UDP, no source ranges, session affinity or connection limits", v.Router.Name),
	}
}

// setFinding keeps a condition that is there only while there is something to say.
func setFinding(conditions *[]metav1.Condition, kind string, f ipam.Finding, generation int64) {
	if f.Reason == "" {
		apimeta.RemoveStatusCondition(conditions, kind)
		return
	}
	apimeta.SetStatusCondition(conditions, metav1.Condition{
		Type: kind, Status: metav1.ConditionTrue, Reason: f.Reason, Message: f.Message, ObservedGeneration: generation,
	})
}

func networkID(id ipam.NetworkID) *int32 {
	if id == ipam.NoNetwork {
		return nil
	}
	n := int32(id) //nolint:gosec // OpenNebula's IDs are 32 bits
	return &n
}

func counts(c ipam.Counts) *v1alpha1.AddressCounts {
	if c.Total == 0 && c.Used == 0 && c.SetAside == 0 {
		return nil
	}
	return &v1alpha1.AddressCounts{
		Total: int64(c.Total), Reserved: int64(c.Reserved), Used: int64(c.Used), Free: int64(c.Free), Held: int64(c.Held),
		Ahead: int64(c.Ahead), SetAside: int64(c.SetAside),
	}
}

func observePool(name string, st ipam.PoolStatus, ready bool) {
	v := 0.0
	if ready {
		v = 1
	}
	poolReady.WithLabelValues(name).Set(v)
	for family, c := range map[string]ipam.Counts{"IPv4": st.IPv4, "IPv6": st.IPv6} {
		for state, n := range map[string]int{"total": c.Total, "reserved": c.Reserved, "used": c.Used, "free": c.Free, "held": c.Held, "ahead": c.Ahead, "set-aside": c.SetAside} {
			poolAddresses.WithLabelValues(name, family, state).Set(float64(n))
		}
	}
}

// viewOf reads a pool's spec. The view can be used in spite of an error, which
// says that the pool cannot give addresses.
func viewOf(pool *v1alpha1.AddressPool) (*poolView, error) {
	v := &poolView{
		Name:       pool.Name,
		Exposure:   pool.Spec.Exposure,
		AutoAssign: pool.Spec.AutoAssign == nil || *pool.Spec.AutoAssign,
		Priority:   pool.Spec.Priority,

		ShareAcross: pool.Spec.ShareAcrossNamespaces,
	}
	if pool.Spec.L2 != nil {
		v.Interfaces, v.Guarded = pool.Spec.L2.Interfaces, guarded(pool)
	}
	if r := pool.Spec.Router; r != nil {
		v.Router = r.DeepCopy()
		if v.Router.Forward == "" {
			v.Router.Forward = v1alpha1.ForwardNodePort
		}
	}
	var err1, err2 error
	v.selectors, err1 = selectorsOf(pool.Spec)
	v.NodeSelector, v.NodePreferences, err2 = nodesOf(pool.Spec)
	return v, errors.Join(err1, err2)
}

func guarded(pool *v1alpha1.AddressPool) bool {
	return pool.Spec.L2 != nil && pool.Spec.L2.Guard == v1alpha1.GuardAlias
}

// unusable is a pool that gives nothing, and keeps serving what it has given.
func unusable(s ipam.PoolSpec) ipam.PoolSpec {
	s.Ranges, s.Draining = nil, true
	return s
}

// specOf translates a pool for IPAM.
func specOf(pool *v1alpha1.AddressPool) (ipam.PoolSpec, error) {
	s := ipam.PoolSpec{
		Name:         pool.Name,
		Generation:   pool.Generation,
		Leaving:      !pool.DeletionTimestamp.IsZero(),
		Draining:     pool.Spec.Draining,
		Direct:       pool.Spec.Reservation == v1alpha1.ReservationNone,
		AvoidEdges:   pool.Spec.AvoidEdgeAddresses,
		Shared:       guarded(pool),
		Network:      ipam.NetworkQuery{Name: pool.Spec.Network.Name, Owner: pool.Spec.Network.Owner},
		ChunkSize:    defaultChunk,
		ReserveAhead: defaultAhead,
		Quarantine:   defaultQuarantine,
	}
	if id := pool.Spec.Network.ID; id != nil {
		n := ipam.NetworkID(*id)
		s.Network.ID = &n
	}
	if pool.Spec.ChunkSize > 0 {
		s.ChunkSize = int(pool.Spec.ChunkSize)
	}
	if a := pool.Spec.ReserveAhead; a != nil {
		s.ReserveAhead = int(*a)
	}
	if q := pool.Spec.Quarantine; q != nil {
		s.Quarantine = q.Duration
	}
	for i, r := range pool.Spec.Ranges {
		start, err1 := netip.ParseAddr(r.Start)
		end, err2 := netip.ParseAddr(r.End)
		if err := errors.Join(err1, err2); err != nil {
			return unusable(s), fmt.Errorf("spec.ranges[%d]: %w", i, err)
		}
		if end.Less(start) {
			return unusable(s), fmt.Errorf("spec.ranges[%d]: start %s is behind end %s", i, start, end)
		}
		s.Ranges = append(s.Ranges, ipam.AddressRange{Start: start, End: end})
	}
	return s, nil
}
