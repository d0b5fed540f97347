package bgp

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// Routes are taken back also when nothing can be announced.
func TestWithdrawalsNeedNoPolicy(t *testing.T) {
	s := stepped(t, false)
	d := desired(nobody(1))
	for _, p := range []string{"203.0.113.7/32", "203.0.113.8/32"} {
		d.Routes = append(d.Routes, Route{netip.MustParsePrefix(p), &Attributes{}})
	}
	must(t, s.follow(t.Context(), d))
	bad := nobody(2)
	bad.Address = netip.Addr{} // for which there is no policy
	after := desired(nobody(1), bad)
	after.Routes = slices.Clone(d.Routes[1:])
	if err := s.follow(t.Context(), after); err == nil {
		t.Error("the policy is taken")
	}
	if got := s.running.announced(); len(got) != 1 || got[0].Prefix != d.Routes[1].Prefix {
		t.Errorf("%v", got)
	}
}

// A peer that cannot be edited is begun anew.
func TestPeerThatCannotBeEdited(t *testing.T) {
	s := stepped(t, false)
	p := nobody(1)
	must(t, s.follow(t.Context(), desired(p)))
	must(t, s.running.server.DeletePeer(t.Context(), &api.DeletePeerRequest{Address: p.Address.String()}))
	p.HoldTime = 30 * time.Second
	if err := s.follow(t.Context(), desired(p)); err == nil {
		t.Fatal("it could be edited")
	}
	must(t, s.follow(t.Context(), desired(p)))
	var hold []uint64
	must(t, s.running.server.ListPeer(t.Context(), &api.ListPeerRequest{}, func(p *api.Peer) {
		hold = append(hold, p.GetTimers().GetConfig().GetHoldTime())
	}))
	if !slices.Equal(hold, []uint64{30}) {
		t.Errorf("hold times %v", hold)
	}
}

// A peer that is removed has no metrics, and a speaker that has left has none at all.
func TestMetricsOfRemovedPeers(t *testing.T) {
	s := stepped(t, false)
	count := func(what string, want int) {
		t.Helper()
		if up, breaks := testutil.CollectAndCount(s.o.Metrics.up), testutil.CollectAndCount(s.o.Metrics.breaks); up != want || breaks != want {
			t.Errorf("%s: %d sessions, %d that count breaks, want %d", what, up, breaks, want)
		}
	}
	s.Set(desired(nobody(1), nobody(2)))
	s.step(t.Context())
	count("two peers", 2)
	s.Set(desired(nobody(2)))
	s.step(t.Context())
	count("one is removed", 1)
	s.leave(t.Context())
	s.step(t.Context())
	count("left", 0)
}
