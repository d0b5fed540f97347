package onesim

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"testing"
	"time"
)

func hold(ip string) []byte {
	return encodeRequest(asAdmin, "one.vn.hold", 0, `LEASES=[IP="`+ip+`"]`)
}

func TestFaults(t *testing.T) {
	for _, tc := range []struct {
		kind   FaultKind
		status int  // 0: no answer
		done   bool // the address is held afterwards
		check  func(t *testing.T, body []byte)
	}{
		{kind: FaultDropBefore},
		{kind: FaultDropAfter, done: true},
		{kind: FaultHTTP500, status: http.StatusInternalServerError},
		{kind: FaultMalformed, status: http.StatusOK, check: func(t *testing.T, body []byte) {
			if _, err := parseXML(string(body)); err == nil {
				t.Errorf("well-formed: %s", body)
			}
		}},
		{kind: FaultError, status: http.StatusOK, check: func(t *testing.T, body []byte) {
			if !bytes.Contains(body, []byte("<i4>2048</i4>")) || !bytes.Contains(body, []byte("[one.vn.hold] busy")) {
				t.Errorf("got %s", body)
			}
		}},
		{kind: FaultDelay, status: http.StatusOK, done: true},
	} {
		t.Run(string(tc.kind), func(t *testing.T) {
			s := newSim(t, Options{})
			endpoint := start(t, s)
			if err := s.Inject(Fault{
				Method: "one.vn.hold", Kind: tc.kind, After: 1, Count: 1, Code: CodeAction, Message: "busy", Delay: time.Millisecond,
			}); err != nil {
				t.Fatal(err)
			}
			ctx := within(t, time.Minute)
			if status, _, err := post(ctx, endpoint, hold("10.0.0.10")); err != nil || status != http.StatusOK {
				t.Fatalf("the call before the fault: %d %v", status, err)
			}
			status, body, err := post(ctx, endpoint, hold("10.0.0.11"))
			if (err != nil) != (tc.status == 0) || err == nil && status != tc.status {
				t.Fatalf("got %d %v, want %d", status, err, tc.status)
			}
			if tc.check != nil {
				tc.check(t, body)
			}
			held := len(s.Holds(0)) == 2
			if held != tc.done {
				t.Errorf("holds %v, want the second done %t", s.Holds(0), tc.done)
			}
			if status, _, err := post(ctx, endpoint, hold("10.0.0.12")); err != nil || status != http.StatusOK {
				t.Errorf("the call after the fault: %d %v", status, err)
			}
			if n := s.Calls()["one.vn.hold"]; n != 3 {
				t.Errorf("%d calls counted, want 3", n)
			}
		})
	}
}

func TestHang(t *testing.T) {
	s := newSim(t, Options{MaxConns: 1}) // the second call begins when the first one's end was noticed
	endpoint := start(t, s)
	if err := s.Inject(Fault{Kind: FaultHang}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	answered := make(chan error, 1)
	go func() {
		_, _, err := post(ctx, endpoint, hold("10.0.0.10"))
		answered <- err
	}()
	for s.Calls()["one.vn.hold"] < 1 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-answered; err == nil {
		t.Fatal("a hanging call answered")
	}
	go func() {
		_, _, err := post(within(t, time.Minute), endpoint, hold("10.0.0.11"))
		answered <- err
	}()
	for s.Calls()["one.vn.hold"] < 2 {
		time.Sleep(time.Millisecond)
	}
	s.ClearFaults()
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	if got := s.Holds(0); len(got) != 1 || got[0] != netip.MustParseAddr("10.0.0.11") {
		t.Errorf("holds %v: the call whose client went away must not be done, the other must", got)
	}
}

// TestStopEndsHangingCalls: a server that is stopped does not wait for a fault to be cleared.
func TestStopEndsHangingCalls(t *testing.T) {
	s := newSim(t, Options{})
	endpoint, stop, err := s.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Inject(Fault{Kind: FaultHang}); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		_, _, err := post(within(t, time.Minute), endpoint, hold("10.0.0.11"))
		answered <- err
	}()
	for s.Calls()["one.vn.hold"] < 1 {
		time.Sleep(time.Millisecond)
	}
	stop()
	if err := <-answered; err == nil {
		t.Error("a call answered after the server was stopped")
	}
}

func TestInjectRefuses(t *testing.T) {
	s := newSim(t, Options{})
	for _, f := range []Fault{
		{Kind: "nonsense"}, {Kind: FaultHang, Method: "one.vn.nosuch"}, {Kind: FaultDelay}, {Kind: FaultHang, Count: -1},
	} {
		if err := s.Inject(f); err == nil {
			t.Errorf("%+v was accepted", f)
		}
	}
}

func TestFaultJSON(t *testing.T) {
	in := Fault{Method: "*", Kind: FaultDelay, Count: 2, Delay: 150 * time.Millisecond}
	data, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var out Fault
	if err := json.Unmarshal(data, &out); err != nil || out != in {
		t.Errorf("%s became %+v, %v", data, out, err)
	}
}
