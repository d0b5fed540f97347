package services

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/onelb/onelb/test/e2e/kit"
)

// TestShare puts two Services on one address of each kind of pool. A third whose
// port clashes waits, and takes the place of the one that goes.
func TestShare(t *testing.T) {
	for _, pool := range []string{"lan", "internet", "direct"} {
		t.Run(pool, func(t *testing.T) {
			w := newWorld(t)
			with := []kit.Edit{kit.InPool(pool), kit.Annotate("share", "key-"+pool)}
			names := []string{"share-one-" + pool, "share-two-" + pool, "share-late-" + pool}
			w.Create(web, names[0], with...)
			one := w.Served(web, names[0])
			w.Create(pair, names[1], append(with, kit.OnPort(9000))...)
			two := w.Served(pair, names[1])
			published := 2 // forward VIP shows inner addresses too, which are each Service's own
			if !slices.Equal(one[:published], two[:published]) {
				t.Fatalf("%v and %v are not shared", one, two)
			}
			w.Said("Service", names[1], "IPAllocated", one[0].String(), "shared with default/"+names[0])
			w.Answers(web, names[0], one...)
			w.Silent(one[0], 9001)

			w.Create(pair, names[2], with...)
			w.Waits(names[2], "Refused", one[0].String(), "default/"+names[0], "8765/")
			w.Remove(names[0])
			late := w.Served(pair, names[2])
			if !slices.Equal(late[:published], one[:published]) {
				t.Errorf("%s has %v, want %v", names[2], late, one)
			}
			w.SaidOnce("Service", names[2], "Refused")
			w.Answers(pair, names[1], two...)
			w.Remove(names[1:]...)
			w.NothingLeft()
		})
	}
}

// TestShareLocal: with Local, all have to select the same pods.
func TestShareLocal(t *testing.T) {
	w := newWorld(t)
	with := []kit.Edit{kit.InPool("lan"), kit.Annotate("share", "local"), kit.Local, kit.V4}
	w.Create(pair, "local-one", with...)
	one := w.Served(pair, "local-one")
	w.Create(pair, "local-two", append(with, kit.OnPort(9000))...)
	if two := w.Served(pair, "local-two"); !slices.Equal(one, two) {
		t.Fatalf("%v and %v are not shared", one, two)
	}
	w.Create(web, "local-other", append(with, kit.OnPort(9001))...)
	w.Waits("local-other", "Refused", "default/local-one", "does not select the same pods")
	w.Create(pair, "local-cluster", append(with, kit.OnPort(9002), func(s *corev1.Service) {
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	})...)
	w.Waits("local-cluster", "Refused", "externalTrafficPolicy is Cluster", "default/local-one")

	t.Log("an edit makes a Service clash: it goes, the other keeps working")
	w.Update("local-two", kit.OnPort(kit.Port))
	w.Said("Service", "local-two", "Refused", one[0].String(), "default/local-one", "8765/")
	w.Shows("local-two")
	w.Answers(pair, "local-one", one...)
	w.Update("local-two", kit.OnPort(9000))
	w.Shows("local-two", one...)
	w.Answers(pair, "local-two", one...)

	t.Log("another key: the other address comes first")
	w.Update("local-two", kit.Annotate("share", "another"))
	w.Eventually("another address of local-two", otherThan(w, "local-two", one))
	w.Served(pair, "local-two")
	w.Answers(pair, "local-one", one...)
	w.Remove("local-one", "local-two", "local-other", "local-cluster")
	w.NothingLeft()
}
