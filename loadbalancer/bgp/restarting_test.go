package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/klog/v2"
)

// stepped is a Speaker whose steps are the test's.
func stepped(t *testing.T, restarting bool) *Speaker {
	t.Helper()
	m, err := NewMetrics(prometheus.NewRegistry())
	must(t, err)
	s, err := New(Options{Restarting: restarting, Metrics: m})
	must(t, err)
	s.logger, s.since = klog.Background(), time.Now()
	t.Cleanup(func() { s.stop(context.WithoutCancel(t.Context()), false) })
	return s
}

// nobody is a peer that does not answer.
func nobody(i byte) Peer {
	return Peer{
		Name: fmt.Sprintf("peer-%d", i), Address: netip.AddrFrom4([4]byte{127, 0, 79, i}), Port: 9, ASN: 64512, HoldTime: 90 * time.Second,
		KeepaliveTime: 30 * time.Second, ConnectRetryTime: time.Minute, RestartTime: 2 * time.Minute, IPv4: true,
	}
}

func desired(peers ...Peer) *Desired {
	return &Desired{Global: Global{ASN: 65001, RouterID: nodes4[0]}, Peers: peers}
}

// announcesRestart are the peers that hear that the speaker was there before.
func announcesRestart(t *testing.T, s *Speaker) (out []string) {
	t.Helper()
	must(t, s.running.server.ListPeer(t.Context(), &api.ListPeerRequest{}, func(p *api.Peer) {
		if p.GetGracefulRestart().GetLocalRestarting() {
			out = append(out, p.GetConf().GetDescription())
		}
	}))
	slices.Sort(out)
	return out
}

// Each peer hears of a restart once, also one that is found later than the others.
func TestEachPeerHearsOfTheRestart(t *testing.T) {
	s := stepped(t, true)
	one, two, late := nobody(1), nobody(2), nobody(2)
	late.Problem = "no router is heard"
	follow := func(d *Desired, want ...string) {
		t.Helper()
		must(t, s.follow(t.Context(), d))
		if got := announcesRestart(t, s); !slices.Equal(got, want) {
			t.Errorf("%v hear of a restart, want %v", got, want)
		}
	}
	follow(desired(one, late), "peer-1")
	follow(desired(late))
	follow(desired(one, late)) // it had a session meanwhile
	follow(desired(one, two), "peer-2")
	if s.restarting {
		t.Error("it restarts for ever")
	}
	follow(desired(one, two, nobody(3)), "peer-2")
}

// A peer that is not found while it would keep routes is none to restart for.
func TestRestartEnds(t *testing.T) {
	late := nobody(1)
	late.Problem = "no router is heard"
	d := desired(late, nobody(2))
	if !waits(d, time.Minute) || waits(d, 2*time.Minute) || waits(desired(nobody(1)), 0) {
		t.Error(waits(d, time.Minute), waits(d, 2*time.Minute))
	}
}
