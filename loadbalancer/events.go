package loadbalancer

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/virtualip"
)

// Reasons of events. Reference: docs/reference/events.md.
const (
	// ReasonIPAllocated: the Service has got an address.
	ReasonIPAllocated = "IPAllocated"
	// ReasonIPReleased: the Service no longer has an address.
	ReasonIPReleased = "IPReleased"
	// ReasonIPRetained: the Service is gone, its address is kept for the next one
	// of the same name.
	ReasonIPRetained = "IPRetained"
	// ReasonRouterProgrammed: the router forwards the address for the first time.
	ReasonRouterProgrammed = "RouterProgrammed"
	// ReasonAllocationFailed: the Service cannot have what it asks for, now.
	ReasonAllocationFailed = "AllocationFailed"
	// ReasonRefused: the Service cannot have what it asks for until it, or its
	// pool, is edited.
	ReasonRefused = "Refused"
	// ReasonInvalidPool: the AddressPool cannot be used as it is written.
	ReasonInvalidPool = "InvalidPool"
	// ReasonPodsNotReached: the router cannot forward to the Service's pods, as
	// its pool says (forward: Pod), and the message says what it does instead.
	ReasonPodsNotReached = "PodsNotReached"
	// ReasonRouterTooOld: onelb-router on an instance of the router cannot do what the
	// Service needs. It is not forwarded until that is updated; others are.
	ReasonRouterTooOld = "RouterTooOld"
	// ReasonRestored: a VirtualIP in use was deleted by somebody and made anew.
	ReasonRestored = "VirtualIPRestored"
)

// events sends events on transitions only: the same failure of the same
// object, seen again at each retry, is one event.
type events struct {
	recorder record.EventRecorder

	mu      sync.Mutex // guards what follows
	last    map[types.UID]string
	lacking map[types.UID]string            // why a Service has fewer families than it prefers
	detours map[string]map[types.UID]detour // by router
}

func newEvents(r record.EventRecorder) *events {
	return &events{recorder: r, last: map[types.UID]string{}, lacking: map[types.UID]string{}, detours: map[string]map[types.UID]detour{}}
}

func (e *events) Allocated(svc *corev1.Service, r ipam.Record, inner bool) {
	what := "Address"
	if inner {
		what = "Inner address"
	}
	e.recorder.Eventf(svc, corev1.EventTypeNormal, ReasonIPAllocated, "%s %s from AddressPool %s", what, r.Address, r.Pool)
}

// Joined says with whom the Service shares the address that it has got.
func (e *events) Joined(svc *corev1.Service, r ipam.Record) {
	var others []string
	for _, o := range r.Owners {
		if o.UID != string(svc.UID) {
			others = append(others, o.Namespace+"/"+o.Name)
		}
	}
	e.recorder.Eventf(svc, corev1.EventTypeNormal, ReasonIPAllocated, "Address %s from AddressPool %s, shared with %s",
		r.Address, r.Pool, trim(strings.Join(others, ", ")))
}

// CameBack says that the Service has got the address that was kept for its name.
func (e *events) CameBack(svc *corev1.Service, r ipam.Record) {
	e.recorder.Eventf(svc, corev1.EventTypeNormal, ReasonIPAllocated, "Address %s from AddressPool %s, which was kept for this name", r.Address, r.Pool)
}

// Released says that the Service has an address no more, and what becomes of it.
func (e *events) Released(svc *corev1.Service, a netip.Addr, left virtualip.Left) {
	if left.Services > 0 {
		e.recorder.Eventf(svc, corev1.EventTypeNormal, ReasonIPReleased, "Address %s is left to the %d other Services that share it", a, left.Services)
		return
	}
	if !left.Until.IsZero() {
		e.recorder.Eventf(svc, corev1.EventTypeNormal, ReasonIPRetained,
			"Address %s is kept for the next Service called %s/%s until %s; delete its VirtualIP to give it back before",
			a, svc.Namespace, svc.Name, left.Until.UTC().Format(time.RFC3339))
		return
	}
	e.recorder.Eventf(svc, corev1.EventTypeNormal, ReasonIPReleased, "Address %s is given back", a)
}

func (e *events) Programmed(svc *corev1.Service, a netip.Addr, router string) {
	e.recorder.Eventf(svc, corev1.EventTypeNormal, ReasonRouterProgrammed, "Router %s forwards %s", router, a)
}

// Failed sends one event for a failure, until it changes or is cleared.
func (e *events) Failed(svc *corev1.Service, err error) {
	reason := ReasonAllocationFailed
	if strings.HasPrefix(err.Error(), errRefused.Error()) {
		reason = ReasonRefused
	}
	if errors.Is(err, router.ErrTooOld) {
		reason = ReasonRouterTooOld
	}
	e.once(svc, svc.UID, corev1.EventTypeWarning, reason, err.Error())
}

// Lacking says why a Service that prefers two families has to do with one, until
// that changes; nil: it has both, or is content.
func (e *events) Lacking(svc *corev1.Service, why error) {
	message := ""
	if why != nil {
		message = why.Error()
	}
	e.mu.Lock()
	same := e.lacking[svc.UID] == message
	e.lacking[svc.UID] = message
	if message == "" {
		delete(e.lacking, svc.UID)
	}
	e.mu.Unlock()
	if !same && message != "" {
		e.recorder.Event(svc, corev1.EventTypeWarning, ReasonAllocationFailed, trim(message))
	}
}

// Detours says which Services are not forwarded to their pods, each once until
// the reason has gone: which pod it is that cannot be reached changes often.
func (e *events) Detours(router string, now map[types.UID]detour) {
	e.mu.Lock()
	before := e.detours[router]
	e.detours[router] = now
	e.mu.Unlock()
	for uid, d := range now {
		if _, was := before[uid]; !was {
			e.recorder.Event(d.service, corev1.EventTypeWarning, ReasonPodsNotReached, trim(fmt.Sprintf("Router %s: %s", router, d.message)))
		}
	}
}

// Recovered forgets a Service's failure: the next one is a transition.
func (e *events) Recovered(svc *corev1.Service) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, reason := range []string{ReasonAllocationFailed, ReasonRefused, ReasonRouterTooOld} {
		if strings.HasPrefix(e.last[svc.UID], reason) {
			delete(e.last, svc.UID)
		}
	}
}

// Cleared forgets all about a Service that goes.
func (e *events) Cleared(svc *corev1.Service) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.last, svc.UID)
	delete(e.lacking, svc.UID)
}

// once sends an event unless it is the last one that was sent for the object.
func (e *events) once(obj runtime.Object, uid types.UID, kind, reason, message string) {
	e.mu.Lock()
	same := e.last[uid] == reason+message
	e.last[uid] = reason + message
	e.mu.Unlock()
	if !same {
		e.recorder.Event(obj, kind, reason, trim(message))
	}
}

// trim cuts a message to what an event holds (1024 bytes).
func trim(s string) string {
	const most = 1000
	if len(s) <= most {
		return s
	}
	return fmt.Sprintf("%s …", strings.ToValidUTF8(s[:most], ""))
}
