package one

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/OpenNebula/one/src/oca/go/src/goca"

	"github.com/onelb/onelb/ipam"
)

// callText makes a call whose result is a text.
func (c *Client) callText(ctx context.Context, method string, args ...any) (string, error) {
	resp, err := c.call(ctx, method, args...)
	if err != nil {
		return "", err
	}
	if resp.Body() == "" {
		return "", c.malformed(method, errors.New("a number where a text was expected"))
	}
	return resp.Body(), nil
}

// callID makes a call whose result is the ID of an object.
func (c *Client) callID(ctx context.Context, method string, args ...any) (int, error) {
	resp, err := c.call(ctx, method, args...)
	if err != nil {
		return 0, err
	}
	if resp.Body() != "" || resp.BodyInt() < 0 {
		return 0, c.malformed(method, errors.New("no ID where one was expected"))
	}
	return resp.BodyInt(), nil
}

// call makes one call, and again if the credentials were refused and there are
// others: a refused call has done nothing. Others are those that the source has by
// then, and those that were accepted before.
func (c *Client) call(ctx context.Context, method string, args ...any) (*goca.Response, error) {
	const most = 3
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	session, err := c.session.current()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ipam.ErrUnauthenticated, err)
	}
	for try := 1; ; try++ {
		resp, err := c.once(ctx, session, method, args)
		if err == nil {
			c.session.accepted(session)
			c.access.accepted()
			return resp, nil
		}
		if !errors.Is(err, ipam.ErrUnauthenticated) {
			return nil, err
		}
		if session = c.session.refused(session); session == "" || try == most {
			c.access.refused(err)
			return nil, err
		}
	}
}

func (c *Client) once(ctx context.Context, session, method string, args []any) (*goca.Response, error) {
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return nil, c.translate(ctx, method, fmt.Errorf("all %d connections are busy", cap(c.slots)))
	}
	requestsInFlight.Inc()
	defer requestsInFlight.Dec()
	start := time.Now()
	resp, err := c.send(ctx, session, method, args)
	requestDuration.WithLabelValues(method).Observe(time.Since(start).Seconds())
	requestsTotal.WithLabelValues(method, outcome(ctx, err)).Inc()
	if err != nil {
		return nil, c.translate(ctx, method, err)
	}
	return resp, nil
}

// send turns goca's panics on answers of an unexpected shape (it indexes into
// the result unchecked) into errors.
func (c *Client) send(ctx context.Context, session, method string, args []any) (resp *goca.Response, err error) {
	defer func() {
		if r := recover(); r != nil {
			resp, err = nil, fmt.Errorf("%w: %v", errMalformed, r)
		}
	}()
	rpc := goca.NewClient(goca.OneConfig{Endpoint: c.endpoint, Token: session}, c.http)
	return rpc.CallContext(ctx, method, args...)
}
