package one

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// cached is a value that any number of readers share: it is read again when it
// is older than ttl, by one call at a time for all who ask meanwhile. Errors are
// not kept.
type cached[T any] struct {
	ttl     time.Duration
	timeout time.Duration // of one read
	read    func(context.Context) (T, error)
	flight  singleflight.Group

	mu    sync.Mutex // guards value and asOf
	value T
	asOf  time.Time // when the read of value began; zero: no value
}

func newCached[T any](ttl, timeout time.Duration, read func(context.Context) (T, error)) *cached[T] {
	return &cached[T]{ttl: ttl, timeout: timeout, read: read}
}

// get returns a value at most ttl old. The read goes on when the caller who
// began it gives up, since others may wait for it; it ends by its timeout.
func (c *cached[T]) get(ctx context.Context) (T, error) {
	if v, ok := c.fresh(); ok {
		return v, nil
	}
	ch := c.flight.DoChan("", func() (any, error) {
		if v, ok := c.fresh(); ok { // a flight that ended just before this one
			return v, nil
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.timeout)
		defer cancel()
		began := time.Now()
		v, err := c.read(ctx)
		if err != nil {
			return nil, err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.value, c.asOf = v, began
		return v, nil
	})
	var none T
	select {
	case <-ctx.Done():
		return none, ctx.Err()
	case r := <-ch:
		if r.Err != nil {
			return none, r.Err
		}
		v, _ := r.Val.(T)
		return v, nil
	}
}

func (c *cached[T]) fresh() (T, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.value, !c.asOf.IsZero() && time.Since(c.asOf) < c.ttl
}
