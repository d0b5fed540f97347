package agent

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/onelb/onelb/loadbalancer/router"
)

// standing is a role that a test sets.
type standing struct {
	mu     sync.Mutex
	master bool
	told   func(bool)
}

func (s *standing) Run(ctx context.Context, changed func(bool)) error {
	s.mu.Lock()
	s.told = changed
	changed(s.master)
	s.mu.Unlock()
	<-ctx.Done()
	return nil
}

func (s *standing) become(master bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.master = master; s.told != nil {
		s.told(master)
	}
}

// TestMasterAway: while the agent of the master is away and no other instance takes
// over, nothing counts as done, and it is told.
func TestMasterAway(t *testing.T) {
	a, b := newBench(t), newBench(t)
	for _, name := range []string{"ca.crt", "router.crt", "router.key"} {
		copyFile(t, a.path(name), b.path(name))
	}
	first, second := &standing{master: true}, &standing{}
	a.role, b.role = first, second
	a.start()
	b.start()
	c := a.client("lab", 1, func(o *router.ClientOptions) { o.Endpoints = []string{a.addr, b.addr} })
	a.must(a.wait(c, c.Set(doc("lab", "203.0.113.100", 1))))
	if meaning, _ := c.State().MasterProblem(); meaning != "" {
		t.Errorf("with one master: %q", meaning)
	}

	a.stop()
	a.eventually("it is told", func() bool {
		meaning, wayOut := c.State().MasterProblem()
		return strings.Contains(meaning, a.addr+", which was, does not answer") && strings.Contains(wayOut, "start onelb-router there")
	})
	g := c.Set(doc("lab", "203.0.113.100", 2))
	a.eventually("the other instance has it", func() bool { return b.size().Frontends == 2 })
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := c.Wait(ctx, g); !errors.Is(err, router.ErrNoMaster) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a master Wait gives %v", err)
	}
	if got := c.State().Instances[0]; got.Master || !got.WasMaster {
		t.Errorf("the lost instance: %+v", got)
	}

	second.become(true)
	a.must(a.wait(c, g))
	if meaning, _ := c.State().MasterProblem(); meaning != "" {
		t.Errorf("after the takeover: %q", meaning)
	}
	a.start() // it is still the master in its own eyes
	a.eventually("two masters are told", func() bool {
		meaning, _ := c.State().MasterProblem()
		return strings.Contains(meaning, "2 instances are master")
	})
	first.become(false)
	a.eventually("it is well again", func() bool { meaning, _ := c.State().MasterProblem(); return meaning == "" })
	first.become(true)
	second.become(false)
	a.eventually("it has moved back", func() bool { return c.State().Instances[0].Master && !c.State().Instances[1].Master })
	second.become(false)
	first.become(false)
	a.eventually("none is master", func() bool {
		meaning, _ := c.State().MasterProblem()
		return strings.Contains(meaning, "no instance is master: nobody answers")
	})
}
