package e2e_test

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/test/e2e/kit"
)

// TestRefusedServices asks for what cannot be had: one event says so, nothing is
// taken, and the Service gets its address as soon as it is put right.
func TestRefusedServices(t *testing.T) {
	w := newWorld(t)
	cases := []struct {
		name, reason string
		wrong, right kit.Edit
		words        []string
	}{
		{
			"no-node-port", "Refused",
			func(s *corev1.Service) {
				s.Spec.AllocateLoadBalancerNodePorts = new(false)
				kit.InPool("internet")(s)
			},
			func(s *corev1.Service) { s.Spec.AllocateLoadBalancerNodePorts = new(true) },
			[]string{"8765/", "internet", "spec.allocateLoadBalancerNodePorts", "forward: VIP"},
		},
		{
			"unknown-annotation", "Refused",
			func(s *corev1.Service) { metav1.SetMetaDataAnnotation(&s.ObjectMeta, "onelb.io/pol", "lan") },
			func(s *corev1.Service) { delete(s.Annotations, "onelb.io/pol") },
			[]string{"onelb.io/pol", "onelb.io/pool", "onelb.io/address"},
		},
		{
			"bad-address", "Refused",
			func(s *corev1.Service) {
				metav1.SetMetaDataAnnotation(&s.ObjectMeta, "onelb.io/address", "10.20.0.300")
			},
			func(s *corev1.Service) { delete(s.Annotations, "onelb.io/address") },
			[]string{"onelb.io/address", "10.20.0.300"},
		},
		{
			"unknown-pool", "AllocationFailed", kit.InPool("lann"), kit.InPool("lan"),
			[]string{"lann", "onelb.io/pool", "lan"},
		},
		{
			"foreign-address", "AllocationFailed",
			func(s *corev1.Service) { metav1.SetMetaDataAnnotation(&s.ObjectMeta, "onelb.io/address", "10.20.0.7") },
			func(s *corev1.Service) { delete(s.Annotations, "onelb.io/address") },
			[]string{"10.20.0.7", "lan"},
		},
	}
	for _, c := range cases {
		w.Create(web, c.name, families(corev1.IPv4Protocol), c.wrong)
	}
	for _, c := range cases {
		w.warned("Service", c.name, c.reason, c.words...)
	}
	time.Sleep(11 * time.Second) // two retries of those that wait
	for _, c := range cases {
		w.Pending(c.name)
		w.warnedOnce("Service", c.name)
		w.sanePace(c.name, 4)
	}
	w.NothingLeft()
	var names []string
	for _, c := range cases {
		w.Update(c.name, c.right)
		names = append(names, c.name)
	}
	for _, c := range cases {
		w.waitServed(c.name)
	}
	w.Remove(names...)
	w.NothingLeft()
}

// sanePace fails the test if a Service was tried more often than that: the
// library sends an event at each failure.
func (w *world) sanePace(name string, most int) {
	w.T.Helper()
	all, err := w.events(w.Context(), "Service", name)
	w.Must(err)
	tries := 0
	for _, e := range all {
		if e.Reason == "SyncLoadBalancerFailed" {
			tries += int(max(e.Count, 1))
		}
	}
	if tries == 0 || tries > most {
		w.T.Errorf("Service %s was tried %d times, want 1 to %d", name, tries, most)
	}
}

// TestPoolRunsOut fills a pool of two addresses. The third Service waits, and gets
// the first address that comes back.
func TestPoolRunsOut(t *testing.T) {
	w := newWorld(t)
	w.Pool("tiny", "network: {name: private}, ranges: [{start: 10.20.0.180, end: 10.20.0.181}], exposure: L2, chunkSize: 1, reserveAhead: 0, quarantine: 1s")
	w.PoolIs("tiny", metav1.ConditionTrue, "Reserved")
	var names []string
	for i := range 2 {
		name := fmt.Sprintf("tiny-%d", i)
		names = append(names, name)
		w.serve(web, name, "tiny", families(corev1.IPv4Protocol))
	}
	w.Create(web, "tiny-late", kit.InPool("tiny"), families(corev1.IPv4Protocol))
	w.warned("Service", "tiny-late", "AllocationFailed", "AddressPool tiny", "no free address")
	time.Sleep(6 * time.Second)
	w.warnedOnce("Service", "tiny-late")
	w.Pending("tiny-late")
	w.waitAnswers(names[0], w.Addresses(names[0]))
	w.Remove(names[1])
	w.waitServed("tiny-late")
	w.Remove(names[0], "tiny-late")
	w.NothingLeft()
}
