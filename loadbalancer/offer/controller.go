package offer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/api/client"
	"github.com/onelb/onelb/api/v1alpha1"
)

// Reasons of events. Reference: docs/reference/events.md.
const (
	// ReasonPoolOffered: OpenNebula offers a pool, and its AddressPool was made.
	ReasonPoolOffered = "PoolOffered"
	// ReasonOfferChanged: the AddressPool was made what OpenNebula says.
	ReasonOfferChanged = "OfferChanged"
	// ReasonOfferWithdrawn: OpenNebula no longer offers the pool; it goes when
	// no Service has an address of it.
	ReasonOfferWithdrawn = "OfferWithdrawn"
	// ReasonOfferRejected: what OpenNebula offers cannot be a pool as it is;
	// the message says why.
	ReasonOfferRejected = "OfferRejected"
)

// Source is what is needed of OpenNebula.
type Source interface {
	// Networks lists the networks that our user may use, without reservations,
	// sorted by ID.
	Networks(ctx context.Context) ([]Network, error)
	// Report writes an attribute of a network. Most users may not: that is no error.
	Report(ctx context.Context, network int32, attribute, text string) error
}

// Options of a Controller.
type Options struct {
	Source  Source
	Cluster string // its name
	Pools   client.AddressPools
	// Informer of all AddressPools. The caller runs it.
	Informer cache.SharedIndexInformer
	Recorder record.EventRecorder
	// Interval between two lists. Default 1 min.
	Interval time.Duration
}

// Controller keeps the offered pools.
type Controller struct {
	o      Options
	wake   chan struct{}
	offers map[string][]Network // as last listed, by the pool's name
	seen   map[int32]bool       // networks of that list
	said   map[string]string    // problems by pool that were reported
	told   map[int32]string     // what was reported to OpenNebula
}

// New makes a Controller. It starts nothing.
func New(o Options) (*Controller, error) {
	if o.Source == nil || o.Pools == nil || o.Informer == nil || o.Recorder == nil || o.Cluster == "" {
		return nil, errors.New("offer: Source, Cluster, Pools, Informer and Recorder are required")
	}
	if o.Interval == 0 {
		o.Interval = time.Minute
	}
	return &Controller{o: o, wake: make(chan struct{}, 1), said: map[string]string{}, told: map[int32]string{}}, nil
}

// editGap is the least time between two looks for what people edit.
const editGap = 2 * time.Second

// Run keeps the pools until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.run(ctx, editGap) }

func (c *Controller) run(ctx context.Context, gap time.Duration) error {
	poke := func(any) {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
	reg, err := c.o.Informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: poke, UpdateFunc: func(_, o any) { poke(o) }, DeleteFunc: poke,
	})
	if err != nil {
		return fmt.Errorf("watch AddressPools: %w", err)
	}
	defer func() { _ = c.o.Informer.RemoveEventHandler(reg) }()
	if !cache.WaitForCacheSync(ctx.Done(), c.o.Informer.HasSynced) {
		return nil
	}
	list := time.NewTimer(0)
	defer list.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-list.C:
			c.list(ctx)
			list.Reset(c.o.Interval)
		case <-c.wake:
		}
		c.sync(ctx)
		select { // an edit war is not fought at full speed
		case <-ctx.Done():
			return nil
		case <-time.After(gap):
		}
	}
}

// list takes over what OpenNebula offers. If it does not answer, what it said
// last stays.
func (c *Controller) list(ctx context.Context) {
	networks, err := c.o.Source.Networks(ctx)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Cannot look for offered pools; trying again")
		return
	}
	c.offers, c.seen = map[string][]Network{}, map[int32]bool{}
	for _, n := range networks {
		c.seen[n.ID] = true
		if offered(n, c.o.Cluster) {
			name := strings.TrimSpace(n.Attributes[AttributePool])
			c.offers[name] = append(c.offers[name], n)
		} else if n.Attributes[AttributeError] != "" && n.Attributes[AttributePool] == "" {
			c.tell(ctx, n, nil)
		}
	}
}

// sync makes the AddressPools what was listed last.
func (c *Controller) sync(ctx context.Context) {
	if c.offers == nil {
		return // not known yet
	}
	pools := map[string]*v1alpha1.AddressPool{}
	for _, obj := range c.o.Informer.GetStore().List() {
		if p, ok := obj.(*v1alpha1.AddressPool); ok {
			pools[p.Name] = p
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.offers)) {
		c.syncName(ctx, name, c.offers[name], pools[name])
	}
	for _, name := range slices.Sorted(maps.Keys(pools)) {
		if len(c.offers[name]) == 0 && isOffered(pools[name]) {
			c.withdrawn(ctx, pools[name])
		}
	}
	for name := range c.said {
		if len(c.offers[name]) == 0 && pools[name] == nil {
			delete(c.said, name)
		}
	}
}

