package crash

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/loadbalancer/offer"
	"github.com/onelb/onelb/provider/one"
)

// TestOfferedPool: a network's attributes become a pool that gives addresses,
// follows edits, and goes when the last Service has left it. The reservations
// that inherit the attributes are no offers.
func TestOfferedPool(t *testing.T) {
	l := newLost(t, nil)
	id, err := l.sim.AddVNet("", `NAME="offered"
VN_MAD="dummy"
BRIDGE="br-offered"
ONELB_POOL="fromone"
ONELB_PRIORITY="3"
ONELB_RANGES="203.0.113.210-203.0.113.229"
ONELB_EXPOSURE="L2"
ONELB_QUARANTINE="1s"
AR=[TYPE="IP4",IP="203.0.113.200",SIZE="50"]
`)
	l.must(err)
	l.must(os.WriteFile(filepath.Join(l.dir, "admin"), []byte("oneadmin:opennebula\n"), 0o600))
	l.gate.admit("admin")
	admin, err := one.New(one.Options{Endpoint: l.gate.url + "/admin/RPC2", Credentials: one.CredentialFile(filepath.Join(l.dir, "admin"))})
	l.must(err)
	say := func(attributes ...string) {
		t.Helper()
		all := map[string]string{}
		for i := 0; i < len(attributes); i += 2 {
			all[attributes[i]] = attributes[i+1]
		}
		l.must(admin.Annotate(t.Context(), ipam.NetworkID(id), all))
	}
	pool := func(ctx context.Context) (*v1alpha1.AddressPool, error) {
		return l.onelb.AddressPools().Get(ctx, "fromone", metav1.GetOptions{})
	}
	until := func(what string, ok func(*v1alpha1.AddressPool) bool) {
		t.Helper()
		l.until(what, func(ctx context.Context) error {
			p, err := pool(ctx)
			if err != nil || !ok(p) {
				return errors.Join(err, fmt.Errorf("it is %+v", p))
			}
			return nil
		})
	}

	stop := l.start("offeredPools: true\n")
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP}}},
	}
	l.create(svc)
	if a := l.addresses()["web"]; a != "[203.0.113.210]" {
		t.Errorf("web has %s", a)
	}
	until("the mark", func(p *v1alpha1.AddressPool) bool {
		return p.Labels[v1alpha1.OfferedByLabel] == v1alpha1.OfferedByOpenNebula && p.Annotations[v1alpha1.OfferNetworkAnnotation] == fmt.Sprint(id) && p.Spec.Priority == 3
	})
	say("ONELB_PRIORITY", "4", "ONELB_AVOID_EDGE", "YES")
	until("the edit", func(p *v1alpha1.AddressPool) bool { return p.Spec.Priority == 4 && p.Spec.AvoidEdgeAddresses })
	first, err := pool(t.Context())
	l.must(err)
	// What loadbalancer/offer writes with an outdated version is refused as outdated.
	_, err = l.onelb.AddressPools().Patch(t.Context(), first.Name, types.JSONPatchType,
		[]byte(`[{"op":"replace","path":"/metadata/resourceVersion","value":"1"},{"op":"replace","path":"/spec/priority","value":9}]`), metav1.PatchOptions{})
	if !apierrors.IsConflict(err) {
		t.Errorf("a patch with an old version: %v", err)
	}
	say("ONELB_EXPOSURE", "ROUTER", "ONELB_ROUTER", "edge") // which cannot be changed
	until("the problem", func(p *v1alpha1.AddressPool) bool { return p.Annotations[v1alpha1.OfferProblemAnnotation] != "" })
	if p, err := pool(t.Context()); err != nil || p.Generation != first.Generation || p.Spec.Exposure != v1alpha1.ExposureL2 {
		t.Errorf("%+v, %v", p, err)
	}
	// The user of the cluster has USE alone, and so the network tells nothing.
	if n, err := admin.Get(t.Context(), ipam.NetworkID(id)); err != nil || n.Attributes[offer.AttributeError] != "" {
		t.Errorf("%q, %v", n.Attributes[offer.AttributeError], err)
	}

	say("ONELB_POOL", "")
	until("the deletion", func(p *v1alpha1.AddressPool) bool { return p.DeletionTimestamp != nil })
	stop()
	stop = l.start("offeredPools: true\n") // a new leader knows what to do
	until("the pool, still there", func(p *v1alpha1.AddressPool) bool { return p.DeletionTimestamp != nil })
	if a := l.addresses()["web"]; a != "[203.0.113.210]" {
		t.Errorf("web has %s", a)
	}
	pools, err := l.onelb.AddressPools().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(pools.Items) != 1 {
		t.Errorf("%d pools, %v: a reservation was taken for an offer", len(pools.Items), err)
	}
	l.must(l.plane.kube.CoreV1().Services(metav1.NamespaceDefault).Delete(t.Context(), "web", metav1.DeleteOptions{}))
	l.until("the pool to go", func(ctx context.Context) error {
		if _, err := pool(ctx); !apierrors.IsNotFound(err) {
			return fmt.Errorf("it is there: %w", errors.Join(err, errors.New("still")))
		}
		return nil
	})
	l.until("the reservation to be gone", func(context.Context) error { // OpenNebula answers first, and then deletes
		if r := l.sim.Reservations(id); len(r) > 0 {
			return fmt.Errorf("left: %v", r)
		}
		return nil
	})
	stop()
}
