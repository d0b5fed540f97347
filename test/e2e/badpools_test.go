package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/provider/one"
	"github.com/onelb/onelb/test/e2e/kit"
	"github.com/onelb/onelb/test/lab"
)

const twin = `NAME="twin"
VN_MAD="dummy"
BRIDGE="br-twin"
AR=[TYPE="IP4",IP="192.0.2.10",SIZE="10"]
`

// TestBadPools makes pools that cannot work: condition and one event say why and
// what to do, OpenNebula is not asked without end, and others' things stay.
func TestBadPools(t *testing.T) {
	w := newWorld(t)
	for _, owner := range []string{"", lab.OneUser} {
		if _, err := w.OneSim().AddVNet(owner, twin); err != nil {
			t.Fatal(err)
		}
	}
	foreign := w.foreignReservation("theirs", "10.20.0.184", 2)
	cases := []struct {
		name, spec, reason string
		words              []string
	}{
		{"missing", "network: {name: privat}, exposure: L2", "NetworkNotFound", []string{`"privat"`, "check the name", "USE"}},
		{"ambiguous", "network: {name: twin}, exposure: L2", "NetworkAmbiguous", []string{`"twin"`, "owner", "ID"}},
		{
			"theirs", "network: {name: private}, ranges: [{start: 10.20.0.184, end: 10.20.0.185}], exposure: L2", "ForeignReservation",
			[]string{"lab-theirs", "other-uid", "cloud-config", "onelbctl adopt"},
		},
		{
			"empty", "network: {name: private}, ranges: [{start: 10.20.0.11, end: 10.20.0.12}], exposure: L2", "NoFreeAddresses",
			[]string{"private", "widen the ranges"},
		},
		{"outside", "network: {name: private}, ranges: [{start: 192.0.2.1, end: 192.0.2.9}], exposure: L2", "NetworkUnusable", []string{"private", "(ranges, avoidEdgeAddresses)"}},
		{"no-router", "network: {name: public}, exposure: Router, router: {name: egde}", "Invalid", []string{`"egde"`, "cloud-config", "spec.router.name"}},
		{"backwards", "network: {name: private}, ranges: [{start: 10.20.0.189, end: 10.20.0.188}], exposure: L2", "Invalid", []string{"spec.ranges[0]", "10.20.0.189"}},
	}
	for _, c := range cases {
		w.Pool(c.name, c.spec)
		w.Create(web, "in-"+c.name, kit.InPool(c.name), families(corev1.IPv4Protocol))
	}
	for _, c := range cases {
		got := w.PoolIs(c.name, metav1.ConditionFalse, c.reason)
		w.mentions(got.Message, c.words...)
		w.warned("Service", "in-"+c.name, "AllocationFailed", "AddressPool "+c.name)
	}
	w.OneSim().ResetCalls()
	time.Sleep(10 * time.Second)
	total := 0
	for _, n := range w.OneSim().Calls() {
		total += n
	}
	if total > 60 {
		t.Errorf("%d calls to OpenNebula in 10 s for %d pools that cannot work: %v", total, len(cases), w.OneSim().Calls())
	}
	for _, c := range cases {
		w.Pending("in-" + c.name)
		w.warnedOnce("AddressPool", c.name)
		w.warnedOnce("Service", "in-"+c.name)
	}
	if n, err := w.OneSim().VNet(foreign); err != nil || n.Attributes[ipam.AttributeClusterUID] != "other-uid" || len(n.Ranges) != 1 {
		t.Errorf("the other cluster's reservation is now %+v, %v", n, err)
	}
	w.noLoss(foreign)
	for _, c := range cases {
		w.Remove("in-" + c.name)
		w.RemovePool(c.name)
	}
	w.noLoss(foreign)
	w.NothingLeft()
}

// noLoss fails the test unless the reservation is there.
func (w *world) noLoss(id int) {
	w.T.Helper()
	if _, err := w.OneSim().VNet(id); err != nil {
		w.T.Errorf("another cluster's reservation: %v", err)
	}
}

// oneClient is a client of OpenNebula outside the lab's network.
func (w *world) oneClient() *one.Client {
	w.T.Helper()
	endpoint, stop, err := w.OneSim().Start("127.0.0.1:0")
	w.Must(err)
	w.T.Cleanup(stop)
	file := filepath.Join(w.T.TempDir(), "one_auth")
	w.Must(os.WriteFile(file, []byte(lab.OneUser+":"+lab.OnePassword), 0o600))
	if !strings.Contains(endpoint, "://") {
		endpoint = "http://" + endpoint + "/RPC2"
	}
	c, err := one.New(one.Options{Endpoint: endpoint, Credentials: one.CredentialFile(file)})
	w.Must(err)
	return c
}

// foreignReservation makes the reservation of a pool as a cluster of the same name would.
func (w *world) foreignReservation(pool, first string, size int) int {
	w.T.Helper()
	c := w.oneClient()
	parent, err := w.OneSim().VNet(w.OneSim().PrivateVNet)
	w.Must(err)
	start := mustAddr(first)
	for _, r := range parent.Ranges {
		if !r.First.Is4() || r.First.Compare(start) > 0 || r.Size != 100 {
			continue
		}
		id, err := c.Reserve(w.Context(), ipam.ReserveRequest{
			Parent: ipam.NetworkID(parent.ID), Name: lab.ClusterName + "-" + pool, Into: ipam.NoNetwork,
			Size: size, Range: ipam.RangeID(r.ID), First: start,
		})
		w.Must(err)
		w.Must(c.Annotate(w.Context(), id, map[string]string{
			ipam.AttributeCluster: lab.ClusterName, ipam.AttributeClusterUID: "other-uid", ipam.AttributePool: pool,
		}))
		w.T.Cleanup(func() { _ = c.DeleteReservation(w.T.Context(), id) })
		return int(id)
	}
	w.T.Fatalf("no range of network %d has %s", parent.ID, first)
	return 0
}
