package onesim

import (
	"net"
	"net/http"
	"testing"
	"time"
)

// TestConnectionLimit: silent connections block the interface until they time out, and every answer closes its own.
func TestConnectionLimit(t *testing.T) {
	s := newSim(t, Options{MaxConns: 2, IdleTimeout: 2 * time.Second})
	endpoint := start(t, s)
	addr := endpoint[len("http://") : len(endpoint)-len("/RPC2")]
	for range 2 {
		conn, err := (&net.Dialer{}).DialContext(within(t, time.Minute), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	waitFor(t, func() bool { // until both are accepted, a call is served; then it must wait
		ctx := within(t, 50*time.Millisecond)
		_, _, err := post(ctx, endpoint, encodeRequest(asAdmin, "one.system.version"))
		return err != nil
	})
	begin := time.Now()
	status, _, err := post(within(t, time.Minute), endpoint, encodeRequest(asAdmin, "one.system.version"))
	if err != nil || status != http.StatusOK {
		t.Fatalf("after the silent connections timed out: %d %v", status, err)
	}
	t.Logf("served after %s", time.Since(begin))
}

func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); {
		if time.Now().After(deadline) {
			t.Fatal("timed out")
		}
	}
}

func TestConnectionClose(t *testing.T) {
	s := newSim(t, Options{})
	endpoint := start(t, s)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, endpoint, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if !resp.Close {
		t.Error("the answer keeps the connection")
	}
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("an empty body got %s", resp.Status)
	}
}

func TestRequestSize(t *testing.T) {
	s := newSim(t, Options{MaxRequest: 1000})
	endpoint := start(t, s)
	_, body, err := post(within(t, time.Minute), endpoint, encodeRequest(asAdmin, "one.vn.update", 0, string(make([]byte, 2000)), 1))
	if err != nil {
		t.Fatal(err)
	}
	if got := parseAnswer(body); len(got.values) == 0 || got.values[0] != "i4 -509" {
		t.Errorf("got %s", got)
	}
}

// TestHangOutlivesIdleTimeout: the time that a connection may be silent does not count while its call runs.
func TestHangOutlivesIdleTimeout(t *testing.T) {
	s := newSim(t, Options{IdleTimeout: time.Second})
	endpoint := start(t, s)
	if err := s.Inject(Fault{Kind: FaultHang}); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		_, _, err := post(within(t, time.Minute), endpoint, hold("10.0.0.11"))
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Fatalf("the hang ended by itself: %v", err)
	case <-time.After(3 * time.Second):
	}
	s.ClearFaults()
	if err := <-answered; err != nil {
		t.Error(err)
	}
}
