package crash

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Phase is where in a call the caller dies.
type Phase string

// The phases. Late freezes the caller and passes its call on when a successor
// has been at work already.
const (
	Before Phase = "before"
	After  Phase = "after"
	Late   Phase = "late"
)

// Point is a kind of call, such as "POST virtualips" or "one.vn.hold", and a phase.
type Point struct {
	Kind  string
	Phase Phase
}

// target is the call at which a caller dies: the n-th from now, of one kind or of any.
type target struct {
	kind  string
	n     int
	phase Phase
}

// Gate is the HTTP server that all calls of all instances go through:
// /<caller>/kube/... leads to the API server and /<caller>/RPC2 to OpenNebula.
type Gate struct {
	url      string
	api      *url.URL
	upstream http.RoundTripper
	one      http.Handler
	server   *http.Server
	seen     func(kind string)

	mu      sync.Mutex // guards callers
	callers map[string]*caller
}

// caller is one instance as the gate sees it.
type caller struct {
	gate *Gate
	dead chan struct{} // closed at the kill: nothing gets in or out any more
	gone chan struct{} // closed later: whoever waits for an answer is cut off
	late chan struct{} // closed when a late call may go on

	mu     sync.Mutex // guards all below
	target *target
	hit    Point
	flying int // calls that are on their way to the server
}

// newGate listens; seen is told the kind of each call.
func newGate(api string, token string, one http.Handler, seen func(string)) (*Gate, error) {
	u, err := url.Parse(api)
	if err != nil {
		return nil, err
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	g := &Gate{
		url: "http://" + listener.Addr().String(), api: u, one: one, seen: seen, callers: map[string]*caller{},
		upstream: bearer{token, &http.Transport{
			TLSClientConfig:    &tls.Config{InsecureSkipVerify: true},
			ForceAttemptHTTP2:  true,
			DisableCompression: true, // what the caller asked for is passed on
		}},
	}
	g.server = &http.Server{Handler: g, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = g.server.Serve(listener) }()
	return g, nil
}

type bearer struct {
	token string
	base  http.RoundTripper
}

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.base.RoundTrip(r)
}

func (g *Gate) close() error { return g.server.Close() }

// admit makes a caller of that name.
func (g *Gate) admit(name string) *caller {
	c := &caller{gate: g, dead: make(chan struct{}), gone: make(chan struct{}), late: make(chan struct{})}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.callers[name] = c
	return c
}

// arm sets the call at which the caller dies.
func (c *caller) arm(t target) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.target = &t
}

// armed reports whether the caller is still to die by a call.
func (c *caller) armed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.target != nil
}

// kill ends the caller now, whatever it does.
func (c *caller) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.die(Point{})
}

// die needs c.mu.
func (c *caller) die(p Point) {
	c.target = nil
	if !c.isDead() {
		c.hit = p
		close(c.dead)
	}
}

func (c *caller) isDead() bool {
	select {
	case <-c.dead:
		return true
	default:
		return false
	}
}

// quiet reports whether no call is on its way to a server.
func (c *caller) quiet() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flying == 0
}

// enter decides what becomes of a call. A caller that dies before it, or is
// dead, gets no answer, and the call goes nowhere.
func (c *caller) enter(kind string) (phase Phase, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isDead() {
		return "", false
	}
	if t := c.target; t != nil && (t.kind == "" || t.kind == kind) {
		if t.n--; t.n <= 0 {
			phase = t.phase
			c.target = nil // it is this call and no other
			if phase != After {
				c.die(Point{kind, phase})
			}
			if phase == Before {
				return phase, false
			}
		}
	}
	if phase != Late {
		c.flying++
	}
	return phase, true
}

// landed notes that the server has answered; true if the answer may be handed on.
func (c *caller) landed(kind string, phase Phase) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flying--
	if phase == After {
		c.die(Point{kind, After})
	}
	return !c.isDead()
}

// silence waits until the caller is cut off and ends its connection.
func (c *caller) silence(r *http.Request) {
	select {
	case <-c.gone:
	case <-r.Context().Done():
	}
	panic(http.ErrAbortHandler)
}

