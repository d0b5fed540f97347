package courtesy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// server is what is behind the transport. It notes what it gets, and when.
type server struct {
	mu    sync.Mutex // guards all below
	got   []string
	at    []time.Time
	fails int           // of the next requests
	with  int           // what failed ones are answered; 0: there is no answer
	takes time.Duration // to answer
}

// slow makes the server take so long for requests from now on.
func (s *server) slow(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takes = d
}

func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	body := ""
	if r.Body != nil {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		body = " " + string(b)
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	takes := s.takes
	s.mu.Unlock()
	time.Sleep(takes)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails > 0 {
		s.fails--
		if s.with != 0 {
			return &http.Response{StatusCode: s.with, Body: io.NopCloser(strings.NewReader("{}"))}, nil
		}
		return nil, errors.New("away")
	}
	s.got, s.at = append(s.got, r.Method+" "+r.URL.Path+body), append(s.at, time.Now())
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader("{}"))}, nil
}

func (s *server) list() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

type client struct {
	t         *testing.T
	transport http.RoundTripper
}

func newClient(t *testing.T) (*client, *server) {
	s, cfg := &server{}, &rest.Config{}
	Configure(cfg)
	return &client{t, cfg.WrapTransport(s)}, s
}

func (c *client) do(method, path, body string) *http.Response {
	c.t.Helper()
	ctx, cancel := context.WithCancel(c.t.Context())
	defer cancel() // as client-go does when it has the answer
	r, err := http.NewRequestWithContext(ctx, method, "https://api"+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := c.transport.RoundTrip(r)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp
}

const (
	events    = "/api/v1/namespaces/ns/events"
	status    = "/api/v1/namespaces/ns/services/web/status"
	addresses = "/apis/onelb.io/v1alpha1/virtualips"
)

func TestEventsGiveWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newClient(t)
		c.do("POST", events, "1")
		c.do("POST", events, "2")
		for range 10 {
			time.Sleep(calm / 2)
			c.do("PATCH", status, "")
			c.do("POST", addresses, "")
		}
		if n := len(s.list()); n != 20 {
			t.Fatalf("%d requests have arrived, want the urgent ones", n)
		}
		time.Sleep(calm + 5*poll)
		got := s.list()
		if n := len(got); n != 22 || got[20] != "POST "+events+" 1" || got[21] != "POST "+events+" 2" {
			t.Errorf("after them: %v", got[20:])
		}
		// It goes on for ever.
		c.do("POST", events, "3")
		begin := time.Now()
		for time.Since(begin) < longest-calm {
			time.Sleep(calm / 2)
			c.do("PATCH", status, "")
		}
		if slices.Contains(s.list(), "POST "+events+" 3") {
			t.Error("the third event was sent among urgent writes")
		}
		for time.Since(begin) < longest+calm {
			time.Sleep(calm / 2)
			c.do("PATCH", status, "")
		}
		if !slices.Contains(s.list(), "POST "+events+" 3") {
			t.Error("an event waits for longer than it may")
		}
	})
}

// What is marked waits while something urgent is under way, not for ever, and events
// wait for it.
func TestLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newClient(t)
		hold := func() time.Duration {
			begin := time.Now()
			r, err := http.NewRequestWithContext(Later(t.Context()), http.MethodPatch, "https://api"+addresses+"/10.0.0.1/status", strings.NewReader(""))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.transport.RoundTrip(r); err != nil {
				t.Fatal(err)
			}
			return time.Since(begin)
		}
		if took := hold(); took != 0 {
			t.Errorf("nothing is under way: %v", took)
		}
		busy := func(d time.Duration) {
			s.slow(d)
			go c.do("POST", addresses, "")
			synctest.Wait()
			s.slow(0)
		}
		busy(patience / 2)
		if took := hold(); took != patience/2 {
			t.Errorf("until the urgent write has ended: %v", took)
		}
		busy(3 * patience)
		if took := hold(); took != patience {
			t.Errorf("an urgent write that hangs: %v", took)
		}
		time.Sleep(longest)
		c.do("POST", events, "1")
		for range 5 {
			time.Sleep(calm / 2)
			hold()
		}
		if slices.Contains(s.list(), "POST "+events+" 1") {
			t.Error("the event was sent meanwhile")
		}
		time.Sleep(calm + 5*poll)
		if !slices.Contains(s.list(), "POST "+events+" 1") {
			t.Error("the event was not sent afterwards")
		}
	})
}

