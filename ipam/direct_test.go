package ipam

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// managed adds a network on which our user has USE and MANAGE.
func (c *cloud) managedNetwork(name string, ranges ...Range) NetworkID {
	id := c.network(name, ranges...)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nets[id].managed = true
	return id
}

func directPool(name string) PoolSpec {
	s := basePool(name)
	s.Network.Name, s.Direct, s.Quarantine = "shared", true, 10*time.Second
	return s
}

// owned counts the holds that our clients have made in a network.
func (c *cloud) owned(id NetworkID) map[netip.Addr]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := map[netip.Addr]bool{}
	for _, r := range c.nets[id].ranges {
		for i := range r.ours {
			for _, f := range families {
				if r.use[i] == hold && r.first(f).IsValid() {
					all[advance(r.first(f), i)] = true
				}
			}
		}
	}
	return all
}

func TestDirectLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		id := c.managedNetwork("shared", range4("10.0.0.10", 40), range6("2001:db8::10", 20))
		c.set(id, addr("10.0.0.10"), "VM 7")
		c.set(id, addr("10.0.0.11"), hold) // a stranger's
		p := start(t, c, s, nil)
		p.SetPools([]PoolSpec{directPool("d")})
		st := p.mustBeReady("d")
		if st.IPv4.Ahead != 4 || st.IPv6.Ahead != 4 || st.IPv4.Held != 4 || st.IPv4.Total != 38 || st.IPv4.Free != 38 || st.ReservationID != NoNetwork || st.Reason != ReasonOnHold {
			t.Errorf("%+v", st)
		}
		before := c.count("")
		p.client.setFault(func(string) fault { return fault{err: ErrUnavailable} })
		rec := p.mustAllocate("d", IPv4)
		if rec.Address != addr("10.0.0.12") || c.count("") != before || !rec.OnHold {
			t.Errorf("%+v after %d calls", rec, c.count("")-before)
		}
		p.client.setFault(nil)
		if err := p.allocateErr(Request{Pool: "d", Want: addr("10.0.0.11")}); !errors.Is(err, ErrInUse) {
			t.Error(err)
		}
		if err := p.allocateErr(Request{Pool: "d", Want: addr("10.0.0.10")}); !errors.Is(err, ErrInUse) {
			t.Error(err)
		}
		wanted, err := p.Allocate(t.Context(), Request{Pool: "d", Want: addr("10.0.0.40")})
		if err != nil || wanted.Address != addr("10.0.0.40") {
			t.Errorf("%+v %v", wanted, err)
		}
		for range 30 {
			p.mustAllocate("d", IPv4)
		}
		settle()
		if n := c.count("Hold"); n > 36+4+4 {
			t.Errorf("%d holds for 32 addresses and 8 ahead", n)
		}
		for a, r := range s.all() {
			if r.Phase == Active {
				s.let(a, false)
			}
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		st = p.mustBeReady("d")
		if st.IPv4.Used != 0 || st.IPv4.Held != st.IPv4.Ahead || st.IPv4.Ahead > 4+8+1 {
			t.Errorf("after all is over: %+v", st.IPv4)
		}
		p.SetPools(nil)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if len(s.all()) > 0 || len(c.owned(id)) > 0 {
			t.Errorf("left: %v, %v", s.all(), c.owned(id))
		}
		if c.use(id, addr("10.0.0.11")) != hold || len(c.robbed) > 0 {
			t.Error("the stranger's hold is gone")
		}
		p.stop()
	})
}

// TestDirectCrash ends a process at each call that an address makes in its life.
func TestDirectCrash(t *testing.T) {
	for _, effect := range []bool{false, true} {
		for _, method := range []string{"Create", "Hold", "Mark", "Take", "Release", "Delete", "Update"} {
			t.Run(method+map[bool]string{true: " after", false: " before"}[effect], func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { crashDirect(t, method, effect) })
			})
		}
	}
}

