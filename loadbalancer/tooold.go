package loadbalancer

import (
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/onelb/onelb/loadbalancer/router"
)

// leftOut says why a Service is not in a router's document.
type leftOut struct {
	service *corev1.Service
	err     error
}

// Error implements error.
func (l *leftOut) Error() string {
	return fmt.Sprintf("Service %s/%s: %v", l.service.Namespace, l.service.Name, l.err)
}

// Unwrap gives access to the reason.
func (l *leftOut) Unwrap() error { return l.err }

// tellTooOld sends an event when a router is found too old for a Service, also for
// one that was served, as after the router went back to an earlier release.
func (c *Controller) tellTooOld(name string, problems []error) {
	now := map[types.UID]*leftOut{}
	for _, err := range problems {
		var l *leftOut
		if errors.As(err, &l) && errors.Is(err, router.ErrTooOld) {
			now[l.service.UID] = l
		}
	}
	before := c.routers[name].setTooOld(now)
	for uid, l := range now {
		// Only what is new here: two routers that lack different things, or the failure
		// of an Ensure, would be told in turn at each look.
		if b := before[uid]; b == nil || b.Error() != l.Error() {
			c.events.Failed(l.service, l.err)
		}
		delete(before, uid)
	}
	for _, l := range before {
		c.events.Recovered(l.service)
	}
}

// setTooOld replaces what is known of Services that the router is too old for, and
// returns what was.
func (r *routerSync) setTooOld(now map[types.UID]*leftOut) (before map[types.UID]*leftOut) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before, r.tooOld = r.tooOld, now
	return before
}

// tooOldFor says why the router is too old for a Service; nil: it is not.
func (r *routerSync) tooOldFor(uid types.UID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.tooOld[uid]; l != nil {
		return l.err
	}
	return nil
}
