package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/onelb/onelb/loadbalancer/router"
)

// TestTwoInstances: a document counts when every instance that can be reached has
// it, and one that returns gets it too.
func TestTwoInstances(t *testing.T) {
	a, b := newBench(t), newBench(t)
	for _, name := range []string{"ca.crt", "router.crt", "router.key"} { // one authority, one router
		copyFile(t, a.path(name), b.path(name))
	}
	a.start()
	b.start()
	b.stop()
	c := a.client("lab", 1, func(o *router.ClientOptions) { o.Endpoints = []string{a.addr, b.addr} })
	g := c.Set(doc("lab", "203.0.113.100", 2))
	a.must(a.wait(c, g))
	s := c.State()
	if !s.Instances[0].Current || s.Instances[1].Reachable || s.Instances[1].Err == nil {
		t.Errorf("state %+v", s)
	}
	b.start()
	a.eventually("the second instance has it too", func() bool { return b.size().Frontends == 2 && c.State().Instances[1].Current })
	g = c.Set(doc("lab", "203.0.113.100", 7))
	a.must(a.wait(c, g))
	if a.size().Frontends != 7 || b.size().Frontends != 7 {
		t.Errorf("kernels have %+v and %+v", a.size(), b.size())
	}
	// Both gone: every endpoint is named.
	a.stop()
	b.stop()
	a.eventually("unreachable", func() bool { i := c.State().Instances; return !i[0].Reachable && !i[1].Reachable })
	err := a.wait(c, c.Set(doc("lab", "203.0.113.100", 1)))
	if !errors.Is(err, router.ErrUnreachable) || !strings.Contains(err.Error(), a.addr) || !strings.Contains(err.Error(), b.addr) {
		t.Errorf("error %v", err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestManyEdits: edits in a hurry all arrive in the last document, whatever was skipped.
func TestManyEdits(t *testing.T) {
	b := newBench(t)
	b.start()
	c := b.client("lab", 1)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 25 {
				g := c.Set(doc("lab", "203.0.113.100", 1+(w*25+i)%90))
				if i%5 == 0 {
					if err := b.wait(c, g); err != nil {
						t.Errorf("generation %d: %v", g, err)
					}
				}
			}
		})
	}
	wg.Wait()
	b.must(b.wait(c, c.Set(doc("lab", "203.0.113.100", 42))))
	if got := b.size(); got.Frontends != 42 {
		t.Errorf("kernel has %+v", got)
	}
}

// TestRejectedThenGood: a refused document is told once and does not stand in the way.
func TestRejectedThenGood(t *testing.T) {
	b := newBench(t)
	b.start()
	c := b.client("lab", 1)
	bad := doc("lab", "203.0.113.100", 1)
	bad.Frontends[0].Group = "none"
	g := c.Set(bad)
	var rejected *router.RejectedError
	if err := b.wait(c, g); !errors.As(err, &rejected) || rejected.Reason != router.ReasonInvalid || rejected.Service != "default/s0" ||
		rejected.Frontend != "203.0.113.100:1/TCP" || rejected.Router != "edge" || rejected.Endpoint != b.addr {
		t.Errorf("error %#v", err)
	}
	b.must(b.wait(c, c.Set(doc("lab", "203.0.113.100", 1))))
	if i := c.State().Instances[0]; i.Err != nil {
		t.Errorf("the refusal stays in the state: %v", i.Err)
	}
}

// TestOnState: the newest state is told.
func TestOnState(t *testing.T) {
	b := newBench(t)
	b.start()
	states := make(chan router.State, 100)
	c := b.client("lab", 1, func(o *router.ClientOptions) { o.OnState = func(s router.State) { states <- s } })
	g := c.Set(doc("lab", "203.0.113.100", 1))
	deadline := time.After(2 * time.Minute)
	for {
		select {
		case s := <-states:
			if i := s.Instances[0]; s.Generation >= g && i.Current && i.Master {
				return
			}
		case <-deadline:
			t.Fatal("never told")
		}
	}
}

func TestClientEnds(t *testing.T) {
	b := newBench(t)
	c, err := router.NewClient(router.ClientOptions{
		Router: "edge", Endpoints: []string{"127.0.0.1:1"}, CAFile: b.path("ca.crt"), CertFile: b.path("lab.crt"), KeyFile: b.path("lab.key"), Cluster: "lab",
	})
	b.must(err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b.must(c.Run(ctx))
	if err := c.Wait(t.Context(), 1); !errors.Is(err, router.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

func TestClientRefusesOptions(t *testing.T) {
	good := router.ClientOptions{Router: "edge", Endpoints: []string{"a:1"}, CAFile: "a", CertFile: "b", KeyFile: "c", Cluster: "lab"}
	for i, change := range []func(*router.ClientOptions){
		func(o *router.ClientOptions) { o.Router = "" }, func(o *router.ClientOptions) { o.Endpoints = nil },
		func(o *router.ClientOptions) { o.Endpoints = []string{"a"} }, func(o *router.ClientOptions) { o.CAFile = "" },
		func(o *router.ClientOptions) { o.Cluster = "A" },
	} {
		o := good
		change(&o)
		if _, err := router.NewClient(o); err == nil {
			t.Errorf("case %d is taken: %s", i, fmt.Sprint(o.Endpoints))
		}
	}
}