func crashDirect(t *testing.T, method string, effect bool) {
	c, s := newCloud(), newStore()
	id := c.managedNetwork("shared", range4("10.0.0.10", 20), pairs("10.0.1.10", "2001:db8::10", 20))
	spec := directPool("d")
	armed := true
	p := start(t, c, s, func(_ *Options, p *process) {
		f := func(m string) fault {
			if m != method || !armed {
				return fault{}
			}
			armed = false
			return fault{crash: true, effect: effect}
		}
		p.client.fault, p.view.fault = f, f
	})
	p.SetPools([]PoolSpec{spec})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	_, _ = p.Allocate(ctx, Request{Pool: "d", Family: IPv4, Owner: Owner{UID: "1"}})
	cancel()
	for a, r := range s.all() {
		if r.Phase == Active {
			s.let(a, false)
		}
	}
	time.Sleep(time.Minute)
	p.SetPools(nil)
	time.Sleep(5 * time.Minute)
	p.stop()
	if armed {
		t.Fatalf("%s was never called", method)
	}
	q := start(t, c, s, nil)
	defer q.stop()
	q.SetPools([]PoolSpec{spec})
	time.Sleep(20 * time.Minute)
	synctest.Wait()
	recs := s.all()
	for a := range c.owned(id) {
		if r, ok := recs[a]; !ok || r.Phase != Ahead && r.Phase != SetAside {
			t.Errorf("%s is on hold by us, its record: %+v", a, r)
		}
	}
	aside := 0
	for a, r := range recs {
		if r.Phase == SetAside {
			aside++
			c.set(id, a, "") // as the event says
		}
		if r.Phase == Claiming || r.Phase == Ending {
			t.Errorf("%+v", r)
		}
	}
	if aside > 2 { // one hold, a pair perhaps
		t.Errorf("%d are set aside", aside)
	}
	if st, _ := q.PoolStatus("d"); st.IPv4.SetAside+st.IPv6.SetAside != aside || (aside > 0) != (q.countEvents(EventAddressSetAside) > 0) {
		t.Errorf("%d are set aside: %+v %v", aside, st, q.reasons())
	}
	q.SetPools(nil)
	time.Sleep(20 * time.Minute)
	synctest.Wait()
	if len(s.all()) > 0 || len(c.owned(id)) > 0 {
		t.Errorf("left: %v, %v", s.all(), c.owned(id))
	}
}

// TestDirectRemovedInUse: the pool goes while its addresses are being released.
func TestDirectRemovedInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		id := c.managedNetwork("shared", range4("10.0.0.10", 10))
		p := start(t, c, s, nil)
		defer p.stop()
		spec := directPool("d")
		spec.Quarantine = time.Second
		p.SetPools([]PoolSpec{spec})
		a, b := p.mustAllocate("d", IPv4).Address, p.mustAllocate("d", IPv4).Address
		settle()
		s.let(a, false)
		s.let(b, true)
		spec.Leaving = true
		p.SetPools([]PoolSpec{spec})
		settle()
		if st, _ := p.PoolStatus("d"); st.Reason != ReasonLeaving {
			t.Errorf("%+v while %s is announced", st, b)
		}
		s.edit(b, func(r *Record) { r.Announced = false })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if st, _ := p.PoolStatus("d"); st.Reason != ReasonRemoved || len(c.owned(id)) > 0 || len(s.all()) > 0 {
			t.Errorf("%+v, held %v, records %v", st, c.owned(id), s.all())
		}
	})
}

// TestDirectLostAnswer: a hold of which the answer is lost is set aside, and
// neither given nor released, until a person has decided.
func TestDirectLostAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		id := c.managedNetwork("shared", range4("10.0.0.10", 10))
		lost := true
		p := start(t, c, s, func(_ *Options, p *process) {
			p.client.fault = func(m string) fault {
				if m == "Hold" && lost {
					lost = false
					return fault{err: ErrUnavailable, effect: true}
				}
				return fault{}
			}
		})
		defer p.stop()
		p.SetPools([]PoolSpec{directPool("d")})
		time.Sleep(10 * time.Minute)
		st := p.mustBeReady("d")
		if st.IPv4.SetAside != 1 || st.IPv4.Total != 9 || !strings.Contains(st.Message, "10.0.0.10") || p.countEvents(EventAddressSetAside) != 1 {
			t.Fatalf("%+v %v", st, p.reasons())
		}
		for range 9 {
			p.mustAllocate("d", IPv4)
		}
		if err := p.allocateErr(Request{Pool: "d", Family: IPv4}); !errors.Is(err, ErrNoSpace) {
			t.Error(err)
		}
		if err := p.allocateErr(Request{Pool: "d", Want: addr("10.0.0.10")}); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "set aside") {
			t.Error(err)
		}
		c.set(id, addr("10.0.0.10"), "")
		time.Sleep(10 * time.Minute)
		if rec := p.mustAllocate("d", IPv4); rec.Address != addr("10.0.0.10") {
			t.Errorf("%+v", rec)
		}
		p.wantEvent(EventAddressSetAsideEnded)
	})
}

