package bgp

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/onelb/onelb/test/lab/bgprouter"
)

// BFD of these tests: slow enough that a busy machine is no silent peer, and unheard is
// longer than it takes to find one.
const (
	slowBFD = "bfd 8 500 500"
	unheard = 6 * time.Second
)

// withBFD makes the node's session one with BFD.
func withBFD(n *node) *node {
	n.desired.Peers[0].BFDInterval, n.desired.Peers[0].BFDMultiplier = 500*time.Millisecond, 8
	n.routes(&Attributes{}, "203.0.113.7/32")
	return n
}

func (n *node) bfdUp() {
	n.t.Helper()
	eventually(n.t, "BFD is up", func() string {
		if s := n.session(); s.BFD != "Up" || !s.Up() {
			return fmt.Sprintf("%+v", s)
		}
		return ""
	})
}

// keeps looks at a route for longer than BFD needs to find that nobody is there.
func keeps(t *testing.T, has func() error) {
	t.Helper()
	for end := time.Now().Add(unheard); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		must(t, has())
	}
}

func frrHas(t *testing.T, f *bgprouter.FRR) func() error {
	return func() error {
		if s := route(t, f, "203.0.113.7/32"); len(s.Paths) != 1 || !s.Paths[0].Valid {
			return fmt.Errorf("the route is lost: %+v", s)
		}
		return nil
	}
}

// TestRestartWithBFD: the agent has FRR hold the BFD session before it ends, so that the
// restart is no failure.
func TestRestartWithBFD(t *testing.T) {
	f := frr(t, slowBFD)
	n := withBFD(newNode(0)).start(t, false)
	hops(t, f, "203.0.113.7/32", "10.79.0.11")
	n.bfdUp()
	n.stop()
	keeps(t, frrHas(t, f))
	n.start(t, true)
	eventually(t, "the session is back, and the route never lost", func() string {
		must(t, frrHas(t, f)())
		if s := n.session(); !s.Up() || s.BFD != "Up" || route(t, f, "203.0.113.7/32").Paths[0].Stale {
			return fmt.Sprintf("%+v", s)
		}
		return ""
	})
	keeps(t, frrHas(t, f))
}

// TestRestartWithBFDAndBIRD is the same with the other router.
func TestRestartWithBFDAndBIRD(t *testing.T) {
	b := bird(t, 64512)
	n := withBFD(newNode(0))
	n.desired.Peers[0].Password = "swordfish"
	n.start(t, false)
	n.bfdUp()
	shows(t, b, "show route for 203.0.113.7/32 all", "BGP.next_hop: 10.79.0.11")
	has := birdHas(t, b)
	n.stop()
	keeps(t, has)
	n.start(t, true)
	eventually(t, "the session is back, and the route never lost", func() string {
		must(t, has())
		if s := n.session(); !s.Up() || s.BFD != "Up" {
			return fmt.Sprintf("%+v", s)
		}
		return ""
	})
}

func birdHas(t *testing.T, b *bgprouter.BIRD) func() error {
	return func() error {
		got, err := b.Show(t.Context(), "show route for 203.0.113.7/32 all")
		if err == nil && !strings.Contains(got, "BGP.next_hop: 10.79.0.11") {
			err = fmt.Errorf("the route is lost: %s", got)
		}
		return err
	}
}

// crashing makes the test's program a speaker that ends when it is killed.
const crashing = "ONELB_BGP_TEST_CRASHING"

func speakUntilKilled() int {
	m, err := NewMetrics(prometheus.NewRegistry())
	if err == nil {
		var s *Speaker
		if s, err = New(Options{Metrics: m}); err == nil {
			n := withBFD(newNode(0))
			n.speaker = s
			n.set()
			err = s.Run(context.Background())
		}
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// TestCrashWithBFD: an agent that is killed says nothing, and its BFD dies with it. A
// router that is told to heed the bit "control plane independent", which is not set,
// keeps the routes for the restart time all the same.
func TestCrashWithBFD(t *testing.T) {
	f := frr(t, slowBFD, "bfd check-control-plane-failure")
	must(t, f.Configure(t.Context(), "router bgp 64512", "bgp graceful-restart"))
	ctx, cancel := context.WithCancel(t.Context())
	agent := exec.CommandContext(ctx, os.Args[0])
	agent.Env, agent.Stderr = append(os.Environ(), crashing+"=1"), os.Stderr
	must(t, agent.Start())
	t.Cleanup(func() { cancel(); _ = agent.Wait() })
	eventually(t, "BFD is up", func() string {
		var all map[string]struct {
			State string                  `json:"bgpState"`
			BFD   struct{ Status string } `json:"peerBfdInfo"`
		}
		must(t, f.ShowJSON(t.Context(), "show bgp neighbors 10.79.0.11 json", &all))
		if a := all["10.79.0.11"]; a.State != "Established" || a.BFD.Status != "Up" {
			return fmt.Sprintf("%+v", all)
		}
		return ""
	})
	hops(t, f, "203.0.113.7/32", "10.79.0.11")
	must(t, agent.Process.Kill())
	keeps(t, frrHas(t, f))
	n := withBFD(newNode(0)).start(t, true)
	n.bfdUp()
	must(t, frrHas(t, f)())
}
