package holder_test

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/onelb/onelb/test/lab"
)

// healed is how long two may answer after a partition has healed: until both sides
// have noticed, on a machine that does other things as well.
const healed = 10 * time.Second

// While apart, each side has a holder; afterwards the one whose claim is older
// yields.
func TestPartitionAndHeal(t *testing.T) {
	w := newWorld(t)
	before := w.holder(w.addrs[0])
	other := w.Nodes()[0]
	if other == before {
		other = w.Nodes()[1]
	}
	for name, alone := range map[string]*lab.Node{"the holder is cut off": before, "another node is cut off": other} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			before, x := w.holder(w.addrs[0]), w.watch(w.addrs[0])
			t.Cleanup(func() { w.must(w.Partition(lab.Private)) })
			w.must(w.Partition(lab.Private, []string{alone.ShortName()}))
			w.eventually("both sides have a holder", func() error { return w.apart(x, alone) })
			for range 20 { // and keep it
				time.Sleep(100 * time.Millisecond)
				if err := w.apart(x, alone); err != nil {
					t.Fatal(err)
				}
			}
			larger := x.Last()
			w.must(w.Partition(lab.Private))
			at := time.Now()
			w.calm()
			now := w.holder(w.addrs[0])
			time.Sleep(time.Second)
			x.end(t)
			if mac(now) != larger {
				t.Errorf("%s has it, not the one on the larger side", now.ShortName())
			}
			if last := x.DualUntil(); last.Sub(at) > healed {
				t.Errorf("two answered until %v after the heal", last.Sub(at))
			} else if last.After(at) {
				t.Logf("two answered until %v after the heal", last.Sub(at))
			}
			if before != alone && now != before {
				t.Errorf("it moved from %s to %s, although the holder was on the larger side", before.ShortName(), now.ShortName())
			}
			w.known(w.addrs[0], now)
		})
	}
}

// apart checks that the node that is alone has the address, and one of the others,
// which answers the LAN's client.
func (w *world) apart(x *watch, alone *lab.Node) error {
	all := w.holders(w.addrs[0])
	if len(all) != 2 || !slices.Contains(all, alone) {
		return fmt.Errorf("%d nodes hold it", len(all))
	}
	return x.otherThan(alone)
}

// A node whose link comes and goes: its addresses go elsewhere and stay there.
func TestFlapping(t *testing.T) {
	w := newWorld(t)
	first, x := w.holder(w.addrs[0]), w.watch(w.addrs[0])
	link := first.Link(lab.Private)
	t.Cleanup(func() { w.must(link.Clear()) })
	for end := time.Now().Add(lasting(18*time.Second, 5*time.Minute)); time.Now().Before(end); {
		w.must(link.Cut())
		time.Sleep(3 * time.Second)
		w.must(link.Heal())
		time.Sleep(3 * time.Second)
	}
	w.calm()
	x.end(t)
	if n, known := x.Moves(), x.record.Moves(); n > 3 || known > 3 {
		t.Errorf("%d moves, %d known to the API server", n, known)
	}
	w.holder(w.addrs[0], first)
}

// The holder's link delays and loses: the address may move away, once.
func TestDelayAndLoss(t *testing.T) {
	w := newWorld(t)
	before, x := w.holder(w.addrs[0]), w.watch(w.addrs[0])
	link := before.Link(lab.Private)
	t.Cleanup(func() { w.must(link.Clear()) })
	w.must(link.Delay(200*time.Millisecond, 100*time.Millisecond))
	w.must(link.Drop(10))
	time.Sleep(20 * time.Second)
	early, known := x.Moves(), x.record.Moves()
	time.Sleep(lasting(5*time.Second, 9*time.Minute+40*time.Second))
	late, lateKnown := x.Moves(), x.record.Moves()
	w.must(link.Clear())
	w.calm()
	x.end(t)
	if early > 1 || known > 1 || late > early || lateKnown > known {
		t.Errorf("%d moves in the first 20 s, %d known to the API server; then %d and %d", early, known, late-early, lateKnown-known)
	}
}

// An agent that gets too little of the processor: its kernel answers, so nothing
// moves.
func TestStarvedAgent(t *testing.T) {
	for _, c := range []struct{ run, stand time.Duration }{
		{600 * time.Millisecond, 400 * time.Millisecond},
		{500 * time.Millisecond, 1500 * time.Millisecond},
	} {
		t.Run(fmt.Sprintf("stands %v", c.stand), func(t *testing.T) {
			w := newWorld(t)
			before, x := w.holder(w.addrs[0]), w.watch(w.addrs[0])
			t.Cleanup(func() { w.must(before.Agent().Signal(syscall.SIGCONT)) })
			for end := time.Now().Add(lasting(10*time.Second, 10*time.Minute)); time.Now().Before(end); {
				w.must(before.Agent().Signal(syscall.SIGSTOP))
				time.Sleep(c.stand)
				w.must(before.Agent().Signal(syscall.SIGCONT))
				time.Sleep(c.run)
			}
			w.calm()
			w.unmoved(x, before)
		})
	}
}
