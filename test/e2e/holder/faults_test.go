package holder_test

import (
	"context"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/onelb/onelb/test/lab"
)

// unmoved checks that the same node has the address and that it always answered.
// Two lost questions in a row may be the machine's; more are an outage.
func (w *world) unmoved(x *watch, before *lab.Node) {
	w.t.Helper()
	r, changes := x.end(w.t)
	if now := w.holder(w.addrs[0]); now != before {
		w.t.Errorf("moved from %s to %s", before.ShortName(), now.ShortName())
	}
	if changes > 0 || r.Longest.Duration > 150*time.Millisecond {
		w.t.Error("somebody else answered, or nobody")
	}
}

// moved checks that another node has the address, that it never had two, and that
// it stays there.
func (w *world) moved(x *watch, before *lab.Node, limit time.Duration) *lab.Node {
	w.t.Helper()
	now := w.holder(w.addrs[0], before)
	time.Sleep(300 * time.Millisecond)
	r, changes := x.end(w.t)
	if changes != 1 || r.Longest.Duration > limit {
		w.t.Errorf("two answered at once, it moved twice, or nobody answered for more than %v", limit)
	}
	w.known(w.addrs[0], now)
	return now
}

func TestRollingRestart(t *testing.T) {
	w := newWorld(t)
	before, x := w.holder(w.addrs[0]), w.watch(w.addrs[0])
	for _, n := range w.Nodes() {
		w.must(n.Agent().Restart())
		w.calm()
	}
	w.unmoved(x, before)
}

func TestAgentKilledAndRestarted(t *testing.T) {
	w := newWorld(t)
	before, x := w.holder(w.addrs[0]), w.watch(w.addrs[0])
	w.must(before.Agent().Kill())
	time.Sleep(time.Second) // its supervisor's pause
	w.must(before.Agent().Start())
	w.calm()
	time.Sleep(3 * time.Second)
	w.unmoved(x, before)
}

func TestAgentGoneForGood(t *testing.T) {
	for what, end := range map[string]func(*lab.Node) error{
		"SIGKILL": func(n *lab.Node) error { return n.Agent().Kill() },
		"SIGTERM": func(n *lab.Node) error { return n.Agent().Stop() },
		"SIGSTOP": func(n *lab.Node) error { return n.Agent().Signal(syscall.SIGSTOP) },
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			before, x := w.holder(w.addrs[0]), w.watch(w.addrs[0])
			w.must(end(before))
			now := w.moved(x, before, time.Second)
			x = w.watch(w.addrs[0])
			if what == "SIGSTOP" {
				w.must(before.Agent().Signal(syscall.SIGCONT))
			} else {
				w.must(before.Agent().Start())
			}
			w.calm()
			time.Sleep(time.Second)
			w.unmoved(x, now)
		})
	}
}

func TestDrain(t *testing.T) {
	w := newWorld(t)
	before, x := w.holder(w.addrs[0]), w.watch(w.addrs[0])
	requests := lab.Probe(t.Context(), 10*time.Millisecond, func(ctx context.Context) error {
		c, err := w.LAN().DialContext(ctx, "tcp", netip.AddrPortFrom(w.addrs[0], port).String())
		if err == nil {
			_ = c.Close()
		}
		return err
	})
	w.must(requests.WaitAnswer(t.Context()))
	_, err := w.Kubectl(t.Context(), "cordon", before.ShortName())
	w.must(err)
	t.Cleanup(func() {
		_, err := w.Kubectl(context.Background(), "uncordon", before.ShortName())
		w.must(err)
	})
	w.moved(x, before, 150*time.Millisecond)
	r := requests.Stop()
	t.Logf("new connections: %v", r)
	if r.Failed > 0 {
		t.Error("new connections were lost")
	}
	for _, a := range w.addrs {
		w.holder(a, before)
	}
}

func TestPowerOffAndReturn(t *testing.T) {
	w := newWorld(t)
	before, x := w.holder(w.addrs[0]), w.watch(w.addrs[0])
	w.must(before.PowerOff())
	w.eventually("another node answers", func() error { return x.otherThan(before) })
	if r, changes := x.end(t); r.Longest.Duration > 3*time.Second || changes != 1 {
		t.Error("late, or two answered")
	}
	w.must(before.PowerOn(t.Context()))
	now := w.holder(w.addrs[0], before)
	x = w.watch(w.addrs[0])
	w.calm()
	time.Sleep(2 * time.Second)
	w.unmoved(x, now)
}

func (x *watch) otherThan(n *lab.Node) error {
	if got := x.last.Load(); got == n.Link(lab.Private).MAC().String() || got == "" {
		return errNobody
	}
	return nil
}

func TestFailoverWithoutAPIServer(t *testing.T) {
	w := newWorld(t)
	before, x := w.holder(w.addrs[0]), w.watch(w.addrs[0])
	w.must(w.StopAPIServer())
	for _, n := range w.Nodes() { // they work from what they kept on disk
		w.must(n.Agent().Restart())
		w.calm()
	}
	time.Sleep(3 * time.Second) // until they no longer wait for it
	if r, changes := x.Result(), x.changes(); changes > 0 || r.Longest.Duration > 150*time.Millisecond {
		t.Errorf("restarts without the API server: %v, %d changes", r, changes)
	}
	w.must(before.Link(lab.Private).Cut())
	t.Cleanup(func() { w.must(before.Link(lab.Private).Clear()) })
	w.eventually("another node answers", func() error { return x.otherThan(before) })
	if r, _ := x.end(t); r.Longest.Duration > 3*time.Second {
		t.Error("late")
	}
	w.must(before.Link(lab.Private).Heal())
	now := w.holder(w.addrs[0])
	w.must(w.StartAPIServer(t.Context()))
	w.calm()
	w.known(w.addrs[0], now)
}
