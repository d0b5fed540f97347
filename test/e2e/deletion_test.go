package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/test/e2e/kit"
	"github.com/onelb/onelb/test/lab"
)

// TestPoolInUseIsDeleted deletes a pool with an address in use: both stay until
// the Service is gone, then the reservation goes back to OpenNebula.
func TestPoolInUseIsDeleted(t *testing.T) {
	w := newWorld(t)
	w.Pool("doomed", "network: {name: private}, ranges: [{start: 10.20.0.194, end: 10.20.0.197}], exposure: L2, quarantine: 1s")
	w.PoolIs("doomed", metav1.ConditionTrue, "Reserved")
	addrs := w.serve(web, "stays", "doomed", families(corev1.IPv4Protocol))
	one := w.OneSim()
	reserved := func() bool {
		_, err := one.VNetNamed(lab.OneUser, lab.ClusterName+"-doomed")
		return err == nil
	}
	if !reserved() {
		t.Fatal("the pool has no reservation")
	}
	x := w.watch(addrs...)
	w.Must(w.OneLB.AddressPools().Delete(w.Context(), "doomed", metav1.DeleteOptions{}))
	c := w.PoolIs("doomed", metav1.ConditionFalse, "Leaving")
	w.mentions(c.Message, "1 of its addresses")
	w.Create(web, "too-late", kit.InPool("doomed"), families(corev1.IPv4Protocol))
	w.warned("Service", "too-late", "AllocationFailed", "AddressPool doomed", "being removed")
	time.Sleep(3 * time.Second)
	x.undisturbed("the pool is deleted")
	w.Pending("too-late")
	if !reserved() || !slices.Contains(w.Holders(addrs[0]), w.holder(addrs[0])) {
		t.Error("the pool's address went away with its deletion")
	}
	w.Remove("stays", "too-late")
	w.Eventually("pool and reservation to be gone", func(ctx context.Context) error {
		_, err := w.OneLB.AddressPools().Get(ctx, "doomed", metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return errors.Join(err, errors.New("the pool is there"))
		}
		if reserved() {
			return errors.New("the reservation is there")
		}
		return nil
	})
	w.NothingLeft()
}

// TestVirtualIPInUseIsDeleted deletes VirtualIPs under their Services: they are made
// anew, and nobody notices.
func TestVirtualIPInUseIsDeleted(t *testing.T) {
	w := newWorld(t)
	names := []string{"kept-lan", "kept-internet", "kept-direct"}
	for i, pool := range []string{"lan", "internet", "direct"} {
		addrs := w.serve(web, names[i], pool)
		x := w.watch(addrs[0])
		old, err := w.OneLB.VirtualIPs().Get(w.Context(), v1alpha1.VirtualIPName(addrs[0]), metav1.GetOptions{})
		w.Must(err)
		w.Must(w.OneLB.VirtualIPs().Delete(w.Context(), old.Name, metav1.DeleteOptions{}))
		w.Eventually("VirtualIP "+old.Name+" to be made anew", func(ctx context.Context) error {
			v, err := w.OneLB.VirtualIPs().Get(ctx, old.Name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if v.UID == old.UID || v.DeletionTimestamp != nil || v.Status.Phase != v1alpha1.PhaseActive {
				return fmt.Errorf("%s is %s, deleted at %v", v.UID, v.Status.Phase, v.DeletionTimestamp)
			}
			return nil
		})
		w.warned("Service", names[i], "VirtualIPRestored", old.Name, "delete the Service")
		time.Sleep(4 * time.Second)
		x.undisturbed("VirtualIP of pool " + pool + " deleted")
		if after := w.waitServed(names[i]); !sameAddrs(addrs, after) {
			t.Errorf("the Service moved from %v to %v", addrs, after)
		}
		w.warnedOnce("Service", names[i])
	}
	w.NothingLeft()
	w.Remove(names...)
	w.NothingLeft()
}
