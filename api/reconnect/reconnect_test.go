package reconnect

import (
	"context"
	"errors"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

var errDial = &net.OpError{Op: "dial", Err: errors.New("connection refused")}

// away is a server that comes after a while.
func away(begin time.Time, d time.Duration) http.RoundTripper {
	return &transport{roundTripper(func(*http.Request) (*http.Response, error) {
		if time.Since(begin) < d {
			return nil, errDial
		}
		return &http.Response{StatusCode: http.StatusOK}, nil
	})}
}

func request(ctx context.Context, method string) *http.Request {
	r, err := http.NewRequestWithContext(ctx, method, "https://api.example:6443/api/v1/services?watch=1", nil)
	if err != nil {
		panic(err)
	}
	return r
}

// TestReadWaits: a read outlasts an hour's outage and is answered within two
// seconds of its end.
func TestReadWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		resp, err := away(begin, time.Hour).RoundTrip(request(t.Context(), http.MethodGet))
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(resp, err)
		}
		if late := time.Since(begin) - time.Hour; late > 2*time.Second {
			t.Errorf("answered %s after the server came", late)
		}
	})
}

// TestReadEnds with its context, and a write, or a failure of another kind, at once.
func TestReadEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := away(begin, time.Hour).RoundTrip(request(ctx, http.MethodGet)); !errors.Is(err, error(errDial)) {
			t.Errorf("got %v", err)
		}
		if d := time.Since(begin); d != 10*time.Second {
			t.Errorf("ended after %s", d)
		}
		begin = time.Now()
		if _, err := away(begin, time.Hour).RoundTrip(request(t.Context(), http.MethodPatch)); err == nil {
			t.Error("a write waited")
		}
		broken := &transport{roundTripper(func(*http.Request) (*http.Response, error) {
			return nil, &net.OpError{Op: "read", Err: errors.New("connection reset")}
		})}
		if _, err := broken.RoundTrip(request(t.Context(), http.MethodGet)); err == nil {
			t.Error("a broken connection was tried again")
		}
		if d := time.Since(begin); d != 0 {
			t.Errorf("they took %s", d)
		}
	})
}
