package node

import (
	"context"
	"net"
	"net/netip"
	"testing"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"

	onelbfake "github.com/onelb/onelb/api/client/fake"
	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/announcer"
)

// The condition comes and goes, and leaves what others have written alone.
func TestConflictCondition(t *testing.T) {
	c := onelbfake.New()
	v := virtualIP()
	apimeta.SetStatusCondition(&v.Status.Conditions, metav1.Condition{Type: v1alpha1.VirtualIPOnHold, Status: metav1.ConditionTrue, Reason: "Held"})
	v.Status.Holder = &v1alpha1.Holder{Name: "node-1", Interface: "eth0", Epoch: 3}
	_, err := c.VirtualIPs().Create(t.Context(), v, metav1.CreateOptions{})
	must(t, err)
	get := func() *v1alpha1.VirtualIP {
		got, err := c.VirtualIPs().Get(context.Background(), v.Name, metav1.GetOptions{})
		must(t, err)
		return got
	}
	s := newStatus("node-1", c.VirtualIPs(), func(string) (*v1alpha1.VirtualIP, bool) { return get(), true }, record.NewFakeRecorder(10))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() { cancel(); must(t, <-done) }()
	address := announcer.Address{Address: netip.MustParseAddr(vipName), Services: []announcer.Service{{Namespace: "d", Name: "web"}}}
	for _, status := range []metav1.ConditionStatus{metav1.ConditionTrue, metav1.ConditionFalse, metav1.ConditionTrue} {
		if status == metav1.ConditionTrue {
			s.Conflict(address, net.HardwareAddr{2, 0, 0, 0, 0, 9})
		} else {
			s.Peace(address.Address)
		}
		eventually(t, "the condition is there", func() bool {
			return apimeta.IsStatusConditionPresentAndEqual(get().Status.Conditions, v1alpha1.VirtualIPAddressConflict, status)
		})
		if got := get(); !apimeta.IsStatusConditionTrue(got.Status.Conditions, v1alpha1.VirtualIPOnHold) || got.Status.Holder == nil {
			t.Errorf("status %+v", got.Status)
		}
	}
}
