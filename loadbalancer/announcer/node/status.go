package node

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/api/client"
	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/announcer"
)

// Reasons of the events on Services.
const (
	// ReasonNodeAssigned: a node took an address.
	ReasonNodeAssigned = "nodeAssigned"
	// ReasonAddressConflict: a host that is none of ours claims an address.
	ReasonAddressConflict = "AddressConflict"
)

const (
	patchTimeout = 5 * time.Second
	retryMin     = 5 * time.Millisecond
	retryMax     = 5 * time.Second
	patchers     = 4
)

// lookup returns the cached VirtualIP of a name.
type lookup func(name string) (*v1alpha1.VirtualIP, bool)

// status writes holders to VirtualIPs and events to Services. Its announcer.Reporter
// methods only note what is to be written; Run writes, with retries.
type status struct {
	node   string
	vips   client.VirtualIPs
	cached lookup
	events record.EventRecorder
	queue  workqueue.TypedRateLimitingInterface[string]

	mu      sync.Mutex // guards the rest
	want    map[string]*announcer.Holding
	claimed map[string]string // hardware address of the stranger that claims the address; "": nobody does any more
	patched map[string]string // resourceVersion of the cached object that was patched last
}

var _ announcer.Reporter = (*status)(nil)

func newStatus(node string, vips client.VirtualIPs, cached lookup, events record.EventRecorder) *status {
	return &status{
		node: node, vips: vips, cached: cached, events: events,
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[string](retryMin, retryMax)),
		want: map[string]*announcer.Holding{}, claimed: map[string]string{}, patched: map[string]string{},
	}
}

// Holder notes the holder of an address, nil for none.
func (s *status) Holder(a netip.Addr, h *announcer.Holding) {
	name := v1alpha1.VirtualIPName(a)
	s.mu.Lock()
	s.want[name] = h
	s.mu.Unlock()
	s.queue.Add(name)
}

// Moved makes an event on the first Service.
func (s *status) Moved(a announcer.Address, h announcer.Holding) {
	if service := firstService(a); service != nil {
		s.events.Eventf(service, corev1.EventTypeNormal, ReasonNodeAssigned,
			"Address %s is announced by node %q on interface %q", a.Address, h.Node, h.Interface)
	}
}

// Conflict makes an event on the first Service, and notes the condition.
func (s *status) Conflict(a announcer.Address, mac net.HardwareAddr) {
	if service := firstService(a); service != nil {
		s.events.Eventf(service, corev1.EventTypeWarning, ReasonAddressConflict,
			"The host with hardware address %s also claims address %s (seen by node %q). Find it and take the address from it, or the agents cannot reach each other",
			mac, a.Address, s.node)
	}
	s.claim(a.Address, mac.String())
}

// Peace notes that a conflict is over.
func (s *status) Peace(a netip.Addr) { s.claim(a, "") }

func (s *status) claim(a netip.Addr, mac string) {
	name := v1alpha1.VirtualIPName(a)
	s.mu.Lock()
	s.claimed[name] = mac
	s.mu.Unlock()
	s.queue.Add(name)
}

func firstService(a announcer.Address) *corev1.ObjectReference {
	if len(a.Services) == 0 {
		return nil
	}
	s := a.Services[0]
	return &corev1.ObjectReference{APIVersion: "v1", Kind: "Service", Namespace: s.Namespace, Name: s.Name, UID: types.UID(s.UID)}
}

// Run writes until ctx is done.
func (s *status) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	for range patchers {
		workers.Go(func() {
			for s.next(ctx) {
			}
		})
	}
	<-ctx.Done()
	s.queue.ShutDown()
	workers.Wait()
	return nil
}

func (s *status) next(ctx context.Context) bool {
	name, stop := s.queue.Get()
	if stop {
		return false
	}
	defer s.queue.Done(name)
	err := s.write(ctx, name)
	switch {
	case err == nil:
		s.queue.Forget(name)
	case ctx.Err() != nil:
	default:
		if !apierrors.IsConflict(err) { // the cache will have caught up at the next try
			klog.FromContext(ctx).Error(err, "Could not write the holder; trying again")
		}
		s.queue.AddRateLimited(name)
	}
	return true
}

// write patches the holder of one VirtualIP if it differs. The patch names the
// version it is based on: between two nodes, the one that saw the newer object wins.
func (s *status) write(ctx context.Context, name string) error {
	v, ok := s.cached(name)
	s.mu.Lock()
	want, wanted := s.want[name]
	mac, claimed := s.claimed[name]
	done := ok && s.patched[name] == v.ResourceVersion
	if !ok {
		delete(s.want, name)
		delete(s.patched, name)
		delete(s.claimed, name)
	}
	s.mu.Unlock()
	if done && claimed {
		s.queue.AddAfter(name, retryMax/10) // nobody tells that again
	}
	if !ok || done {
		return nil
	}
	change := map[string]any{}
	if wanted && s.differs(v.Status.Holder, want) {
		change["holder"] = holderValue(want)
	}
	if conditions := slices.Clone(v.Status.Conditions); claimed && apimeta.SetStatusCondition(&conditions, s.condition(mac, v.Generation)) {
		change["conditions"] = conditions
	}
	if len(change) == 0 {
		s.settle(name, mac)
		return nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": v.ResourceVersion}, "status": change})
	if err != nil {
		return fmt.Errorf("holder of virtual IP %s: %w", name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, patchTimeout)
	defer cancel()
	if _, err := s.vips.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
		return fmt.Errorf("holder of virtual IP %s: %w", name, err)
	}
	s.settle(name, mac)
	s.mu.Lock()
	s.patched[name] = v.ResourceVersion
	s.mu.Unlock()
	return nil
}

// settle forgets a claim that the API server knows of.
func (s *status) settle(name, mac string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.claimed[name] == mac {
		delete(s.claimed, name)
	}
}

// differs reports whether the holder must be written: never over a newer
// takeover, and nil never over another node.
func (s *status) differs(now *v1alpha1.Holder, want *announcer.Holding) bool {
	switch {
	case want == nil:
		return now != nil && now.Name == s.node
	case now == nil:
		return true
	}
	return now.Epoch <= want.Epoch && (now.Epoch != want.Epoch || now.Name != want.Node || now.Interface != want.Interface)
}

func holderValue(h *announcer.Holding) *v1alpha1.Holder {
	if h == nil {
		return nil
	}
	return &v1alpha1.Holder{Name: h.Node, Interface: h.Interface, Since: metav1.NewMicroTime(h.Since), Epoch: h.Epoch}
}

// condition says who claims the address besides its holder.
func (s *status) condition(mac string, generation int64) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.VirtualIPAddressConflict, ObservedGeneration: generation}
	if c.Status, c.Reason, c.Message = metav1.ConditionFalse, "NoConflict", "Nobody else claims the address"; mac != "" {
		c.Status, c.Reason = metav1.ConditionTrue, ReasonAddressConflict
		c.Message = fmt.Sprintf("The host with hardware address %s claims the address, as seen by node %s", mac, s.node)
	}
	return c
}
