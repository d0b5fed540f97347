package one

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/onelb/onelb/ipam"
)

// hanging is a server that takes a call and never answers, until the test ends.
func hanging(t *testing.T) *httptest.Server {
	t.Helper()
	done := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-done }))
	t.Cleanup(func() { close(done); s.Close() })
	return s
}

func TestHangEndsByDeadline(t *testing.T) {
	s := hanging(t)
	f := newFrontEnd(t, nil)
	c := f.client(Options{Endpoint: s.URL, RequestTimeout: 50 * time.Millisecond})
	_, err := c.Get(context.Background(), 1)
	if !errors.Is(err, ipam.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{s.URL, "one.vn.info", "50ms", "virtual network 1"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in %q", want, err)
		}
	}
}

func TestCancelIsNoFailureOfOpenNebula(t *testing.T) {
	s := hanging(t)
	f := newFrontEnd(t, nil)
	c := f.client(Options{Endpoint: s.URL})
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	_, err := c.Get(ctx, 1)
	if !errors.Is(err, context.Canceled) || errors.Is(err, ipam.ErrUnavailable) {
		t.Fatalf("got %v", err)
	}
}

func TestSlowBodyEndsByDeadline(t *testing.T) {
	done := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(responseHead))
		_ = http.NewResponseController(w).Flush()
		<-done
	}))
	defer func() { close(done); s.Close() }()
	c := newFrontEnd(t, nil).client(Options{Endpoint: s.URL, RequestTimeout: 50 * time.Millisecond})
	if _, err := c.Check(context.Background()); !errors.Is(err, ipam.ErrUnavailable) {
		t.Fatalf("got %v", err)
	}
}

func TestInFlightLimit(t *testing.T) {
	var now, most atomic.Int32
	var once sync.Once
	full := make(chan struct{}) // as many as may be are in flight
	f := newFrontEnd(t, func(request) string {
		n := now.Add(1)
		defer now.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		if n >= DefaultMaxInFlight {
			once.Do(func() { close(full) })
		}
		<-full
		time.Sleep(5 * time.Millisecond) // time for one too many
		return okText("7.5.80")
	})
	c := f.client(Options{})
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			if _, err := c.Check(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := most.Load(); got != DefaultMaxInFlight {
		t.Fatalf("%d calls at once", got)
	}
}

func TestBusyConnectionsAreNamed(t *testing.T) {
	s := hanging(t)
	c := newFrontEnd(t, nil).client(Options{Endpoint: s.URL, MaxInFlight: 1, RequestTimeout: time.Hour})
	go func() { _, _ = c.Check(context.Background()) }()
	for len(c.slots) == 0 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	_, err := c.Check(ctx)
	if !errors.Is(err, ipam.ErrUnavailable) || !strings.Contains(err.Error(), "all 1 connections are busy") {
		t.Fatalf("got %v", err)
	}
}

func TestGarbage(t *testing.T) {
	huge := okText(strings.Repeat("x", 4096))
	cases := map[string]string{
		"empty":             "",
		"html":              "<HTML><BODY>login</BODY></HTML>",
		"truncated":         okText("7.5.80")[:120],
		"empty array":       responseHead + responseTail,
		"one member":        responseHead + value("boolean", "1") + responseTail,
		"two members":       responseHead + value("boolean", "1") + value("string", "x") + responseTail,
		"strings":           responseHead + value("string", "1") + value("string", "x") + value("string", "0") + responseTail,
		"code is a string":  responseHead + value("boolean", "1") + value("string", "x") + value("string", "0") + responseTail,
		"unknown type":      responseHead + value("boolean", "1") + value("float", "x") + value("i4", "0") + responseTail,
		"no array":          `<methodResponse><params><param><value><string>x</string></value></param></params></methodResponse>`,
		"deep arrays":       "<methodResponse>" + strings.Repeat("<value><array><data>", 100000),
		"too large":         huge,
		"not a VNET":        okText("<HOST><ID>1</ID></HOST>"),
		"truncated VNET":    okText("<VNET><ID>1</ID>"),
		"another VNET":      okText("<VNET><ID>2</ID><STATE>1</STATE></VNET>"),
		"a number":          okID(1),
		"fault":             fault(-506, "Method 'one.vn.info' not defined"),
		"fault of no shape": "<methodResponse><fault>x</fault></methodResponse>",
	}
	for name, body := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFrontEnd(t, func(request) string { return body })
			c := f.client(Options{MaxResponse: int64(len(body)) + 1})
			if name == "too large" {
				c = f.client(Options{MaxResponse: 1024})
			}
			_, err := c.Get(context.Background(), 1)
			if !errors.Is(err, ipam.ErrUnavailable) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

func TestTextWhereIDIsExpected(t *testing.T) {
	f := newFrontEnd(t, func(request) string { return okText("x") })
	id, err := f.client(Options{}).Reserve(context.Background(), ipam.ReserveRequest{Name: "a", Into: ipam.NoNetwork, Size: 1})
	if !errors.Is(err, ipam.ErrUnavailable) || id != ipam.NoNetwork {
		t.Fatalf("got %d, %v", id, err)
	}
}

func TestHTTPStatus(t *testing.T) {
	var other atomic.Int32
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { other.Add(1) }))
	defer elsewhere.Close()
	for code, want := range map[int]string{
		500: "500", 404: "/RPC2", 307: "configure the address it redirects to", 401: "401",
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", elsewhere.URL)
			w.WriteHeader(code)
		}))
		c := newFrontEnd(t, nil).client(Options{Endpoint: s.URL})
		_, err := c.Check(context.Background())
		if !errors.Is(err, ipam.ErrUnavailable) || !strings.Contains(err.Error(), want) {
			t.Errorf("status %d: got %v", code, err)
		}
		s.Close()
	}
	if other.Load() != 0 {
		t.Error("a redirect was followed: it carries the password")
	}
}

