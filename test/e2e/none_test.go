package e2e_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/test/e2e/kit"
	"github.com/onelb/onelb/test/lab"
)

// On the nodes' own L2, with a right to manage it, since the user owns it.
const managed = `NAME="managed"
VN_MAD="dummy"
BRIDGE="br-private"
AR=[TYPE="IP4",IP="10.20.0.220",SIZE="8"]
`

// TestWithoutReservation serves Services from a network in which each address is
// put on hold by itself, beside others who do the same.
func TestWithoutReservation(t *testing.T) {
	w := newWorld(t)
	id, err := w.OneSim().AddVNet(lab.OneUser, managed)
	w.Must(err)
	one := w.oneClient()
	w.Must(one.Hold(w.Context(), ipam.NetworkID(id), mustAddr("10.20.0.220"))) // somebody else's
	w.Pool("managed", "network: {name: managed}, exposure: L2, reservation: none, reserveAhead: 2, chunkSize: 1, quarantine: 1s")
	w.PoolIs("managed", metav1.ConditionTrue, ipam.ReasonOnHold)
	w.Create(web, "none-1", kit.InPool("managed"), families(corev1.IPv4Protocol))
	w.Create(web, "none-2", kit.InPool("managed"), families(corev1.IPv4Protocol))
	a, b := w.waitServed("none-1"), w.waitServed("none-2")
	if a[0] == b[0] || a[0] == mustAddr("10.20.0.220") || b[0] == mustAddr("10.20.0.220") {
		t.Errorf("gave %v and %v", a, b)
	}
	w.heldExactly(one, id, func(pool v1alpha1.AddressPoolStatus, held int) bool {
		// Two are in use, two are ahead, one is the other's.
		return held == 5 && pool.IPv4.Used == 2 && pool.IPv4.Held == 4 && pool.IPv4.Ahead == 2 && pool.IPv4.Total == 7 && pool.ReservationID == nil
	})
	w.Remove("none-1", "none-2")
	w.RemovePool("managed")
	w.heldExactly(one, id, nil)
	w.NothingLeft()
}

// heldExactly waits until the pool's status and the leases of the network fit;
// without fits, until only the stranger's hold is left.
func (w *world) heldExactly(one ipam.Networks, id int, fits func(v1alpha1.AddressPoolStatus, int) bool) {
	w.T.Helper()
	var n ipam.Network
	var status v1alpha1.AddressPoolStatus
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		var err error
		n, err = one.Get(w.Context(), ipam.NetworkID(id))
		w.Must(err)
		held := len(n.Ranges[0].Leases)
		if fits == nil {
			if held == 1 && n.Ranges[0].Leases[0].IP4 == mustAddr("10.20.0.220") {
				return
			}
			continue
		}
		pool, err := w.OneLB.AddressPools().Get(w.Context(), "managed", metav1.GetOptions{})
		w.Must(err)
		if status = pool.Status; status.IPv4 != nil && fits(status, held) {
			return
		}
	}
	w.T.Errorf("leases %+v, status %+v", n.Ranges[0].Leases, status)
}
