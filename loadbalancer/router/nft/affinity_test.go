package nft

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onelb/onelb/loadbalancer/router"
)

// healthyNodes says that only these nodes pass their checks.
func healthyNodes(numbers ...int) func(*Input) {
	up := map[netip.Addr]bool{}
	for _, n := range numbers {
		up[netip.MustParseAddr(nodes4[n-1])], up[netip.MustParseAddr(nodes6[n-1])] = true, true
	}
	return func(in *Input) { in.Healthy = func(_ router.Check, a netip.Addr) bool { return up[a] } }
}

// TestAffinity: a client keeps its node through changes of others, leaves it when
// it is dead, and does not come back by itself.
func TestAffinity(t *testing.T) {
	s := newStage(t)
	for _, node := range []string{"node-1", "node-2"} {
		s.serve(node, "tcp", 30080)
		s.serve(node, "udp", 30080)
	}
	d := stageDocument(func(f *router.Frontend) { f.Affinity = 3 * time.Hour }, 80)
	for _, network := range []string{"tcp", "udp"} {
		for _, a := range []netip.Addr{public4, public6} {
			t.Run(fmt.Sprintf("%s %s", network, a), func(t *testing.T) {
				s.t = t
				to := netip.AddrPortFrom(a, 80)
				s.apply(d, healthyNodes(1, 2))
				first, _ := s.asks("client", network, to)
				s.keeps(network, to, first)
				other, up := "node-1", healthyNodes(1)
				if first == "node-1" {
					other, up = "node-2", healthyNodes(2)
				}
				s.apply(d, up)
				s.keeps(network, to, other)
				s.apply(d, healthyNodes(1, 2))
				s.keeps(network, to, other) // not what the hash says
			})
		}
	}
	s.t = t
	if out := s.ruleset(); strings.Count(out, "timeout 3h") < 6 { // two rules and four elements
		t.Errorf("nft does not list what is remembered:\n%s", out)
	}
}

func (s *stage) keeps(network string, to netip.AddrPort, node string) {
	s.t.Helper()
	for range 8 {
		if got, _ := s.asks("client", network, to); got != node {
			s.t.Fatalf("%s answers, want %s\n%s", got, node, s.ruleset())
		}
	}
}

// TestAffinityEnds: a client that is silent for the timeout is forgotten, one that
// comes back in between is not.
func TestAffinityEnds(t *testing.T) {
	s := newStage(t)
	s.serve("node-1", "udp", 30080)
	s.serve("node-2", "udp", 30080)
	d := stageDocument(func(f *router.Frontend) { f.Affinity = time.Second }, 80)
	to := netip.AddrPortFrom(public4, 80)
	s.apply(d, healthyNodes(1, 2))
	hashed, _ := s.asks("client", "udp", to)
	s.apply(d, healthyNodes(3-int(hashed[len(hashed)-1]-'0')))
	other, _ := s.asks("client", "udp", to)
	if other == hashed {
		t.Fatalf("%s answers, which is dead", other)
	}
	s.apply(d, healthyNodes(1, 2))
	for end := time.Now().Add(patience); ; {
		time.Sleep(1500 * time.Millisecond)
		got, _ := s.asks("client", "udp", to)
		if got == hashed {
			return // it was forgotten and chosen anew
		}
		if time.Now().After(end) {
			t.Fatalf("the client is remembered after more than its second\n%s", s.ruleset())
		}
	}
}

// TestValueChains: chains come and go with the values that frontends have.
func TestValueChains(t *testing.T) {
	n := testNamespace(t)
	k := testKernel(t, n)
	for _, step := range []struct {
		affinity time.Duration
		limit    uint32
		want     string
	}{
		{0, 0, ""},
		{time.Hour, 5, "keep-3600 limit-5"},
		{time.Minute, 5, "keep-60 limit-5"},
		{time.Minute, 7, "keep-60 limit-7"},
		{0, 7, "limit-7"},
		{0, 0, ""},
	} {
		p := planOf(stageDocument(func(f *router.Frontend) { f.Affinity, f.MaxConnections = step.affinity, step.limit }, 80).Normalize())
		if err := k.Apply(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		verify(t, k, p)
		var got []string
		for line := range strings.Lines(nftList(t, n, "list", "table", "ip", "onelb")) {
			if name, ok := strings.CutPrefix(strings.TrimSpace(line), "chain "); ok && strings.Contains(name, "-") {
				got = append(got, strings.Fields(name)[0])
			}
		}
		slices.Sort(got)
		if strings.Join(got, " ") != step.want {
			t.Errorf("chains %v, want %s", got, step.want)
		}
		for _, damage := range []string{"add chain ip onelb keep-9", "add element ip onelb affine { 203.0.113.100 . tcp . 81 : accept }", "flush chain ip6 onelb limit-7"} {
			if strings.Contains(damage, "limit-7") && step.limit != 7 {
				continue
			}
			nftList(t, n, damage)
			if changed, err := k.Repair(t.Context()); err != nil || !changed {
				t.Errorf("%s: repaired %v, %v", damage, changed, err)
			}
			verify(t, k, p)
		}
	}
}
