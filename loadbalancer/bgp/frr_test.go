package bgp

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/onelb/onelb/test/lab/bgprouter"
)

// seen is a route as FRR has it.
type seen struct {
	Paths []struct {
		Valid     bool
		Stale     bool
		Multipath bool
		Med       *int `json:"metric"`
		LocPrf    *int `json:"locPrf"`
		Community struct{ String string }
		Large     struct{ String string } `json:"largeCommunity"`
		ASPath    struct{ String string } `json:"aspath"`
		Nexthops  []struct {
			IP    string
			Scope string
		}
		Peer struct {
			PeerID string `json:"peerId"`
		}
	}
}

// route asks FRR for a prefix.
func route(t *testing.T, f *bgprouter.FRR, prefix string) seen {
	t.Helper()
	family := "ipv4"
	if strings.Contains(prefix, ":") {
		family = "ipv6"
	}
	var s seen
	must(t, f.ShowJSON(t.Context(), fmt.Sprintf("show bgp %s unicast %s json", family, prefix), &s))
	return s
}

func (s seen) hops() []string {
	var out []string
	for _, p := range s.Paths {
		for _, h := range p.Nexthops {
			if h.Scope != "link-local" && p.Valid {
				out = append(out, h.IP)
			}
		}
	}
	slices.Sort(out)
	return out
}

// hops waits until FRR has the prefix over exactly these.
func hops(t *testing.T, f *bgprouter.FRR, prefix string, want ...string) {
	t.Helper()
	slices.Sort(want)
	eventually(t, "the router has "+prefix, func() string {
		if s := route(t, f, prefix); !slices.Equal(s.hops(), want) {
			return fmt.Sprintf("%+v, want %v", s, want)
		}
		return ""
	})
}

func TestRoutesOfThreeNodes(t *testing.T) {
	if atOnce < len(nodes4) {
		t.Skip("the race detector finds what the library's servers share; test/e2e/bgp has a process for each node")
	}
	f := frr(t)
	plain := &Attributes{}
	var all []*node
	for i := range nodes4 {
		n := newNode(i)
		n.routes(plain, "203.0.113.7/32", "2001:db8::7/128")
		all = append(all, n.start(t, false))
	}
	hops(t, f, "203.0.113.7/32", "10.79.0.11", "10.79.0.12", "10.79.0.13")
	hops(t, f, "2001:db8::7/128", "fd00:79::11", "fd00:79::12", "fd00:79::13")
	s := route(t, f, "203.0.113.7/32")
	if p := s.Paths[0]; p.ASPath.String != "65001" || p.Community.String != "" || p.Large.String != "" {
		t.Errorf("%+v", p)
	}
	all[1].routes(plain, "2001:db8::7/128")
	hops(t, f, "203.0.113.7/32", "10.79.0.11", "10.79.0.13")
	hops(t, f, "2001:db8::7/128", "fd00:79::11", "fd00:79::12", "fd00:79::13")
	all[1].routes(plain, "203.0.113.7/32", "203.0.113.8/32")
	hops(t, f, "203.0.113.7/32", "10.79.0.11", "10.79.0.12", "10.79.0.13")
	hops(t, f, "203.0.113.8/32", "10.79.0.12")
	hops(t, f, "2001:db8::7/128", "fd00:79::11", "fd00:79::13")
}