// ServeHTTP implements http.Handler.
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	g.mu.Lock()
	c := g.callers[name]
	g.mu.Unlock()
	if c == nil {
		http.Error(w, "no such caller", http.StatusNotFound)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	kind := kindOf(r, path, body)
	g.seen(kind)
	phase, ok := c.enter(kind)
	if !ok {
		c.silence(r)
	}
	if phase == Late {
		c.await(r)
	}
	if isWatch(r) {
		c.watch(w, r, path, kind, phase)
		return
	}
	resp := g.pass(r, path, body)
	if !c.landed(kind, phase) {
		c.silence(r)
	}
	maps.Copy(w.Header(), resp.Header())
	w.WriteHeader(resp.Code)
	_, _ = w.Write(resp.Body.Bytes())
}

// await holds a late call back. Nobody waits for its answer any more.
func (c *caller) await(*http.Request) {
	<-c.late
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flying++
}

// pass makes the call. It ends by itself: a server that has read a request
// executes it, whether the client lives or not.
func (g *Gate) pass(r *http.Request, path string, body []byte) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), time.Minute)
	defer cancel()
	if !strings.HasPrefix(path, "kube/") {
		in := r.Clone(ctx)
		in.URL.Path, in.Body = "/RPC2", io.NopCloser(bytes.NewReader(body))
		g.one.ServeHTTP(rec, in)
		rec.Header().Del("Connection")
		return rec
	}
	resp, err := g.upstream.RoundTrip(g.outbound(ctx, r, path, body))
	if err != nil {
		rec.Code = http.StatusBadGateway
		return rec
	}
	defer func() { _ = resp.Body.Close() }()
	maps.Copy(rec.Header(), resp.Header)
	rec.Code = resp.StatusCode
	_, _ = io.Copy(rec.Body, resp.Body)
	return rec
}

func (g *Gate) outbound(ctx context.Context, r *http.Request, path string, body []byte) *http.Request {
	out := r.Clone(ctx)
	out.RequestURI, out.Host = "", ""
	u := *g.api
	u.Path, u.RawQuery = strings.TrimPrefix(path, "kube"), r.URL.RawQuery
	out.URL, out.Body, out.ContentLength = &u, io.NopCloser(bytes.NewReader(body)), int64(len(body))
	out.Header.Del("Connection")
	return out
}

// watch passes a stream on until either side ends or the caller dies.
func (c *caller) watch(w http.ResponseWriter, r *http.Request, path, kind string, phase Phase) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	resp, err := c.gate.upstream.RoundTrip(c.gate.outbound(ctx, r, path, nil))
	if !c.landed(kind, phase) {
		if err == nil {
			_ = resp.Body.Close()
		}
		c.silence(r)
	}
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = resp.Body.Close() })
	defer stop()
	go func() {
		select {
		case <-c.dead:
			cancel()
		case <-ctx.Done():
		}
	}()
	maps.Copy(w.Header(), resp.Header)
	w.WriteHeader(resp.StatusCode)
	flush := http.NewResponseController(w)
	_ = flush.Flush()
	buffer := make([]byte, 32<<10)
	for {
		n, err := resp.Body.Read(buffer)
		if c.isDead() {
			c.silence(r)
		}
		if n > 0 {
			if _, werr := w.Write(buffer[:n]); werr != nil {
				return
			}
			_ = flush.Flush()
		}
		if err != nil {
			return
		}
	}
}

func isWatch(r *http.Request) bool {
	v := r.URL.Query().Get("watch")
	return v == "true" || v == "1"
}

// kindOf names a call without what is particular to one object.
func kindOf(r *http.Request, path string, body []byte) string {
	if !strings.HasPrefix(path, "kube/") {
		_, rest, _ := bytes.Cut(body, []byte("<methodName>"))
		method, _, _ := bytes.Cut(rest, []byte("</methodName>"))
		return string(method)
	}
	part := strings.Split(strings.TrimPrefix(path, "kube/"), "/")
	skip := 2 // api/v1
	if part[0] == "apis" {
		skip = 3
	}
	if len(part) <= skip {
		return fmt.Sprintf("%s /%s", r.Method, strings.Join(part, "/"))
	}
	part = part[skip:]
	if part[0] == "namespaces" && len(part) > 2 {
		part = part[2:]
	}
	verb, resource := r.Method, part[0]
	switch {
	case isWatch(r):
		verb = "WATCH"
	case verb == http.MethodGet && len(part) == 1:
		verb = "LIST"
	}
	if len(part) > 2 {
		resource += "/" + part[2]
	}
	return verb + " " + resource
}
