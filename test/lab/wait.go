package lab

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/onelb/onelb/test/lab/proc"
)

// ErrEnded is returned when a program ends while something waits for it.
var ErrEnded = errors.New("program ended")

const (
	// startTimeout bounds the start of each part of the lab.
	startTimeout = 90 * time.Second
	// pollEvery is how often a wait looks again, and attemptTimeout how long a look
	// may take.
	pollEvery      = 25 * time.Millisecond
	attemptTimeout = 5 * time.Second
)

// scaled is a time of an ordinary machine on this one.
func (l *Lab) scaled(d time.Duration) time.Duration { return d * time.Duration(l.options.Slowness) }

// wait calls f until it returns nil and fails, with f's latest error, when ctx
// or startTimeout ends.
func (l *Lab) wait(ctx context.Context, what string, units []*proc.Unit, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, l.scaled(startTimeout))
	defer cancel()
	for {
		attempt, end := context.WithTimeout(ctx, l.scaled(attemptTimeout))
		err := f(attempt)
		end()
		if err == nil {
			return nil
		}
		for _, u := range units {
			if !u.Running() {
				return fmt.Errorf("wait for %s: %s: %w (%w); its last lines:\n%s", what, u.Name(), ErrEnded, u.Err(), u.Tail(15))
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w; last: %w", what, ctx.Err(), err)
		case <-time.After(l.scaled(pollEvery)):
		}
	}
}

// waitURL returns when a program answers an HTTP request from its own host with
// 200.
func (l *Lab) waitURL(ctx context.Context, h *Host, u *proc.Unit, url string) error {
	return l.wait(ctx, u.Name(), []*proc.Unit{u}, func(ctx context.Context) error {
		status, body, err := h.Get(ctx, url)
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("%s: status %d: %s", url, status, body)
		}
		return err
	})
}
