package guard

import (
	"net/netip"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestFilterOfRoutedPool: what counts is the NIC with the node's own address.
func TestFilterOfRoutedPool(t *testing.T) {
	own := netip.MustParseAddr("10.20.0.11")
	nics := func(filtered, otherFiltered bool) []NIC {
		return []NIC{
			{ID: 0, Network: 7, Parent: -1, Addresses: []netip.Addr{netip.MustParseAddr("172.16.0.11")}, Filtered: otherFiltered},
			{ID: 1, Network: 8, Parent: -1, Addresses: []netip.Addr{own}, Filtered: filtered},
		}
	}
	for _, c := range []struct {
		pool   Pool
		nics   []NIC
		reason string
		says   string
	}{
		{Pool{Name: "p", Routed: true, Network: -1}, nics(true, false), ReasonNodesFiltered, "the nodes' own network"},
		{Pool{Name: "p", Routed: true, Network: -1}, nics(false, true), ReasonNoFilter, "does not filter"},
		{Pool{Name: "p", Network: -1}, nics(true, true), ReasonNoFilter, "does not filter"}, // it was routed
		{Pool{Name: "p", Network: 8}, nics(true, false), ReasonNodesFiltered, "spec.l2.guard"},
	} {
		w := &world{members: []member{{name: "node-1", machine: &Machine{NICs: c.nics}, own: []netip.Addr{own}}, {name: "node-2"}}}
		got := w.filter(c.pool)
		if got.Reason != c.reason || (got.Status == metav1.ConditionTrue) != (c.reason == ReasonNodesFiltered) || !strings.Contains(got.Message, c.says) {
			t.Errorf("%+v: %+v", c.pool, got)
		}
	}
}
