package contract

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/provider/one"
	"github.com/onelb/onelb/test/onesim"
)

const why = "it breaks the front-end"

func (w *world) inject(f onesim.Fault) {
	w.t.Helper()
	if err := w.sim.Inject(f); err != nil {
		w.t.Fatal(err)
	}
}

// TestHangEndsByDeadline: no call may wait for ever, or one node sync of the
// library would stop all.
func TestHangEndsByDeadline(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	w.simOnly(why)
	network := w.pool4(4)
	c := w.clientWith("", one.Options{RequestTimeout: 100 * time.Millisecond})
	w.inject(onesim.Fault{Method: "*", Kind: onesim.FaultHang})
	for name, call := range map[string]func() error{
		"Check":           func() error { return second(c.Check(t.Context())) },
		"Find":            func() error { return second(c.Find(t.Context(), ipam.NetworkQuery{Name: "x"})) },
		"Get":             func() error { return second(c.Get(t.Context(), network)) },
		"FindReservation": func() error { return second(c.FindReservation(t.Context(), "x")) },
		"Reserve": func() error {
			return second(c.Reserve(t.Context(), ipam.ReserveRequest{Parent: network, Name: "x", Into: ipam.NoNetwork, Size: 1}))
		},
		"FreeRange":         func() error { return c.FreeRange(t.Context(), network, 0) },
		"DeleteReservation": func() error { return c.DeleteReservation(t.Context(), network) },
		"Annotate":          func() error { return c.Annotate(t.Context(), network, map[string]string{"A": "b"}) },
		"Hold":              func() error { return c.Hold(t.Context(), network, ip("10.255.0.11")) },
		"Release":           func() error { return c.Release(t.Context(), network, ip("10.255.0.11")) },
		"VM":                func() error { return second(c.VM(t.Context(), 0)) },
		"VMs":               func() error { return second(c.VMs(t.Context())) },
		"ZoneName":          func() error { return second(c.ZoneName(t.Context())) },
		"Cluster":           func() error { return second(c.Cluster(t.Context(), 0)) },
		"Host":              func() error { return second(c.Host(t.Context(), 0)) },
	} {
		err := call()
		if !errors.Is(err, ipam.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), w.endpoint) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.sim.ClearFaults()
	if _, err := w.clientWith("", one.Options{}).Get(t.Context(), network); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestBrokenAnswers(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	w.simOnly(why)
	net, c := w.pool4(4), w.client("")
	for _, kind := range []onesim.FaultKind{onesim.FaultHTTP500, onesim.FaultMalformed, onesim.FaultDropBefore, onesim.FaultDropAfter} {
		w.inject(onesim.Fault{Method: "one.vn.info", Kind: kind, Count: 1})
		if _, err := c.Get(t.Context(), net); !errors.Is(err, ipam.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", kind, err)
		}
		if _, err := c.Get(t.Context(), net); err != nil {
			t.Errorf("after %s: %v", kind, err)
		}
	}
}

// TestLostAnswers: the work was done though the call failed. What tells so is the
// name of a reservation, and for a hold a read: neither call is sent twice by us.
func TestLostAnswers(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	w.simOnly(why)
	parent, c := w.pool4(4), w.client("plain")
	request := ipam.ReserveRequest{Parent: parent, Name: w.prefix + "-lb", Into: ipam.NoNetwork, Size: 2}
	w.inject(onesim.Fault{Method: "one.vn.reserve", Kind: onesim.FaultDropAfter, Count: 1})
	if _, err := c.Reserve(t.Context(), request); !errors.Is(err, ipam.ErrUnavailable) {
		t.Fatalf("got %v", err)
	}
	if _, err := c.Reserve(t.Context(), request); !errors.Is(err, ipam.ErrExists) {
		t.Fatalf("again: %v", err)
	}
	r, err := c.FindReservation(t.Context(), request.Name)
	if err != nil {
		t.Fatal(err)
	}
	r = w.ready(c, r.ID)
	a := r.Ranges[0].First4
	w.inject(onesim.Fault{Method: "one.vn.hold", Kind: onesim.FaultDropAfter, Count: 1})
	if err := c.Hold(t.Context(), r.ID, a); !errors.Is(err, ipam.ErrUnavailable) {
		t.Fatalf("got %v", err)
	}
	if got := held(w.get(c, r.ID)); len(got) != 1 || got[0] != a {
		t.Errorf("on hold: %v", got)
	}
	if n := w.sim.Calls()["one.vn.hold"]; n != 1 {
		t.Errorf("%d calls of hold", n)
	}
}

// TestConnectionLimit: a busy client leaves most of oned's 15 connections free.
func TestConnectionLimit(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	w.simOnly("it delays answers")
	network := w.pool4(4)
	w.inject(onesim.Fault{Method: "one.vn.info", Kind: onesim.FaultDelay, Delay: 20 * time.Millisecond})
	var most func() int
	w.endpoint, most = w.counted()
	c := w.client("")
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			if _, err := c.Get(t.Context(), network); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	// A connection may outlive its answer by a moment.
	if n := most(); n < 2 || n > 2*one.DefaultMaxInFlight {
		t.Errorf("%d connections at once", n)
	}
}

// counted puts a TCP proxy before the front-end that tells how many connections
// were open at once.
func (w *world) counted() (endpoint string, most func() int) {
	w.t.Helper()
	address := strings.TrimSuffix(strings.TrimPrefix(w.endpoint, "http://"), "/RPC2")
	ln, err := new(net.ListenConfig).Listen(w.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = ln.Close() })
	var mu sync.Mutex
	now, peak := 0, 0
	count := func(d int) {
		mu.Lock()
		defer mu.Unlock()
		now += d
		peak = max(peak, now)
	}
	go func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			count(1)
			go func() {
				relay(client, address)
				count(-1)
			}()
		}
	}()
	return "http://" + ln.Addr().String() + "/RPC2", func() int { mu.Lock(); defer mu.Unlock(); return peak }
}

