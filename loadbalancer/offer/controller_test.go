package offer

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"

	"github.com/onelb/onelb/api/client"
	"github.com/onelb/onelb/api/client/fake"
	"github.com/onelb/onelb/api/v1alpha1"
)

// front is OpenNebula.
type front struct {
	mu       sync.Mutex
	networks []Network
	err      error
	lists    int
	reports  []string
}

func (f *front) Networks(context.Context) ([]Network, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lists++
	out := slices.Clone(f.networks)
	for i := range out {
		out[i].Attributes = maps.Clone(out[i].Attributes)
	}
	return out, f.err
}

func (f *front) Report(_ context.Context, network int32, attribute, text string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reports = append(f.reports, text)
	for i := range f.networks {
		if f.networks[i].ID == network {
			f.networks[i].Attributes[attribute] = text
		}
	}
	return nil
}

func (f *front) set(networks ...Network) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.networks = networks
}

func (f *front) attribute(i int, name string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.networks[i].Attributes[name]
}

type harness struct {
	*front
	t      *testing.T
	kube   *fake.Clientset
	events *record.FakeRecorder
}

func start(t *testing.T, pools ...runtime.Object) *harness {
	t.Helper()
	return startWith(t, fake.New(pools...))
}

func startWith(t *testing.T, kube *fake.Clientset) *harness {
	t.Helper()
	h := &harness{front: &front{}, t: t, kube: kube, events: record.NewFakeRecorder(1000)}
	informer := client.NewAddressPoolInformer(h.kube, 0)
	c, err := New(Options{
		Source: h.front, Cluster: "lab", Pools: h.kube.AddressPools(), Informer: informer, Recorder: h.events, Interval: 20 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { informer.RunWithContext(ctx) })
	wg.Go(func() { _ = c.run(ctx, time.Millisecond) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return h
}

func (h *harness) pool(name string) *v1alpha1.AddressPool {
	h.t.Helper()
	p, err := h.kube.AddressPools().Get(h.t.Context(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return p
}

func (h *harness) eventually(what string, ok func() bool) {
	h.t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	h.t.Fatalf("never: %s", what)
}

// again waits until OpenNebula was asked and all was looked at since.
func (h *harness) again() {
	h.t.Helper()
	h.mu.Lock()
	before := h.lists
	h.mu.Unlock()
	h.eventually("another look", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.lists > before+2
	})
}

func (h *harness) wantEvent(part string) {
	h.t.Helper()
	for {
		select {
		case e := <-h.events.Events:
			if strings.Contains(e, part) {
				return
			}
		case <-time.After(30 * time.Second):
			h.t.Fatalf("no event with %q", part)
		}
	}
}

func TestOfferIsFollowed(t *testing.T) {
	h := start(t)
	h.set(network(5, "ONELB_POOL=public", "ONELB_PRIORITY=7"), network(6))
	h.eventually("the pool", func() bool { return h.pool("public") != nil })
	p := h.pool("public")
	if p.Labels[v1alpha1.OfferedByLabel] != v1alpha1.OfferedByOpenNebula || p.Annotations[v1alpha1.OfferNetworkAnnotation] != "5" || p.Spec.Priority != 7 {
		t.Errorf("%+v", p)
	}
	h.wantEvent(ReasonPoolOffered)
	h.set(network(5, "ONELB_POOL=public", "ONELB_PRIORITY=8", "ONELB_DRAINING=YES"), network(6))
	h.eventually("the edit", func() bool { p := h.pool("public"); return p.Spec.Priority == 8 && p.Spec.Draining })
	h.wantEvent(ReasonOfferChanged)
	// kubectl edit is overwritten.
	if _, err := h.kube.AddressPools().Patch(t.Context(), "public", types.MergePatchType, []byte(`{"spec":{"priority":1,"shareAcrossNamespaces":true}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	h.eventually("the edit to be undone", func() bool { p := h.pool("public"); return p.Spec.Priority == 8 && !p.Spec.ShareAcrossNamespaces })
	// A bad edit changes nothing, and is reported in both worlds, once.
	h.set(network(5, "ONELB_POOL=public", "ONELB_PRIORITY=9", "ONELB_CHUNK=4"), network(6))
	h.eventually("the report", func() bool {
		return strings.Contains(h.pool("public").Annotations[v1alpha1.OfferProblemAnnotation], "ONELB_CHUNK") && strings.Contains(h.attribute(0, AttributeError), "lab: unknown setting ONELB_CHUNK")
	})
	h.again()
	if p := h.pool("public"); p.Spec.Priority != 8 {
		t.Errorf("half of a bad offer was applied: %+v", p.Spec)
	}
	h.wantEvent(ReasonOfferRejected)
	h.mu.Lock()
	reports := len(h.reports)
	h.mu.Unlock()
	if reports != 1 || len(h.events.Events) > 0 {
		t.Errorf("%d reports, %d further events", reports, len(h.events.Events))
	}
	h.set(network(5, "ONELB_POOL=public", "ONELB_PRIORITY=9", "ONELB_ERROR="+h.attribute(0, AttributeError)), network(6))
	h.eventually("the problem's end", func() bool {
		p := h.pool("public")
		return p.Spec.Priority == 9 && p.Annotations[v1alpha1.OfferProblemAnnotation] == "" && h.attribute(0, AttributeError) == ""
	})
	// Not seen is not withdrawn; OpenNebula's silence is nothing either.
	h.set(network(6))
	h.eventually("a word about it", func() bool {
		return strings.Contains(h.pool("public").Annotations[v1alpha1.OfferProblemAnnotation], "cannot be seen")
	})
	h.mu.Lock()
	h.err = errors.New("away")
	h.mu.Unlock()
	h.again()
	if h.pool("public") == nil {
		t.Fatal("deleted without a word of OpenNebula")
	}
	h.mu.Lock()
	h.err = nil
	h.mu.Unlock()
	h.set(network(5), network(6))
	h.eventually("the pool to go", func() bool { return h.pool("public") == nil })
	h.wantEvent(ReasonOfferWithdrawn)
}

func person(name string) *v1alpha1.AddressPool {
	p := &v1alpha1.AddressPool{ObjectMeta: metav1.ObjectMeta{Name: name, UID: "person"}}
	p.Spec.Network.Name, p.Spec.Exposure = "mine", v1alpha1.ExposureL2
	return p
}

func TestPersonsPoolStays(t *testing.T) {
	h := start(t, person("public"))
	h.set(network(5, "ONELB_POOL=public"))
	h.wantEvent("made by a person")
	h.again()
	if p := h.pool("public"); p.Spec.Network.Name != "mine" || len(p.Labels)+len(p.Annotations) > 0 {
		t.Errorf("%+v", p)
	}
	h.set(network(5))
	h.again()
	if h.pool("public") == nil {
		t.Error("deleted")
	}
}

func TestTwoOffersOfAName(t *testing.T) {
	h := start(t)
	h.set(network(5, "ONELB_POOL=public"), network(6, "ONELB_POOL=public"), network(7, "ONELB_POOL=fine"), network(8, "ONELB_POOL=bad", "ONELB_X=y"), network(9, "ONELB_POOL=else", "ONELB_CLUSTERS=prod"))
	h.eventually("the one that is right", func() bool { return h.pool("fine") != nil })
	h.wantEvent("same name")
	h.again()
	if h.pool("public") != nil || h.pool("bad") != nil || h.pool("else") != nil || h.attribute(0, AttributeError) == "" || h.attribute(1, AttributeError) == "" || h.attribute(4, AttributeError) != "" {
		t.Error("made nevertheless, or not reported")
	}
	h.set(network(6, "ONELB_POOL=public"))
	h.eventually("the one that is left", func() bool { return h.pool("public") != nil })
	h.set(network(5, "ONELB_POOL=public", "ONELB_PRIORITY=3"), network(6, "ONELB_POOL=public"))
	h.again()
	if p := h.pool("public"); *p.Spec.Network.ID != 6 || p.Spec.Priority != 0 {
		t.Errorf("%+v: the first one keeps it", p.Spec)
	}
	if !strings.Contains(h.attribute(0, AttributeError), "virtual network 6 has the name") || h.attribute(1, AttributeError) != "" {
		t.Errorf("%q, %q", h.attribute(0, AttributeError), h.attribute(1, AttributeError))
	}
	// The name moves to the other network: first the pool goes.
	h.set(network(5, "ONELB_POOL=public"), network(6))
	h.eventually("the other one's", func() bool { p := h.pool("public"); return p != nil && *p.Spec.Network.ID == 5 })
}

// A leader that may not make pools says so, and what to apply.
func TestMissingRight(t *testing.T) {
	kube := fake.New()
	kube.PrependReactor("create", "addresspools", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "addresspools"}, "public", errors.New("no"))
	})
	h := startWith(t, kube)
	h.set(network(5, "ONELB_POOL=public"))
	h.wantEvent("components/offered-pools")
}
