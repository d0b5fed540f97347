package agent

import (
	"net/netip"
	"testing"

	"github.com/onelb/onelb/loadbalancer/router"
)

// TestOthersAddresses: a cluster gets neither nodes nor pods of another one as public
// addresses, nor a route to another one's public addresses. What runs stays.
func TestOthersAddresses(t *testing.T) {
	where := public
	t.Cleanup(func() { public = where }) // after the agent's end
	public = append(where[:len(where):len(where)], netip.MustParsePrefix("10.244.0.0/16"))
	b := newBench(t)
	b.start()
	lab, other := b.raw("lab"), b.raw("other")
	theirs := doc("lab", "203.0.113.100", 1)
	theirs.Groups[0].Members[0].Address = netip.MustParseAddr("203.0.113.50")
	theirs.Routes = []router.Route{{Destination: netip.MustParsePrefix("10.244.1.0/24"), Gateway: netip.MustParseAddr("203.0.113.51")}}
	answer, err := lab.Apply(t.Context(), whole(theirs, 0, 1, 1))
	b.must(err)
	if r := answer.GetRejection(); r != nil {
		t.Fatal(r)
	}
	generation := uint64(0)
	for _, test := range []struct {
		name, address, route string
		want                 router.Reason
	}{
		{"a node", "203.0.113.50", "", router.ReasonTaken},
		{"a gateway", "203.0.113.51", "", router.ReasonTaken},
		{"a pod", "10.244.1.9", "", router.ReasonTaken},
		{"one that is free", "10.244.2.9", "", ""},
		{"a route that is free", "10.244.2.9", "10.244.3.0/24", ""},
	} {
		d := doc("other", test.address, 1)
		if test.route != "" {
			d.Routes = []router.Route{{Destination: netip.MustParsePrefix(test.route), Gateway: netip.MustParseAddr("10.20.0.11")}}
		}
		answer, err := other.Apply(t.Context(), whole(d, generation, generation+1, 1))
		b.must(err)
		if got := router.Reason(answer.GetRejection().GetReason()); got != test.want {
			t.Errorf("%s: %q (%s), want %q", test.name, got, answer.GetRejection().GetMessage(), test.want)
		}
		if answer.GetRejection() == nil {
			generation++
		}
	}
	theirs.Routes = append(theirs.Routes, router.Route{Destination: netip.MustParsePrefix("10.244.2.0/24"), Gateway: netip.MustParseAddr("203.0.113.51")})
	answer, err = lab.Apply(t.Context(), whole(theirs, 1, 2, 1))
	b.must(err)
	if got := router.Reason(answer.GetRejection().GetReason()); got != router.ReasonRoute {
		t.Errorf("a route to another's address: %q", got)
	}
}