func isOffered(p *v1alpha1.AddressPool) bool {
	return p.Labels[v1alpha1.OfferedByLabel] == v1alpha1.OfferedByOpenNebula
}

// networkOf is the network that offers a pool of ours; -1: nobody can tell.
func networkOf(p *v1alpha1.AddressPool) int32 {
	id, err := strconv.ParseInt(p.Annotations[v1alpha1.OfferNetworkAnnotation], 10, 32)
	if err != nil {
		if p.Spec.Network.ID != nil { // the annotation was edited; the network cannot be
			return *p.Spec.Network.ID
		}
		return -1
	}
	return int32(id)
}

// syncName settles which of the networks that offer a name has it, and applies
// that offer. The others are told.
func (c *Controller) syncName(ctx context.Context, name string, networks []Network, pool *v1alpha1.AddressPool) {
	var chosen *Network
	var why error
	switch {
	case pool != nil && !isOffered(pool):
		why = fmt.Errorf("AddressPool %s was made by a person and stays: offer the network under another name", name)
	case pool != nil:
		i := slices.IndexFunc(networks, func(n Network) bool { return n.ID == networkOf(pool) })
		if i >= 0 {
			chosen = &networks[i]
		} else {
			c.withdrawn(ctx, pool)
		}
		why = fmt.Errorf("virtual network %d has the name %s: choose another one", networkOf(pool), name)
	case len(networks) > 1:
		names := make([]string, len(networks))
		for i, n := range networks {
			names[i] = n.String()
		}
		why = fmt.Errorf("%s offer pools of the same name, so none is made", strings.Join(names, " and "))
	default:
		chosen = &networks[0]
	}
	problem := error(nil)
	for i := range networks {
		n := networks[i]
		if chosen != nil && n.ID == chosen.ID {
			err := c.apply(ctx, n, pool)
			c.tell(ctx, n, err)
			problem = errors.Join(problem, wrap(n, err))
			continue
		}
		c.tell(ctx, n, why)
		problem = errors.Join(problem, wrap(n, why))
	}
	c.report(ctx, name, pool, problem)
}

func wrap(n Network, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", n, err)
}

// tell writes into OpenNebula what is wrong with the offer of a network, or that
// nothing is any more.
func (c *Controller) tell(ctx context.Context, n Network, problem error) {
	text := ""
	if problem != nil {
		text = trim(c.o.Cluster + ": " + strings.ReplaceAll(problem.Error(), "\n", "; "))
	}
	last, told := c.told[n.ID]
	if told && last == text || !told && n.Attributes[AttributeError] == text {
		return
	}
	if !told && text == "" && !strings.HasPrefix(n.Attributes[AttributeError], c.o.Cluster+": ") {
		return // another cluster's word
	}
	if err := c.o.Source.Report(ctx, n.ID, AttributeError, text); err != nil {
		klog.FromContext(ctx).Error(err, "Cannot report to OpenNebula what is wrong with an offered pool; trying again", "network", n.ID)
		return
	}
	c.told[n.ID] = text
}

// report says to people who look at Kubernetes what is wrong, once.
func (c *Controller) report(ctx context.Context, name string, pool *v1alpha1.AddressPool, problem error) {
	text := ""
	if problem != nil {
		text = trim(strings.ReplaceAll(problem.Error(), "\n", "; "))
	}
	if text != "" && c.said[name] != text {
		on := pool
		if on == nil {
			on = &v1alpha1.AddressPool{}
			on.Name = name
		}
		klog.FromContext(ctx).Info("An offered pool is rejected", "addressPool", name, "problem", text)
		c.o.Recorder.Event(on, corev1.EventTypeWarning, ReasonOfferRejected, text)
	}
	c.said[name] = text
	if pool != nil && isOffered(pool) && pool.Annotations[v1alpha1.OfferProblemAnnotation] != text {
		if err := c.annotate(ctx, pool, text); err != nil {
			klog.FromContext(ctx).Error(err, "Cannot write what is wrong with an offered pool; trying again", "addressPool", name)
		}
	}
}

// trim bounds a text to what an event takes.
func trim(s string) string {
	const most = 1000
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
