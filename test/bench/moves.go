package bench

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/onelb/onelb/test/lab"
	"github.com/onelb/onelb/test/lab/witness"
)

const (
	// A link with which users of other load balancers saw addresses flap.
	linkDelay, linkJitter = 200 * time.Millisecond, 100 * time.Millisecond
	linkLoss              = 10 // percent
	// learning is how long the detector may take to learn a new link.
	learning = time.Minute
	// flap is how long the link is cut, and then healed.
	flap = 3 * time.Second
)

// trouble is something that lasts. It goes on until its context ends, and repairs.
type trouble func(ctx context.Context, holder *lab.Node) error

// moves is how often an address moved.
type moves struct {
	learning, later int     // while the detector may learn, and after that
	gap             float64 // ms, the longest without an answer to who-has
}

func (m moves) all() float64 { return float64(m.learning + m.later) }

// endure counts the moves of an address while its first holder is in trouble. A
// move is one that clients see, or that the API server is told of, whichever are more.
func (t *target) endure(ctx context.Context, length time.Duration, what trouble) (moves, error) {
	holder, err := t.d.holder(ctx, t.addr)
	if err != nil {
		return moves{}, err
	}
	wire, record := t.d.watchWire(ctx, t.addr), witness.Read(ctx, t.d.onelb.VirtualIPs(), t.addr)
	defer record.Stop()
	defer wire.Stop()
	if err := wire.WaitAnswer(ctx); err != nil {
		return moves{}, err
	}
	during, end := context.WithTimeout(ctx, length)
	defer end()
	done := make(chan error, 1)
	go func() { done <- what(during, holder) }()
	first := min(learning, length/2)
	if err := pause(ctx, first); err != nil {
		return moves{}, errors.Join(err, <-done)
	}
	early := max(wire.Moves(), record.Moves())
	if err := <-done; err != nil {
		return moves{}, err
	}
	if err := ctx.Err(); err != nil {
		return moves{}, err
	}
	late := max(wire.Moves(), record.Moves()) - early
	gap := ms(wire.Stop().Longest.Duration)
	ctx, cancel := context.WithTimeout(ctx, recovery)
	defer cancel()
	return moves{early, late, gap}, t.waitWell(ctx)
}

// endured is a trouble in the shared lab.
func (b *bench) endured(ctx context.Context, length time.Duration, what trouble) (moves, error) {
	d, err := b.sharedLab(ctx)
	if err != nil {
		return moves{}, err
	}
	t, err := d.newTarget(ctx, lanPool)
	if err != nil {
		return moves{}, err
	}
	if err := pause(ctx, syncProxy); err != nil {
		return moves{}, err
	}
	m, err := t.endure(ctx, length, what)
	if err != nil {
		return m, err
	}
	return m, t.remove(ctx)
}

func measureDelayLoss(ctx context.Context, b *bench) error {
	const row = "failover_delay_loss_moves"
	length := b.lasting(10 * time.Minute)
	m, err := b.endured(ctx, length, func(ctx context.Context, holder *lab.Node) error {
		link := holder.Link(lab.Private)
		if err := errors.Join(link.Delay(linkDelay, linkJitter), link.Drop(linkLoss)); err != nil {
			return err
		}
		<-ctx.Done()
		return link.Clear()
	})
	if err != nil {
		return err
	}
	b.add(row, m.all())
	b.note(row, "lasts %v: %d moves in the first %v, %d later", length, m.learning, min(learning, length/2), m.later)
	return nil
}

// measureStarved stops the holder's agent again and again, for as long as a
// machine without a free core would.
func measureStarved(ctx context.Context, b *bench) error {
	const row = "failover_starved_moves"
	length := b.lasting(10 * time.Minute)
	for _, c := range []struct{ run, stand time.Duration }{
		{600 * time.Millisecond, 400 * time.Millisecond},
		{500 * time.Millisecond, 1500 * time.Millisecond},
	} {
		m, err := b.endured(ctx, length, func(ctx context.Context, holder *lab.Node) error { return starve(ctx, holder, c.run, c.stand) })
		if err != nil {
			return fmt.Errorf("stands %v: %w", c.stand, err)
		}
		b.add(row, m.all())
		b.note(row, "runs %v, stands %v, for %v: %g moves, no answer to who-has for at most %.0f ms", c.run, c.stand, length, m.all(), m.gap)
	}
	return nil
}

func starve(ctx context.Context, n *lab.Node, run, stand time.Duration) error {
	for ctx.Err() == nil {
		if err := n.Agent().Signal(syscall.SIGSTOP); err != nil {
			return err
		}
		_ = pause(ctx, stand) // it ends with ctx
		if err := n.Agent().Signal(syscall.SIGCONT); err != nil {
			return err
		}
		_ = pause(ctx, run)
	}
	return nil
}

func measureFlapping(ctx context.Context, b *bench) error {
	const row = "failover_flapping_moves"
	length := b.lasting(5 * time.Minute)
	m, err := b.endured(ctx, length, func(ctx context.Context, holder *lab.Node) error {
		link := holder.Link(lab.Private)
		for ctx.Err() == nil {
			if err := link.Cut(); err != nil {
				return err
			}
			_ = pause(ctx, flap) // it ends with ctx
			if err := link.Heal(); err != nil {
				return err
			}
			_ = pause(ctx, flap)
		}
		return nil
	})
	if err != nil {
		return err
	}
	b.add(row, m.all())
	b.note(row, "lasts %v: the link is cut for %v, whole for %v, and so on", length, flap, flap)
	return nil
}
