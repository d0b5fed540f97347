package onesim

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"
)

const networkText = `NAME="net" BRIDGE="br0" GATEWAY="10.0.0.1" AR=[TYPE="IP4",IP="10.0.0.10",SIZE="100"]`

// newSim is a simulator with a host, user k8s and network "net" (id 0).
func newSim(t testing.TB, opts Options) *Sim {
	t.Helper()
	s, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Load(Fixture{
		Users: []UserFixture{{Name: "k8s", Password: "k8spass123"}}, Hosts: []string{"h"},
		Networks: []NetworkFixture{{Name: "net", Template: networkText}},
	}); err != nil {
		t.Fatal(err)
	}
	return s
}

// do calls a method without HTTP.
func (s *Sim) do(session, method string, args ...any) (any, error) {
	return s.execute(context.Background(), rpcCall{method, append([]any{session}, args...)})
}

func must(t testing.TB, s *Sim, session, method string, args ...any) any {
	t.Helper()
	v, err := s.do(session, method, args...)
	if err != nil {
		t.Fatalf("%s %v: %v", method, args, err)
	}
	return v
}

// wantCode checks that a call fails with an OpenNebula code.
func wantCode(t testing.TB, err error, code Code) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("got %v, want code 0x%04x", err, int(code))
	}
}

// post sends a call over HTTP with a client of its own connection.
func post(ctx context.Context, endpoint string, body []byte) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	return resp.StatusCode, out, err
}

func start(t testing.TB, s *Sim) string {
	t.Helper()
	endpoint, stop, err := s.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return endpoint
}

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}