// relay copies both ways until the server closes, as oned does after its answer.
func relay(client net.Conn, address string) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	go func() { _, _ = io.Copy(server, client) }()
	_, _ = io.Copy(client, server)
}

// TestSilentConnectionsStall: 15 connections that send nothing stall oned until its
// own timeout. The client says so in time, and goes on when it is over.
func TestSilentConnectionsStall(t *testing.T) {
	w := newWorld(t, onesim.Options{IdleTimeout: 3 * time.Second})
	w.simOnly(why)
	address := strings.TrimSuffix(strings.TrimPrefix(w.endpoint, "http://"), "/RPC2")
	for range 15 {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
	}
	quick := w.clientWith("", one.Options{RequestTimeout: 100 * time.Millisecond})
	var err error
	for range 100 { // until all of them are accepted, it is served
		if _, err = quick.Check(t.Context()); err != nil {
			break
		}
	}
	if !errors.Is(err, ipam.ErrUnavailable) || !strings.Contains(err.Error(), "out of connections") {
		t.Errorf("got %v", err)
	}
	if _, err := w.client("").Check(t.Context()); err != nil {
		t.Errorf("a patient client: %v", err)
	}
}

// TestRestart: nothing is kept of a front-end that was away.
func TestRestart(t *testing.T) {
	sim, err := onesim.New(onesim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	endpoint, stop, err := sim.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := one.New(one.Options{Endpoint: endpoint, Credentials: session("oneadmin:opennebula")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop()
	if _, err := c.Check(t.Context()); !errors.Is(err, ipam.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	_, stop, err = sim.Start(strings.TrimSuffix(strings.TrimPrefix(endpoint, "http://"), "/RPC2"))
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	if _, err := c.Check(t.Context()); err != nil {
		t.Error(err)
	}
}
