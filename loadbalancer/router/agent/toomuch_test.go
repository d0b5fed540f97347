package agent

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/wire"
)

// TestTooMuch: ten times too many of anything is refused as a whole, in words, and what
// runs goes on.
func TestTooMuch(t *testing.T) {
	b := newBench(t)
	b.start()
	rpc := b.raw("lab")
	push := func(r *wire.ApplyRequest) *wire.Rejection {
		t.Helper()
		answer, err := rpc.Apply(t.Context(), r)
		b.must(err)
		return answer.GetRejection()
	}
	if got := push(whole(doc("lab", "203.0.113.100", 2), 0, 1, 1)); got != nil {
		t.Fatal(got)
	}
	next := func() *wire.ApplyRequest { return whole(doc("lab", "203.0.113.100", 3), 1, 2, 1) }
	for name, test := range map[string]struct {
		change func(*wire.ApplyRequest)
		want   string
	}{
		"members": {func(r *wire.ApplyRequest) {
			r.Groups[0].Members = slices.Repeat(r.Groups[0].Members, 10*router.MaxMembers)
		}, "10240 members, at most 1024"},
		"source ranges": {func(r *wire.ApplyRequest) {
			r.Frontends[0].SourceRanges = slices.Repeat([]*wire.Prefix{router.PrefixToWire(netip.MustParsePrefix("10.0.0.0/8"))}, 10*router.MaxSourceRanges)
		}, "10240 source ranges, at most 1024"},
		"routes": {func(r *wire.ApplyRequest) {
			r.Routes = slices.Repeat([]*wire.Route{{Destination: router.PrefixToWire(netip.MustParsePrefix("10.244.1.0/24")), Gateway: []byte{10, 20, 0, 11}}}, 10*router.MaxRoutes)
		}, "routes, at most 8192"},
		"groups": {func(r *wire.ApplyRequest) {
			r.Groups = slices.Repeat(r.Groups, 10*router.MaxGroups)
		}, "groups, at most 50000"},
		"frontends": {func(r *wire.ApplyRequest) {
			r.Frontends = slices.Repeat(r.Frontends[:1], router.MaxFrontends+1)
		}, "frontends, at most 200000"},
	} {
		for _, as := range []string{"whole", "difference"} {
			r := next()
			r.Whole = as == "whole"
			test.change(r)
			got := push(r)
			if router.Reason(got.GetReason()) != router.ReasonInvalid || !strings.Contains(got.GetMessage(), test.want) {
				t.Errorf("%s, %s: %s %q, want %q", name, as, got.GetReason(), got.GetMessage(), test.want)
			}
		}
	}
	r := next()
	r.Frontends[0].Service = strings.Repeat("x", router.MaxMessage)
	if _, err := rpc.Apply(t.Context(), r); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message that is too long: %v", err)
	}
	if got := b.size().Frontends; got != 2 {
		t.Errorf("%d frontends run, want the 2 from before", got)
	}
	if got := push(next()); got != nil {
		t.Errorf("afterwards: %v", got)
	}
}
