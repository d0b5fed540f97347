package services

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/onelb/onelb/test/e2e/kit"
)

// TestRetain deletes Services that keep their addresses, and makes them again.
func TestRetain(t *testing.T) {
	for _, pool := range []string{"lan", "internet"} {
		t.Run(pool, func(t *testing.T) {
			w := newWorld(t)
			name, greedy := "retain-"+pool, "greedy-"+pool
			w.Create(web, name, kit.InPool(pool), kit.Annotate("retain", "1h"))
			had := w.Served(web, name)
			w.Remove(name)
			w.Said("Service", name, "IPRetained", had[0].String(), "default/"+name)
			w.Silent(had[0], kit.Port)
			for _, a := range had {
				w.keptFor(a, name)
			}
			w.Create(pair, greedy, kit.V4, kit.InPool(pool), kit.Annotate("address", had[0].String()))
			w.Waits(greedy, "AllocationFailed", had[0].String())

			w.Create(web, name, kit.InPool(pool)) // also without the annotation
			w.Shows(name, had...)
			w.Served(web, name)
			w.Said("Service", name, "IPAllocated", had[1].String(), "kept for this name")
			w.Pending(greedy)
			w.Remove(name)
			w.Shows(greedy, had[0])
			w.Remove(greedy)
			w.NothingLeft()
		})
	}
}

// TestRetainEnds: the type changes away and back, the time runs out, and an admin
// gives a kept address back.
func TestRetainEnds(t *testing.T) {
	w := newWorld(t)
	retained := kit.Annotate("retain", "1h")
	w.Create(web, "retain-type", retained, kit.V4)
	had := w.Served(web, "retain-type")
	w.Update("retain-type", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP })
	w.Said("Service", "retain-type", "IPRetained", had[0].String())
	w.Silent(had[0], kit.Port)
	w.Update("retain-type", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeLoadBalancer })
	w.Shows("retain-type", had...)
	w.Served(web, "retain-type")

	w.Remove("retain-type")
	w.keptFor(had[0], "retain-type")
	if out, err := w.Kubectl(w.Context(), "delete", "vip", had[0].String(), "--timeout=60s"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w.NothingLeft()

	w.Create(web, "retain-short", kit.Annotate("retain", "6s"), kit.V4)
	had = w.Served(web, "retain-short")
	w.Remove("retain-short")
	w.Said("Service", "retain-short", "IPRetained", had[0].String())
	w.NothingLeft()
}

// keptFor waits until an address is kept, and on hold, for a Service's name.
func (w world) keptFor(a netip.Addr, name string) {
	w.T.Helper()
	w.Eventually(a.String()+" to be kept", func(ctx context.Context) error {
		v, err := w.VirtualIP(ctx, a)
		switch {
		case err != nil:
			return err
		case v.Spec.Retain == nil || v.Spec.Retain.Name != name || len(v.Spec.Services) > 0:
			return errors.New("it is not kept")
		case v.Status.Holder != nil:
			return errors.New("it has a holder")
		}
		return w.onHold(a)
	})
}
