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
	x.end(w.t)
	if now := w.holder(w.addrs[0]); now != before {
		w.t.Errorf("moved from %s to %s", before.ShortName(), now.ShortName())
	}
	w.quiet(x, before)
}

// quiet checks that the node, and nobody else, answered all the time. A few lost
// questions in a row may be the machine's; more are an outage.
func (w *world) quiet(x *watch, holder *lab.Node) {
	w.t.Helper()
	if others := x.Others(mac(holder)); len(others) > 0 {
		w.t.Errorf("%v answered, too", others)
	}
	if o := x.Outage(); o > noticeable {
		w.t.Errorf("nobody answered for %v", o)
	}
}

// noticeable is an outage that is none of the test machine.
const noticeable = 200 * time.Millisecond

// crash is an outage that the death of a node never makes, however busy the machine is.
const crash = 6 * time.Second

// both is how long a node's last answer may be on its way when the next one has
// begun to answer.
const both = 500 * time.Millisecond

func mac(n *lab.Node) string { return n.Link(lab.Private).MAC().String() }

// moved checks that another node has the address, that they did not both answer,
// that no third one ever did, and that it stays there.
func (w *world) moved(x *watch, before *lab.Node, limit time.Duration) *lab.Node {
	w.t.Helper()
	now := w.holder(w.addrs[0], before)
	time.Sleep(300 * time.Millisecond)
	x.end(w.t)
	if o := x.Outage(); o > limit {
		w.t.Errorf("nobody answered for %v", o)
	}
	if o, others := x.Overlap(mac(now), mac(before)), x.Others(mac(now), mac(before)); o > both || len(others) > 0 {
		w.t.Errorf("two answered for %v; others: %v", o, others)
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

// connect opens connections all the time, and counts those for which it took two attempts.
func (w *world) connect() *lab.Prober {
	requests := lab.Probe(w.t.Context(), 10*time.Millisecond, func(ctx context.Context) error {
		c, err := w.LAN().Knock(ctx, netip.AddrPortFrom(w.addrs[0], port))
		if err == nil {
			_ = c.Close()
		}
		return err
	})
	w.must(requests.WaitAnswer(w.t.Context()))
	return requests
}

// An agent whose DaemonSet is gone hands over what it holds when it is told to end.
func TestAgentRemoved(t *testing.T) {
	w := newWorld(t)
	before, x := w.holder(w.addrs[0]), w.watch(w.addrs[0])
	requests := w.connect()
	_, err := w.Kubectl(t.Context(), "delete", "daemonset", "-n", lab.SystemNamespace, "onelb-node", "--cascade=orphan")
	w.must(err)
	t.Cleanup(func() { w.must(w.ApplyManifests(context.Background())) })
	w.must(before.Agent().Stop())
	t.Cleanup(func() {
		if !before.Agent().Running() {
			w.must(before.Agent().Start())
		}
	})
	for _, a := range w.addrs {
		if now, err := w.alone(a); err != nil || now == before {
			t.Errorf("the agent has ended, and %s is not on another node: %v", a, err)
		}
	}
	w.moved(x, before, noticeable)
	r := requests.Stop()
	t.Logf("new connections: %v", r)
	if r.Failed > 0 {
		t.Error("new connections were lost")
	}
	w.must(before.Agent().Start())
	w.calm()
}

func TestDrain(t *testing.T) {
	w := newWorld(t)
	before, x := w.holder(w.addrs[0]), w.watch(w.addrs[0])
	requests := w.connect()
	_, err := w.Kubectl(t.Context(), "cordon", before.ShortName())
	w.must(err)
	t.Cleanup(func() {
		_, err := w.Kubectl(context.Background(), "uncordon", before.ShortName())
		w.must(err)
	})
	w.moved(x, before, noticeable)
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
	x.end(t)
	if o := x.Outage(); o > crash {
		t.Errorf("nobody answered for %v", o)
	}
	w.must(before.PowerOn(t.Context()))
	now := w.holder(w.addrs[0], before)
	x = w.watch(w.addrs[0])
	w.calm()
	time.Sleep(2 * time.Second)
	w.unmoved(x, now)
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
	w.quiet(x, before)
	w.must(before.Link(lab.Private).Cut())
	t.Cleanup(func() { w.must(before.Link(lab.Private).Clear()) })
	w.eventually("another node answers", func() error { return x.otherThan(before) })
	x.end(t)
	if o := x.Outage(); o > crash {
		t.Errorf("nobody answered for %v", o)
	}
	w.must(before.Link(lab.Private).Heal())
	now := w.holder(w.addrs[0])
	w.must(w.StartAPIServer(t.Context()))
	w.calm()
	w.known(w.addrs[0], now)
}
