package health

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// backend answers probes over pipes, as it is told.
type backend struct {
	mu     sync.Mutex
	status string // "200 OK"; "" means silence
	refuse bool
	asked  []string
	dials  int
}

func (b *backend) set(status string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.status = status
}

func (b *backend) dial(_ context.Context, _, _ string) (net.Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dials++; b.refuse {
		return nil, errors.New("connection refused")
	}
	client, server := net.Pipe()
	go b.serve(server)
	return client, nil
}

func (b *backend) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	r := bufio.NewReader(conn)
	for {
		request, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		b.mu.Lock()
		status := b.status
		b.asked = append(b.asked, request.Method+" "+request.Host+request.URL.Path)
		b.mu.Unlock()
		if status == "" {
			_, _ = r.ReadByte() // until the prober gives up
			return
		}
		if _, err := conn.Write([]byte("HTTP/1.1 " + status + "\r\nContent-Length: 2\r\n\r\nok")); err != nil {
			return
		}
	}
}

var target = Target{Address: netip.MustParseAddr("10.20.0.11"), Port: 10256, Path: "/healthz"}

// probe runs a checker against one backend within a bubble of fake time.
func probe(t *testing.T, status string, f func(c *Checker, b *backend, changes *int)) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{status: status}
		var mu sync.Mutex
		changes := 0
		c, err := New(Options{Dial: b.dial, Changed: func() { mu.Lock(); changes++; mu.Unlock() }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		c.Set([]Target{target})
		synctest.Wait()
		f(c, b, &changes)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestHysteresis(t *testing.T) {
	probe(t, "200 OK", func(c *Checker, b *backend, changes *int) {
		if got := c.Result(target); got.State != Healthy || got.Err != nil {
			t.Fatalf("first answer: %+v", got)
		}
		b.set("503 Service Unavailable")
		start := time.Now()
		for c.Result(target).State == Healthy {
			time.Sleep(10 * time.Millisecond)
		}
		if took := time.Since(start); took < 500*time.Millisecond || took > time.Second {
			t.Errorf("down after %s, want three intervals", took)
		}
		if got := c.Result(target); got.Err == nil || !strings.Contains(got.Err.Error(), "status 503") {
			t.Errorf("result %+v", got)
		}
		b.set("200 OK")
		start = time.Now()
		for c.Result(target).State != Healthy {
			time.Sleep(10 * time.Millisecond)
		}
		if took := time.Since(start); took < 250*time.Millisecond || took > 700*time.Millisecond {
			t.Errorf("up after %s, want two intervals", took)
		}
		if *changes != 3 {
			t.Errorf("%d changes told, want 3", *changes)
		}
		if b.dials != 1 {
			t.Errorf("%d connections, want one that is kept", b.dials)
		}
		if b.asked[0] != "GET 10.20.0.11:10256/healthz" {
			t.Errorf("asked %q", b.asked[0])
		}
	})
}

func TestSilence(t *testing.T) {
	probe(t, "200 OK", func(c *Checker, b *backend, _ *int) {
		b.set("")
		start := time.Now()
		for c.Result(target).State == Healthy {
			time.Sleep(10 * time.Millisecond)
		}
		if took := time.Since(start); took > 1200*time.Millisecond {
			t.Errorf("a silent backend is down after %s", took)
		}
	})
}

func TestFirstAnswerDecides(t *testing.T) {
	for _, status := range []string{"404 Not Found", "302 Found", "500 Oops"} {
		probe(t, status, func(c *Checker, _ *backend, changes *int) {
			if got := c.Result(target); got.State != Unhealthy || *changes != 1 {
				t.Errorf("%s: %+v, %d changes", status, got, *changes)
			}
		})
	}
}

func TestFlappingOnce(t *testing.T) {
	probe(t, "200 OK", func(c *Checker, b *backend, changes *int) {
		for range 20 {
			b.set("503 Service Unavailable")
			time.Sleep(300 * time.Millisecond) // one failure, at most two
			b.set("200 OK")
			time.Sleep(300 * time.Millisecond)
		}
		if got := c.Result(target).State; got != Healthy || *changes != 1 {
			t.Errorf("state %v after %d changes, want none after the first", got, *changes)
		}
	})
}

// TestSet: what goes is probed no more, what stays keeps its state.
func TestSet(t *testing.T) {
	probe(t, "200 OK", func(c *Checker, b *backend, _ *int) {
		other := target
		other.Port = 1
		c.Set([]Target{target, other, other})
		if got := c.Result(target).State; got != Healthy {
			t.Errorf("state %v was lost", got)
		}
		synctest.Wait()
		if got := len(c.Snapshot()); got != 2 {
			t.Errorf("%d targets, want 2", got)
		}
		c.Set(nil)
		synctest.Wait()
		b.mu.Lock()
		before := len(b.asked)
		b.mu.Unlock()
		time.Sleep(5 * time.Second)
		if got := len(b.asked); got != before {
			t.Errorf("%d probes after all targets went", got-before)
		}
		if got := c.Result(target).State; got != Unknown {
			t.Errorf("state %v of no target", got)
		}
	})
}

// TestRate: many targets are probed more slowly.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{refuse: true}
		c, err := New(Options{Dial: b.dial, MaxRate: 100})
		if err != nil {
			t.Fatal(err)
		}
		var targets []Target
		for i := range 1000 {
			targets = append(targets, Target{Address: target.Address, Port: uint16(i + 1), Path: "/"})
		}
		c.Set(targets)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		time.Sleep(60 * time.Second)
		cancel()
		<-done
		if b.dials < 5500 || b.dials > 8000 { // 60 s of 100, and the first round
			t.Errorf("%d probes in a minute, want about 6000", b.dials)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(Options{Interval: -1}); err == nil {
		t.Error("a negative interval is taken")
	}
}
