package services

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/test/e2e/kit"
)

const (
	single  = corev1.IPFamilyPolicySingleStack
	prefer  = corev1.IPFamilyPolicyPreferDualStack
	require = corev1.IPFamilyPolicyRequireDualStack
)

// TestFamilies takes one Service through the policies and families that the API
// server permits, in each kind of pool.
func TestFamilies(t *testing.T) {
	steps := []struct {
		edit kit.Edit
		want []corev1.IPFamily
	}{
		{kit.Families(prefer, v4, v6), []corev1.IPFamily{v4, v6}},
		{kit.Families(require, v4, v6), []corev1.IPFamily{v4, v6}},
		{kit.Families(single, v4), []corev1.IPFamily{v4}},
		{kit.Families(require, v4, v6), []corev1.IPFamily{v4, v6}},
	}
	for _, pool := range []string{"lan", "internet"} {
		t.Run(pool, func(t *testing.T) {
			w := newWorld(t)
			name := "families-" + pool
			w.Create(web, name, kit.InPool(pool), kit.V4)
			first := w.Served(web, name)[0]
			for i, s := range steps {
				w.Update(name, s.edit)
				got := w.AddressesOf(name, s.want...)
				w.Answers(web, name, got...)
				if got[0] != first {
					t.Errorf("step %d: the Service has moved from %s to %s", i, first, got[0])
				}
				w.NothingLeft()
			}
			w.Create(pair, name+"-six", kit.InPool(pool), kit.V6)
			w.AddressesOf(name+"-six", v6)
			w.Served(pair, name+"-six")
			w.Update(name+"-six", kit.Families(prefer, v6, v4))
			w.AddressesOf(name+"-six", v6, v4)
			w.Served(pair, name+"-six")
			w.Remove(name, name+"-six")
			w.NothingLeft()
		})
	}
}

// TestFamilyComesLater: PreferDualStack takes the family that there is, and the
// other one when a pool has it; RequireDualStack waits for both.
func TestFamilyComesLater(t *testing.T) {
	w := newWorld(t)
	const four = `network: {name: private}, exposure: L2, quarantine: 1s, ranges: [{start: 10.20.0.193, end: 10.20.0.196}`
	w.Pool("later", four+`]`)
	w.PoolIs("later", metav1.ConditionTrue, "Reserved")
	w.Create(web, "later-prefer", kit.InPool("later"), kit.Families(prefer))
	w.Create(web, "later-require", kit.InPool("later"), kit.Families(require))
	had := w.AddressesOf("later-prefer", v4)
	w.Answers(web, "later-prefer", had...)
	w.Waits("later-require", "AllocationFailed", "AddressPool later has no IPv6 addresses")

	t.Log("the pool gets IPv6 addresses")
	w.Pool("later", four+`, {start: "fd00:20::150", end: "fd00:20::153"}]`)
	both := w.AddressesOf("later-prefer", v4, v6)
	if both[0] != had[0] {
		t.Errorf("the Service has moved from %s to %s", had[0], both[0])
	}
	w.Answers(web, "later-prefer", both...)
	w.Served(web, "later-require")
	w.Said("Service", "later-prefer", "IPAllocated", both[1].String())

	t.Log("and loses them again: addresses in use stay")
	w.Pool("later", four+`]`)
	w.Create(web, "later-late", kit.InPool("later"), kit.Families(require))
	w.Waits("later-late", "AllocationFailed", "AddressPool later", "IPv6")
	w.Update("later-prefer", kit.OnPort(9000))
	w.Answers(web, "later-prefer", both...)
	w.Shows("later-prefer", both...)
	w.Must(w.CCM().Restart())
	w.Update("later-prefer", kit.OnPort(9001))
	w.Answers(web, "later-prefer", both...)
	w.Shows("later-prefer", both...)
	w.Remove("later-prefer", "later-require", "later-late")
	w.NothingLeft()
}

// TestFamilyIsFull: what there is of one family is given, though the other has no
// free address; that comes when there is one.
func TestFamilyIsFull(t *testing.T) {
	w := newWorld(t)
	w.Pool("full", `network: {name: private}, exposure: L2, quarantine: 1s, chunkSize: 1, reserveAhead: 0,
  ranges: [{start: 10.20.0.197, end: 10.20.0.199}, {start: "fd00:20::154", end: "fd00:20::154"}]`)
	w.PoolIs("full", metav1.ConditionTrue, "Reserved")
	w.Create(web, "full-six", kit.InPool("full"), kit.V6)
	w.Served(web, "full-six")
	w.Create(web, "full-prefer", kit.InPool("full"), kit.Families(prefer))
	had := w.AddressesOf("full-prefer", v4)
	w.Answers(web, "full-prefer", had...)
	w.Said("Service", "full-prefer", "AllocationFailed", "IPv6")
	w.SaidOnce("Service", "full-prefer", "AllocationFailed")
	w.Remove("full-six")
	both := w.AddressesOf("full-prefer", v4, v6)
	w.Answers(web, "full-prefer", both...)
	w.Remove("full-prefer")
	w.NothingLeft()
}
