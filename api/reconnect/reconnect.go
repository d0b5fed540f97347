// Package reconnect makes clients of the API server find it again soon after it
// was away.
//
// The watches of client-go try again after a pause that doubles with each failed
// attempt, up to 30 to 60 seconds, so that after an outage of a minute everything
// that depends on them is late by another one. Here, a read that finds nobody at
// the other end is not failed but tried again about once a second until it
// reaches somebody or its context ends; for the caller it takes long, and its
// pauses do not grow. What the API server answers, whatever it is, goes to the
// caller at once, and so does every failure of a write.
package reconnect

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"k8s.io/client-go/rest"
)

const (
	// dialTimeout is short: a host that comes back does not answer packets that
	// were sent to it before.
	dialTimeout = 3 * time.Second
	keepAlive   = 30 * time.Second
	// pause is the middle of what lies between two attempts; agents of many
	// nodes try at different times.
	pause = time.Second
)

// Configure makes clients of the configuration wait for an API server that is
// away. The configuration is changed; it must have no Dial of its own.
func Configure(c *rest.Config) {
	c.Dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive}).DialContext
	c.Wrap(func(next http.RoundTripper) http.RoundTripper { return &transport{next} })
}

type transport struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	for {
		resp, err := t.next.RoundTrip(r)
		if err == nil || r.Method != http.MethodGet || !unreached(err) || !sleep(r.Context()) {
			return resp, err
		}
	}
}

// WrappedRoundTripper lets client-go find the transport that cancels requests.
func (t *transport) WrappedRoundTripper() http.RoundTripper { return t.next }

// unreached: there was no connection, so that nobody has seen the request.
func unreached(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// sleep returns false when ctx has ended.
func sleep(ctx context.Context) bool {
	d := pause/2 + rand.N(pause) //nolint:gosec // spreads load, keeps no secret
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
