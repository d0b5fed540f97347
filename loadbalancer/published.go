package loadbalancer

import (
	"context"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	servicehelper "k8s.io/cloud-provider/service/helpers"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/loadbalancer/annotation"
	"github.com/onelb/onelb/loadbalancer/virtualip"
)

const (
	// publishedEvery is how often Services are looked at; two looks are needed.
	publishedEvery = 2 * time.Second
	// publishedAgain is for how long a Service is left alone that cannot be put in order.
	publishedAgain = time.Minute
	// lackingAgain is for how many times RetryAfter a Service is left alone that
	// was looked at for anything else than its status.
	lackingAgain = 3
)

// suspicion is a Service whose status is not what it has.
type suspicion struct {
	version string    // of the Service when it was seen
	next    time.Time // no attempt before
}

// publishedLoop makes Services show what they have. The service controller
// writes a status after it called Ensure and never looks at it again. A former
// leader that finishes late writes one too, of addresses that it allocated at
// the same moment, and the last one stays: an address that the Service has no
// more, and that somebody else gets after its quarantine. So this has to be
// faster than the default quarantine.
//
// Nor does anybody look again at a Service that prefers two families and got one,
// when a pool has addresses of the other, nor when its VirtualIP was edited, or
// the pool's interfaces or way of forwarding: that is done here too.
func (c *Controller) publishedLoop(ctx context.Context) {
	seen := map[types.UID]suspicion{}
	tick := time.NewTicker(min(publishedEvery, c.o.RetryAfter))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			seen = c.checkPublished(ctx, seen)
		case <-ctx.Done():
			return
		}
	}
}

// checkPublished looks at all Services. One that stayed as it is since the last
// look and shows something else than it has is not just being worked on.
func (c *Controller) checkPublished(ctx context.Context, before map[types.UID]suspicion) map[types.UID]suspicion {
	now := time.Now()
	seen := map[types.UID]suspicion{}
	pools := c.pools.Views()
	for _, obj := range c.o.Services.GetStore().List() {
		svc, ok := obj.(*corev1.Service)
		if !ok || ctx.Err() != nil || !c.wantsAddress(svc) || !hasFinalizer(svc) {
			continue
		}
		right := c.showsWhatItHas(svc)
		if right && c.hasWhatItAsks(svc, pools) && !c.mayHaveMore(svc, pools) {
			continue
		}
		s := before[svc.UID]
		again := s.version == svc.ResourceVersion
		s.version = svc.ResourceVersion
		if again && !now.Before(s.next) {
			if ok := c.publish(ctx, svc); right {
				s.next = now.Add(lackingAgain * c.o.RetryAfter)
			} else if !ok {
				s.next = now.Add(publishedAgain)
			}
		}
		seen[svc.UID] = s
	}
	return seen
}

// hasWhatItAsks compares a Service's records with what it would get from the same
// pools now.
func (c *Controller) hasWhatItAsks(svc *corev1.Service, pools []*poolView) bool {
	for _, r := range c.o.Store.OwnedBy(svc.UID) {
		i := slices.IndexFunc(pools, func(p *poolView) bool { return p.Name == r.Pool })
		if i < 0 {
			continue
		}
		d := virtualip.DetailOf(r)
		var w want
		if d.Role != v1alpha1.RoleInner {
			w.Share = svc.Annotations[annotation.Share.Name]
		}
		asked := detailFor(svc, w, pools[i], d.Role == v1alpha1.RoleInner)
		asked.Ports = nil // who has which is settled when Services meet
		if !equality.Semantic.DeepEqual(d, asked) {
			return false
		}
	}
	return true
}

// mayHaveMore: the Service prefers two families, has one, and there are pools that
// may give it the other.
func (c *Controller) mayHaveMore(svc *corev1.Service, pools []*poolView) bool {
	if !mayLackFamily(svc) || len(svc.Spec.IPFamilies) < 2 {
		return false
	}
	have := c.o.Store.OwnedBy(svc.UID)
	families := currentPools(have)
	if len(families) != 1 {
		return false
	}
	wants, err := planWants(svc, c.namespaceLabels(svc.Namespace), pools, families)
	return err == nil && len(wants) > len(families)
}

// showsWhatItHas compares a Service's status with its records.
func (c *Controller) showsWhatItHas(svc *corev1.Service) bool {
	records := c.o.Store.OwnedBy(svc.UID)
	shown := svc.Status.LoadBalancer.Ingress
	if len(records) != len(shown) {
		return false
	}
	for _, i := range shown {
		a, err := netip.ParseAddr(i.IP)
		if err != nil || !slices.ContainsFunc(records, func(r ipam.Record) bool { return r.Address == a }) {
			return false
		}
	}
	return true
}

// publish brings a Service and its status in order, as the service controller
// does when the Service changes. It returns false if the Service cannot have
// what it wants.
func (c *Controller) publish(ctx context.Context, svc *corev1.Service) bool {
	defer c.locks.lock(svc.UID)()
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	log := klog.FromContext(ctx)
	fresh, err := c.o.Kube.CoreV1().Services(svc.Namespace).Get(ctx, svc.Name, metav1.GetOptions{})
	if err != nil || fresh.UID != svc.UID || fresh.ResourceVersion != svc.ResourceVersion {
		return true // it changes; the next look tells more
	}
	st, err := c.ensure(ctx, fresh)
	if err != nil {
		return false // the service controller tries again, and reports it
	}
	if servicehelper.LoadBalancerStatusEqual(&fresh.Status.LoadBalancer, st) {
		return true
	}
	updated := fresh.DeepCopy()
	updated.Status.LoadBalancer = *st
	if _, err := servicehelper.PatchService(c.o.Kube.CoreV1(), fresh, updated); err != nil {
		log.Error(err, "Cannot correct the status of a Service that shows other addresses than it has; trying again", "service", klog.KObj(svc))
		return true
	}
	log.Info("Corrected the status of a Service that showed other addresses than it has", "service", klog.KObj(svc))
	return true
}