// All else goes through at once, and keeps nobody waiting.
func TestOnlyEventsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newClient(t)
		begin := time.Now()
		for _, r := range [][2]string{
			{"PATCH", events + "/web.1"}, {"GET", events}, {"PUT", "/apis/coordination.k8s.io/v1/namespaces/ns/leases/l"}, {"PATCH", addresses + "/10.0.0.1/status"}, {"GET", status},
		} {
			c.do(r[0], r[1], "")
		}
		if n := len(s.list()); n != 5 || time.Since(begin) != 0 {
			t.Errorf("%d after %v", n, time.Since(begin))
		}
		c.do("POST", events, "1")
		time.Sleep(calm + 2*poll)
		if n := len(s.list()); n != 6 {
			t.Error("the event waits although nothing urgent was written")
		}
	})
}

func TestEventsAreTriedAgain(t *testing.T) {
	for _, with := range []int{0, http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		synctest.Test(t, func(t *testing.T) {
			c, s := newClient(t)
			s.fails, s.with = attempts-1, with
			c.do("POST", events, "1")
			time.Sleep(attempts * between)
			s.mu.Lock()
			s.fails = attempts
			s.mu.Unlock()
			c.do("POST", events, "2") // lost
			c.do("POST", events, "3")
			time.Sleep(attempts * between)
			if got := s.list(); !slices.Equal(got, []string{"POST " + events + " 1", "POST " + events + " 3"}) {
				t.Errorf("answers of %d: %v", with, got)
			}
		})
	}
}

// What is refused is refused again: it keeps the others waiting for nothing.
func TestRefusedEventsAreNotTriedAgain(t *testing.T) {
	for _, with := range []int{http.StatusForbidden, http.StatusConflict} {
		synctest.Test(t, func(t *testing.T) {
			c, s := newClient(t)
			s.fails, s.with = 1, with
			c.do("POST", events, "1")
			c.do("POST", events, "2")
			time.Sleep(calm + 5*poll)
			if got := s.list(); !slices.Equal(got, []string{"POST " + events + " 2"}) {
				t.Errorf("after an answer of %d: %v", with, got)
			}
		})
	}
}

func TestTooManyAreSentAsTheyCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newClient(t)
		for i := range mostWaiting + 10 {
			c.do("POST", events, fmt.Sprint(i))
		}
		if n := len(s.list()); n != 10 {
			t.Errorf("%d were sent at once, want 10", n)
		}
		time.Sleep(time.Minute)
		if n := len(s.list()); n != mostWaiting+10 {
			t.Errorf("%d were sent in the end", n)
		}
	})
}

// What client-go makes of the answer, in both encodings.
func TestAnswerIsTheEvent(t *testing.T) {
	for _, encoding := range []string{"application/json", "application/vnd.kubernetes.protobuf"} {
		synctest.Test(t, func(t *testing.T) {
			s, cfg := &server{}, &rest.Config{Host: "https://api", ContentConfig: rest.ContentConfig{ContentType: encoding}}
			Configure(cfg)
			cfg.Transport = s
			kube, err := kubernetes.NewForConfig(cfg)
			if err != nil {
				t.Fatal(err)
			}
			e := &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web.1"}, Reason: "IPAllocated", Message: "m"}
			got, err := kube.CoreV1().Events("ns").CreateWithEventNamespaceWithContext(t.Context(), e)
			if err != nil || got.Name != "web.1" || got.Reason != "IPAllocated" {
				t.Errorf("%s: %+v, %v", encoding, got, err)
			}
			time.Sleep(time.Minute)
			if n := len(s.list()); n != 1 {
				t.Errorf("%s: %d requests", encoding, n)
			}
		})
	}
}
