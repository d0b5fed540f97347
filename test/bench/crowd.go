package bench

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/onelb/onelb/test/lab"
)

// crowdSize is how many connections are open while something happens.
const crowdSize = 1000

// crowdEvery is how often each of them carries a request.
const crowdEvery = 2 * time.Second

// crowd are connections that stay open and carry requests.
type crowd struct {
	cancel context.CancelFunc
	all    sync.WaitGroup

	mu     sync.Mutex // guards what follows
	asked  int
	broken []error
}

// dialer is a host that connections are opened from.
type dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// gather opens connections, in turn to these places, and keeps asking over each.
func gather(ctx context.Context, from dialer, n int, to ...netip.AddrPort) (*crowd, error) {
	running, cancel := context.WithCancel(ctx)
	c := &crowd{cancel: cancel}
	for i := range n {
		conn, err := from.DialContext(ctx, "tcp", to[i%len(to)].String())
		if err != nil {
			c.stop()
			return nil, fmt.Errorf("open connection %d: %w", i+1, err)
		}
		s := &session{conn, bufio.NewReader(conn)}
		c.all.Go(func() {
			defer func() { _ = conn.Close() }()
			c.run(running, s)
		})
	}
	return c, nil
}

// run asks until the context ends, and once more then.
func (c *crowd) run(ctx context.Context, s *session) {
	for ended := false; !ended; {
		err := s.ask()
		c.mu.Lock()
		c.asked++
		if err != nil {
			c.broken = append(c.broken, err)
		}
		c.mu.Unlock()
		if err != nil {
			return
		}
		ended = ctx.Err() != nil
		_ = pause(ctx, crowdEvery)
	}
}

// stop has each connection carry one more request and ends them. It returns how many
// broke, of the requests on all of them, and an example.
func (c *crowd) stop() (broken, asked int, example error) {
	c.cancel()
	c.all.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.broken) > 0 {
		example = c.broken[0]
	}
	return len(c.broken), c.asked, example
}

// under counts how many of a thousand connections break, and how many new ones fail,
// while something happens.
func (b *bench) under(ctx context.Context, row string, d *datacenter, happen func(ctx context.Context) error, to ...netip.AddrPort) error {
	c, err := gather(ctx, d.Internet(), crowdSize, to...)
	if err != nil {
		return err
	}
	// 50 new connections a second beside a thousand: what they wait for is the processor.
	fresh := lab.Probe(ctx, 20*time.Millisecond, func(context.Context) error {
		conn, err := d.Internet().Knock(ctx, to[0])
		if err != nil {
			return err
		}
		return conn.Close()
	})
	began := time.Now()
	err = happen(ctx)
	lasted := time.Since(began)
	knocks := fresh.Stop()
	broken, asked, example := c.stop()
	if err != nil {
		return err
	}
	b.add(row, float64(broken))
	b.note(row, "%d requests on them in %.0f s; of %d new connections meanwhile %d had no answer to their first packet", asked, lasted.Seconds(), knocks.Sent, knocks.Failed)
	if example != nil {
		b.note(row, "first: %v", example)
	}
	if knocks.Failed > 0 {
		b.note(row, "a new one: %v", knocks.Longest.Err)
	}
	return nil
}
