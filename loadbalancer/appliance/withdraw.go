package appliance

import (
	"context"
	"slices"
	"sync"

	"github.com/onelb/onelb/loadbalancer/router"
)

// Signed reports whether a context has variables of the cluster with this identity.
func Signed(identity string, context map[string]string) bool {
	return context[newOwner("", identity, 0).ledger()] != ""
}

// Withdraw takes all that the cluster has on an appliance away, from every instance,
// and returns when that is done or ctx ends.
func Withdraw(ctx context.Context, o Options) error {
	c, err := New(o)
	if err != nil {
		return err
	}
	c.Set(router.Document{})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { _ = c.Run(ctx) }) // has no error but the end of ctx
	for {
		c.mu.Lock()
		changed := c.changed
		c.mu.Unlock()
		s := c.State()
		if len(s.Instances) > 0 && !slices.ContainsFunc(s.Instances, func(i router.InstanceState) bool { return !i.Current }) {
			cancel()
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
