package loadbalancer

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/loadbalancer/annotation"
)

// fresh is a Service of our class, for which nobody but the Controller runs here.
func fresh(name string) *corev1.Service {
	s := namedService(name)
	s.Spec.LoadBalancerClass = ptr.To(Class)
	return s
}

func (h *harness) owned(uid string) []string {
	var out []string
	for _, r := range h.store.OwnedBy(types.UID(uid)) {
		out = append(out, r.Address.String())
	}
	return out
}

func (h *harness) delete(name string) {
	h.t.Helper()
	if err := h.kube.CoreV1().Services("ns").Delete(h.t.Context(), name, metav1.DeleteOptions{}); err != nil {
		h.t.Fatal(err)
	}
}

// The address is there before anybody asks for it, and is the one that is given then.
func TestAddressIsAllocatedAheadOfTheFinalizer(t *testing.T) {
	h := newHarness(t, nil, l2Pool("private"))
	h.create(fresh("web"))
	h.eventually("an address is allocated", func() bool { return len(h.owned("uid-web")) == 1 })
	st, err := h.controller.EnsureLoadBalancer(t.Context(), "lab", fresh("web"), nil)
	if err != nil || st.Ingress[0].IP != "10.20.0.100" || h.ipam.count() != 1 {
		t.Errorf("%v, %v after %d allocations", st, err, h.ipam.count())
	}
}

// Who may not have one, or has been worked on, is left alone.
func TestNothingIsAllocatedAheadForOthers(t *testing.T) {
	h := newHarness(t, nil, l2Pool("private"))
	other, ending, begun, internal := fresh("other"), fresh("ending"), fresh("begun"), fresh("internal")
	other.Spec.LoadBalancerClass = ptr.To("example.com/lb")
	ending.DeletionTimestamp = ptr.To(metav1.Now())
	begun.Finalizers = []string{cleanup}
	internal.Spec.Type, internal.Spec.LoadBalancerClass = corev1.ServiceTypeClusterIP, nil
	for _, s := range []*corev1.Service{other, ending, begun, internal, namedService("nobody-calls")} {
		h.create(s)
	}
	h.create(fresh("last"))
	h.eventually("the last one has an address", func() bool { return len(h.owned("uid-last")) == 1 })
	h.quiet()
	if n := h.ipam.count(); n != 1 {
		t.Errorf("%d allocations, want one", n)
	}
	// The library asks for a Service without a class: from now on it is known to.
	if _, err := h.controller.EnsureLoadBalancer(t.Context(), "lab", namedService("nobody-calls"), nil); err != nil {
		t.Fatal(err)
	}
	h.create(namedService("plain"))
	h.eventually("one without a class is begun too", func() bool { return len(h.owned("uid-plain")) == 1 })
}

// Nothing made sure that these Services do not go with their addresses. The sweep
// is kept out of it.
func TestAddressOfAServiceThatGoesBeforeItsFinalizer(t *testing.T) {
	h := newHarnessWith(t, func(o *Options) { o.SweepInterval = time.Hour }, nil, l2Pool("private"))
	h.create(fresh("gone"))
	h.create(fresh("changed"))
	h.create(fresh("again"))
	for _, uid := range []string{"uid-gone", "uid-changed", "uid-again"} {
		h.eventually("an address for "+uid, func() bool { return len(h.owned(uid)) == 1 })
	}
	h.delete("gone")
	h.update("changed", func(s *corev1.Service) { s.Spec.Type, s.Spec.LoadBalancerClass = corev1.ServiceTypeClusterIP, nil })
	h.delete("again")
	next := fresh("again")
	next.UID = "uid-next"
	h.create(next)
	for _, uid := range []string{"uid-gone", "uid-changed", "uid-again"} {
		h.eventually("it is given back by "+uid, func() bool { return len(h.owned(uid)) == 0 })
	}
	h.eventually("the next one of the name has one of its own", func() bool { return len(h.owned("uid-next")) == 1 })
}

// An informer that lists anew sees one Service become another one of its name.
func TestServiceIsReplacedUnseen(t *testing.T) {
	h := newHarnessWith(t, func(o *Options) { o.SweepInterval = time.Hour }, nil, l2Pool("private"))
	h.create(fresh("again"))
	h.eventually("an address", func() bool { return len(h.owned("uid-again")) == 1 })
	before := h.service("again")
	next := before.DeepCopy()
	next.UID = "uid-next"
	h.kube.PrependReactor("get", "services", func(clienttesting.Action) (bool, runtime.Object, error) { return true, next, nil })
	if err := h.controller.o.Services.GetStore().Update(next); err != nil {
		t.Fatal(err)
	}
	h.controller.watchEarly().OnUpdate(before, next)
	h.eventually("it is given back", func() bool { return len(h.owned("uid-again")) == 0 })
	h.eventually("the next one has an address of its own", func() bool { return len(h.owned("uid-next")) == 1 })
}

// A Service that goes while nobody runs leaves a record without owner.
func TestSweepTakesWhatWasAllocatedAhead(t *testing.T) {
	h := newHarness(t, nil, l2Pool("private"))
	gone := fresh("gone")
	if _, err := h.controller.allocate(t.Context(), gone, want{}, &poolView{Name: "private"}, false); err != nil {
		t.Fatal(err)
	}
	h.eventually("the address has no owner", func() bool {
		rec, ok := h.store.Get(netip.MustParseAddr("10.20.0.100"))
		return ok && len(rec.Owners) == 0
	})
}

// slowAllocator shows when an allocation is under way, and lets it end.
type slowAllocator struct {
	Allocator
	asked, proceed chan struct{}
}

func (a slowAllocator) Allocate(ctx context.Context, r ipam.Request) (ipam.Record, error) {
	close(a.asked)
	<-a.proceed
	return a.Allocator.Allocate(ctx, r)
}

// It goes while its address is being allocated.
func TestServiceGoesWhileItsAddressIsAllocated(t *testing.T) {
	slow := slowAllocator{asked: make(chan struct{}), proceed: make(chan struct{})}
	h := newHarnessWith(t, func(o *Options) {
		o.SweepInterval = time.Hour
		slow.Allocator, o.Allocator = o.Allocator, &slow
	}, nil, l2Pool("private"))
	h.create(fresh("web"))
	<-slow.asked
	h.delete("web")
	h.eventually("that was seen", func() bool { return len(h.controller.o.Services.GetStore().List()) == 0 })
	close(slow.proceed)
	h.eventually("the address was made and given back", func() bool {
		rec, ok := h.store.Get(netip.MustParseAddr("10.20.0.100"))
		return ok && len(rec.Owners) == 0
	})
}

// What cannot be had at once is neither reported nor waited for here.
func TestWhatFailsAheadIsLeftToEnsure(t *testing.T) {
	h := newHarness(t, nil, l2Pool("private"))
	bad := fresh("bad")
	bad.Annotations = map[string]string{annotation.Pool.Name: "no-such-pool"}
	h.create(bad)
	h.create(fresh("good"))
	h.eventually("the other one has an address", func() bool { return len(h.owned("uid-good")) == 1 })
	h.quiet()
	for len(h.events.Events) > 0 {
		if e := <-h.events.Events; e != "Normal IPAllocated Address 10.20.0.100 from AddressPool private" {
			t.Errorf("event %q", e)
		}
	}
	if _, err := h.controller.EnsureLoadBalancer(t.Context(), "lab", bad, nil); err == nil || errors.Is(err, errRefused) {
		t.Errorf("Ensure: %v", err)
	}
}
