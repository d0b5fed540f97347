package unnumbered

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// What was heard lately counts, and several routers are one too many.
func TestRouterIsKnownWhileItIsHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		news := 0
		f := New(Options{Changed: func() { news++ }})
		if _, err := f.Router("eth1"); !errors.Is(err, ErrNobody) {
			t.Error(err)
		}
		f.Set([]string{"eth1"})
		l := f.links["eth1"]
		one, two := netip.MustParseAddr("fe80::1%eth1"), netip.MustParseAddr("fe80::2%eth1")
		if rest := f.forget(l); rest != hurry {
			t.Errorf("looks again in %v", rest)
		}
		f.hear(l, one)
		f.hear(l, one)
		if a, err := f.Router("eth1"); a != one || err != nil || news != 1 {
			t.Errorf("%v, %v, told %d times", a, err, news)
		}
		time.Sleep(memory - time.Second)
		f.hear(l, two)
		if a, err := f.Router("eth1"); !errors.Is(err, ErrSeveral) || a != one {
			t.Error(a, err)
		}
		time.Sleep(2 * time.Second)
		if rest := f.forget(l); rest != pace {
			t.Errorf("looks again in %v", rest)
		}
		if a, err := f.Router("eth1"); a != two || err != nil || news != 3 {
			t.Errorf("%v, %v, told %d times", a, err, news)
		}
		f.Set(nil)
		if _, err := f.Router("eth1"); !errors.Is(err, ErrNobody) {
			t.Error(err)
		}
	})
}

// A sender with many addresses costs little memory, and no more answers than any other.
func TestManySendersCostLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(Options{Changed: func() {}})
		f.Set([]string{"eth1"})
		l := f.links["eth1"]
		a := netip.MustParseAddr("fe80::1%eth1")
		first, answers := a, 0
		for range 1000 {
			f.hear(l, a)
			a = a.Next().WithZone("eth1")
			if l.answers(time.Now()) {
				answers++
			}
			time.Sleep(10 * time.Millisecond)
		}
		if len(l.heard) != routersMost || answers != 4 { // 10 s
			t.Errorf("%d routers, %d answers", len(l.heard), answers)
		}
		at := l.heard[first]
		if f.hear(l, first); !l.heard[first].After(at) {
			t.Error("a router that is known is not heard any more")
		}
	})
}

// An interface that is not there is said so, and nothing is left when Run ends.
func TestInterfaceIsNotThere(t *testing.T) {
	changed := make(chan struct{}, 99)
	f := New(Options{Changed: func() { changed <- struct{}{} }})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	f.Set([]string{"no-such-eth"})
	<-changed
	if _, err := f.Router("no-such-eth"); err == nil || err.Error() != "no-such-eth: this node has no such interface" {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