func TestTLS(t *testing.T) {
	f := newFrontEnd(t, func(request) string { return okText("7.5.80") })
	s := httptest.NewUnstartedServer(f.server.Config.Handler)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	_, err := f.client(Options{Endpoint: s.URL}).Check(context.Background())
	if !errors.Is(err, ipam.ErrUnavailable) || !strings.Contains(err.Error(), "caFile") {
		t.Errorf("unknown authority: %v", err)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.client(Options{Endpoint: s.URL, CAFile: ca}).Check(context.Background()); err != nil {
		t.Errorf("known authority: %v", err)
	}
}

func TestUnreachable(t *testing.T) {
	s := httptest.NewServer(nil)
	s.Close()
	c := newFrontEnd(t, nil).client(Options{Endpoint: s.URL})
	_, err := c.Check(context.Background())
	if !errors.Is(err, ipam.ErrUnavailable) || !strings.Contains(err.Error(), "refused") || !strings.Contains(err.Error(), "check the endpoint") {
		t.Fatalf("got %v", err)
	}
	if strings.Count(err.Error(), s.URL) != 1 {
		t.Errorf("the endpoint is not named once: %v", err)
	}
}

func TestCheck(t *testing.T) {
	f := newFrontEnd(t, func(request) string { return okText("6.10.0.1") })
	if v, err := f.client(Options{}).Check(context.Background()); err != nil || v != "6.10.0.1" {
		t.Fatalf("got %q, %v", v, err)
	}
	f.answer = func(request) string { return okText("hello") }
	if _, err := f.client(Options{}).Check(context.Background()); err == nil || !strings.Contains(err.Error(), "not an OpenNebula endpoint") {
		t.Fatalf("got %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	good := &fixedCredentials{text: "a:b"}
	for name, o := range map[string]Options{
		"no endpoint":   {Credentials: good},
		"scheme":        {Endpoint: "ftp://x/RPC2", Credentials: good},
		"no host":       {Endpoint: "http:///RPC2", Credentials: good},
		"password":      {Endpoint: "http://u:geheim@x/RPC2", Credentials: good},
		"bad URL":       {Endpoint: "http://u:geheim@x:%zz/", Credentials: good},
		"credentials":   {Endpoint: "http://x/RPC2"},
		"bad text":      {Endpoint: "http://x/RPC2", Credentials: &fixedCredentials{text: "geheim"}},
		"missing CA":    {Endpoint: "http://x/RPC2", Credentials: good, CAFile: "testdata/none.pem"},
		"CA is no PEM":  {Endpoint: "http://x/RPC2", Credentials: good, CAFile: "testdata/vm-done.xml"},
		"negative time": {Endpoint: "http://x/RPC2", Credentials: good, RequestTimeout: -1},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: no error", name)
		} else if strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: the error shows a secret: %v", name, err)
		}
	}
}
