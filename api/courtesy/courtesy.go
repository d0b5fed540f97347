package courtesy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

const (
	// calm is for how long nothing urgent must have been written, and the event
	// have been there: what it is about is often written next.
	calm = 500 * time.Millisecond
	// longest is when an event is sent in any case.
	longest = 30 * time.Second
	// mostWaiting bounds the memory: with as many, events are sent as they come.
	mostWaiting = 20_000

	poll = 50 * time.Millisecond
	// patience is how long a write that is marked by Later waits for others.
	patience = 100 * time.Millisecond
	// attempts and between are those of client-go, which has its answer already and
	// so does not try again itself.
	attempts = 12
	between  = 10 * time.Second
	deadline = 30 * time.Second // of one attempt
)

type laterKey struct{}

// Later marks the writes that are made with the context returned: while urgent ones
// are under way, each waits for a tenth of a second at most.
func Later(ctx context.Context) context.Context { return context.WithValue(ctx, laterKey{}, true) }

// Configure has the events that clients of the configuration create give way to
// what all of them write of Services and VirtualIPs. The configuration is changed.
func Configure(c *rest.Config) {
	q := &queue{}
	c.Wrap(func(next http.RoundTripper) http.RoundTripper { return &transport{next: next, queue: q} })
}

type transport struct {
	next  http.RoundTripper
	queue *queue
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	switch {
	case urgent(r):
		t.queue.begin()
		defer t.queue.end()
	case writesStatus(r):
		if r.Context().Value(laterKey{}) != nil {
			t.queue.giveWay(r.Context())
		}
		defer t.queue.wrote()
	case createsEvent(r):
		return t.queue.keep(t.next, r)
	}
	return t.next.RoundTrip(r)
}

// WrappedRoundTripper lets client-go find the transport that cancels requests.
func (t *transport) WrappedRoundTripper() http.RoundTripper { return t.next }

// urgent: a Service waits for it.
func urgent(r *http.Request) bool {
	if r.Method == http.MethodGet {
		return false
	}
	return strings.Contains(r.URL.Path, "/services/") ||
		strings.Contains(r.URL.Path, "/virtualips") && !strings.HasSuffix(r.URL.Path, "/status")
}

// writesStatus: of a VirtualIP. Events wait for it.
func writesStatus(r *http.Request) bool {
	return r.Method == http.MethodPatch && strings.Contains(r.URL.Path, "/virtualips/") && strings.HasSuffix(r.URL.Path, "/status")
}

func createsEvent(r *http.Request) bool {
	return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/events") && r.Body != nil
}

// queue are the events that wait.
type queue struct {
	mu      sync.Mutex    // guards all below
	urgent  int           // urgent writes that are under way
	none    chan struct{} // closed when there are none any more; nil: there are none
	last    time.Time     // when something was written last that events wait for
	waiting []event
	sending bool // a goroutine is at it; it ends when there are none
}

type event struct {
	next http.RoundTripper
	r    *http.Request // without body
	body []byte
	at   time.Time
}

func (q *queue) begin() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.urgent++; q.none == nil {
		q.none = make(chan struct{})
	}
}

func (q *queue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.urgent--; q.urgent == 0 {
		close(q.none)
		q.none = nil
	}
	q.last = time.Now()
}

func (q *queue) wrote() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.last = time.Now()
}

// giveWay waits until nothing urgent is under way, not for long.
func (q *queue) giveWay(ctx context.Context) {
	q.mu.Lock()
	none := q.none
	q.mu.Unlock()
	if none == nil {
		return
	}
	select {
	case <-none:
	case <-time.After(patience):
	case <-ctx.Done():
	}
}

// keep takes an event and answers as the API server would.
func (q *queue) keep(next http.RoundTripper, r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	_ = r.Body.Close()
	if err != nil {
		return nil, err
	}
	e := event{next: next, r: r, body: body, at: time.Now()}
	if !q.add(e) {
		return next.RoundTrip(e.request(r.Context()))
	}
	return &http.Response{
		Status: "201 Created", StatusCode: http.StatusCreated, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": r.Header.Values("Content-Type")}, Request: r,
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}, nil
}

func (q *queue) add(e event) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) >= mostWaiting {
		return false
	}
	q.waiting = append(q.waiting, e)
	if !q.sending {
		q.sending = true
		go q.send()
	}
	return true
}

// send sends what waits, and ends when nothing does.
func (q *queue) send() {
	for {
		e, due, more := q.first()
		switch {
		case !more:
			return
		case due:
			e.send()
		default:
			<-time.After(poll)
		}
	}
}

// first takes the first event out if it is due.
func (q *queue) first() (e event, due, more bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		q.waiting, q.sending = nil, false
		return e, false, false
	}
	e = q.waiting[0]
	now := time.Now()
	quiet := q.urgent == 0 && now.Sub(q.last) >= calm && now.Sub(e.at) >= calm
	if !quiet && now.Sub(e.at) < longest {
		return e, false, true
	}
	q.waiting[0] = event{}
	q.waiting = q.waiting[1:]
	return e, true, true
}

// send tries for two minutes. An answer is the end, unless it says that the API server
// is too busy or unwell: an event that is refused is refused again, and one that is
// there already was sent by an attempt whose answer was lost.
func (e event) send() {
	for attempt := 1; ; attempt++ {
		err := e.try()
		if err == nil {
			return
		}
		if attempt == attempts {
			klog.ErrorS(err, "Cannot write an event, which is lost", "path", e.r.URL.Path)
			return
		}
		<-time.After(between)
	}
}

func (e event) try() error {
	// The caller's context has ended: it has its answer.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.r.Context()), deadline)
	defer cancel()
	resp, err := e.next.RoundTrip(e.request(ctx))
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode >= http.StatusInternalServerError:
		return fmt.Errorf("the API server answers %d", resp.StatusCode)
	case resp.StatusCode >= http.StatusBadRequest && resp.StatusCode != http.StatusConflict:
		klog.ErrorS(nil, "An event was refused", "path", e.r.URL.Path, "status", resp.Status)
	}
	return nil
}

func (e event) request(ctx context.Context) *http.Request {
	r := e.r.Clone(ctx)
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(e.body)), int64(len(e.body))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(e.body)), nil }
	return r
}