// TestDirectDrift: people take our holds away and put others' in their place.
func TestDirectDrift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		id := c.managedNetwork("shared", range4("10.0.0.10", 10))
		p := start(t, c, s, nil)
		defer p.stop()
		spec := directPool("d")
		spec.ReserveAhead = 2
		p.SetPools([]PoolSpec{spec})
		p.mustBeReady("d")
		a, b, v := p.mustAllocate("d", IPv4).Address, p.mustAllocate("d", IPv4).Address, p.mustAllocate("d", IPv4).Address
		settle()
		c.set(id, a, "")
		c.set(id, b, hold) // another's by now
		c.set(id, v, "VM 3")
		var ahead netip.Addr
		for x, r := range s.all() {
			if r.Phase == Ahead && (!ahead.IsValid() || x.Less(ahead)) {
				ahead = x
			}
		}
		c.set(id, ahead, hold)
		c.set(id, ahead.Next(), "VM 4")
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		if c.use(id, a) != hold || !c.owned(id)[a] {
			t.Error("the hold was not put back")
		}
		p.wantEvent(EventHoldRepaired)
		p.wantEvent(EventAddressConflict) // of the VM
		if c.use(id, ahead.Next()) != "VM 4" {
			t.Error("the VM has lost its address")
		}
		// b looks as before: no one can tell.
		if _, ok := s.all()[ahead.Next()]; ok {
			t.Errorf("%s has a record still: %+v", ahead.Next(), s.all()[ahead.Next()])
		}
	})
}

// TestDirectDenied: the right to hold is missing, which only a hold tells.
func TestDirectDenied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newCloud(), newStore()
		c.managedNetwork("shared", range4("10.0.0.10", 10))
		p := start(t, c, s, func(_ *Options, p *process) {
			p.client.fault = func(m string) fault {
				if m == "Hold" {
					return fault{err: ErrDenied}
				}
				return fault{}
			}
		})
		defer p.stop()
		p.SetPools([]PoolSpec{directPool("d")})
		settle()
		for _, r := range []Request{{Pool: "d", Family: IPv4}, {Pool: "d", Want: addr("10.0.0.15")}} {
			if err := p.allocateErr(r); !errors.Is(err, ErrDenied) {
				t.Error(err)
			}
		}
		if err := p.allocateErr(Request{Pool: "d", Family: IPv4}); !strings.Contains(err.Error(), "USE and MANAGE") {
			t.Error(err)
		}
		p.wantEvent(EventAddressesExhausted)
		time.Sleep(10 * time.Minute)
		if len(s.all()) > 0 || c.count("Hold") > 40 {
			t.Errorf("%v, %d calls", s.all(), c.count("Hold"))
		}
		p.client.setFault(nil)
		time.Sleep(10 * time.Minute)
		p.mustAllocate("d", IPv4)
	})
}

func TestDirectRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		ranges []Range
		plain  bool
		used   string
		words  []string
		err    error
	}{
		"no MANAGE": {[]Range{range4("10.0.0.1", 9)}, true, "10.0.0.3", []string{"USE and MANAGE", "range 0"}, ErrDenied},
		"too large": {[]Range{range4("10.0.0.1", 1<<20)}, false, "", []string{"1048576", "spec.reservation"}, ErrUnusable},
		"no prefix": {[]Range{{Kind: RangeIP6SLAAC, Size: 9, NoIPv6: "it has no prefix"}}, false, "", []string{"range 0 (IP6)", "it has no prefix"}, ErrUnusable},
		"ETHER":     {[]Range{{Kind: RangeEther, Size: 9}}, false, "", []string{"range 0 (ETHER)", "MAC"}, ErrUnusable},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, s := newCloud(), newStore()
				id := c.managedNetwork("shared", tc.ranges...)
				c.nets[id].managed = !tc.plain
				if tc.used != "" {
					c.set(id, addr(tc.used), "VM 5")
				}
				p := start(t, c, s, nil)
				defer p.stop()
				p.SetPools([]PoolSpec{directPool("d")})
				settle()
				err := p.allocateErr(Request{Pool: "d", Family: IPv4})
				if !errors.Is(err, tc.err) {
					t.Error(err)
				}
				for _, w := range tc.words {
					if !strings.Contains(err.Error(), w) {
						t.Errorf("%q does not say %q", err, w)
					}
				}
				if len(s.all()) > 0 || c.count("Hold") > 0 {
					t.Errorf("%v", s.all())
				}
			})
		})
	}
}
