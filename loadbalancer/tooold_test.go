package loadbalancer

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/record"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/annotation"
	"github.com/onelb/onelb/loadbalancer/router"
)

// TestRouterTooOld: a Service that needs what the router cannot do is refused alone, with
// an event that says what and where; it is served once the router can, and left out
// again, with an event, when the router goes back.
func TestRouterTooOld(t *testing.T) {
	h := newHarness(t, []runtime.Object{readyNode("n1", "10.20.0.11")}, routerPool("public", v1alpha1.ForwardNodePort, ""))
	h.router.setFeatures(router.FeatureAffinity)
	h.runLibrary()
	plain, limited := namedService("plain"), namedService("limited")
	limited.Annotations = map[string]string{annotation.ConnectionLimit.Name: "100"}
	h.create(plain)
	h.create(limited)
	h.eventually("the other Service is served", func() bool { return len(h.addressesOf("plain")) > 0 })
	h.tooOldEvent()
	if got := h.router.dump(); strings.Contains(got, "ns/limited") || !strings.Contains(got, "ns/plain") {
		t.Errorf("the router has\n%s", got)
	}
	if got := h.addressesOf("limited"); len(got) > 0 {
		t.Errorf("the Service says that it has %v", got)
	}
	h.router.setFeatures(router.Features()...)
	h.controller.kickRouters()
	h.eventually("it is served by the new release", func() bool {
		return len(h.addressesOf("limited")) > 0 && strings.Contains(h.router.dump(), "ns/limited")
	})
	h.router.setFeatures()
	h.controller.kickRouters()
	h.tooOldEvent()
	h.eventually("it is left out of the old one", func() bool { return !strings.Contains(h.router.dump(), "ns/limited") })
	if !strings.Contains(h.router.dump(), "ns/plain") {
		t.Error("the other Service went too")
	}
}

// TestTooOldIsToldOnce: the same of two routers is told once of each, however often they
// are looked at, and also beside another failure of the Service.
func TestTooOldIsToldOnce(t *testing.T) {
	recorder := record.NewFakeRecorder(100)
	c := &Controller{events: newEvents(recorder), routers: map[string]*routerSync{"a": {}, "b": {}}}
	s := namedService("limited")
	s.UID = "uid"
	tell := func(name, lacks string) {
		c.tellTooOld(name, []error{&leftOut{s, fmt.Errorf("router %s: %w: no %s", name, router.ErrTooOld, lacks)}})
	}
	for range 5 {
		tell("a", "limit")
		tell("b", "limit")
		c.events.Failed(s, errors.New("router c does not answer"))
	}
	if n := len(recorder.Events); n != 3 {
		t.Errorf("%d events, want 3", n)
	}
	tell("a", "affinity")
	if n := len(recorder.Events); n != 4 {
		t.Errorf("%d events after it lacks something else, want 4", n)
	}
}

// tooOldEvent waits for one.
func (h *harness) tooOldEvent() {
	h.t.Helper()
	deadline := time.After(2 * time.Minute)
	for {
		select {
		case got := <-h.events.Events:
			if strings.HasPrefix(got, corev1.EventTypeWarning+" "+ReasonRouterTooOld+" ") {
				want := "router edge (r1): the router's agent is too old: onelb-router 0.9 there does not have the feature connection-limit: update it"
				if !strings.Contains(got, want) {
					h.t.Errorf("event %q, want %q", got, want)
				}
				return
			}
		case <-deadline:
			h.t.Fatal("no event")
		}
	}
}

func (f *fakeRouter) setFeatures(features ...router.Feature) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.features = slices.Clone(features)
}
