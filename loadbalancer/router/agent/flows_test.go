package agent

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/health"
)

// TestForgetFollowsRules: connections to a backend that fails are forgotten when the rules
// lead there no more, and not by a change in between.
func TestForgetFollowsRules(t *testing.T) {
	b := newBench(t)
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	b.dial = func(ctx context.Context, _, address string) (net.Conn, error) {
		if !strings.HasPrefix(address, "10.20.0.11:") {
			return nil, errors.New("backend is off")
		}
		return (&net.Dialer{}).DialContext(ctx, "tcp", server.Listener.Addr().String())
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	b.must(err)
	defer func() { _ = l.Close() }()
	a, err := New(b.options(l))
	b.must(err)
	a.role.set(true)
	d := doc("lab", "203.0.113.100", 2)
	d.Groups[0].Check = &router.Check{Port: 10256, Path: "/healthz"}
	d.Groups[0].Members = append(d.Groups[0].Members, router.Member{Address: netip.MustParseAddr("10.20.0.12"), Node: "node-2"})
	d.Frontends[0].Protocol, d.Frontends[1].Protocol = router.UDP, router.UDP
	d = d.Normalize()
	d.Generation = 1
	old := newOwned(accepted(t, d))
	a.state["lab"] = old
	b.must(a.program(t.Context()))
	flow := Flow{Frontend: d.Frontends[0].Key(), Backend: netip.MustParseAddrPort("10.20.0.12:30000")}
	b.kernel.flows = []Flow{flow}

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.health.Run(ctx) }()
	b.eventually("one of two fails", func() bool {
		states := map[health.State]int{}
		for _, r := range a.health.Snapshot() {
			states[r.State]++
		}
		return states[health.Healthy] == 1 && states[health.Unhealthy] == 1
	})
	delta := router.Delta{RemovedFrontends: []router.Key{d.Frontends[1].Key()}}
	after, err := old.doc.Edit(delta)
	b.must(err)
	plans := b.kernel.whole
	b.must(a.enforce(t.Context(), old, step{doc: after, delta: &delta, changed: true}))
	if b.kernel.whole != plans {
		t.Error("the change was no edit")
	}
	if !slices.Equal(b.kernel.flows, []Flow{flow}) {
		t.Errorf("flows %v while the rules lead there", b.kernel.flows)
	}
	b.must(a.program(t.Context()))
	if len(b.kernel.flows) > 0 {
		t.Errorf("flows %v when the rules do not lead there", b.kernel.flows)
	}
	cancel()
	b.must(<-done)
	server.CloseClientConnections()
}

// TestForgetRouted: what stood while an address was translated goes when it is routed, and
// the other way round.
func TestForgetRouted(t *testing.T) {
	b := newBench(t)
	b.start()
	c := b.client("lab", 1)
	routed, translated := routedDoc("203.0.113.100", "10.20.0.11"), doc("lab", "203.0.113.100", 1)
	routed.Frontends[0].Protocol, translated.Frontends[0].Protocol = router.UDP, router.UDP
	key := routed.Frontends[0].Key()
	direct := Flow{Frontend: key, Backend: netip.AddrPortFrom(key.Address, key.Port)}
	through := Flow{Frontend: key, Backend: netip.MustParseAddrPort("10.20.0.11:30000")}
	for i, step := range []struct {
		doc  router.Document
		left []Flow
	}{{routed, []Flow{direct, through}}, {translated, []Flow{through}}, {routed, []Flow{direct}}} {
		b.kernel.mu.Lock()
		b.kernel.flows = []Flow{direct, through}
		b.kernel.mu.Unlock()
		b.must(b.wait(c, c.Set(step.doc)))
		b.kernel.mu.Lock()
		if !slices.Equal(b.kernel.flows, step.left) {
			t.Errorf("step %d: flows %v, want %v", i, b.kernel.flows, step.left)
		}
		b.kernel.mu.Unlock()
	}
}
