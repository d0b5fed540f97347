package bench

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/onelb/onelb/test/lab"
)

// occurrence is one time that a fault happens.
type occurrence struct {
	*target
	n      int // from 0
	holder *lab.Node
	w      *watcher
}

// faultLimit is enough for all that happens within seconds.
const faultLimit = 90 * time.Second

// fault is something that happens to the holder of an address.
type fault struct {
	name string // ends the names of its rows
	// limit bounds it, the preparation included. 0: faultLimit.
	limit time.Duration
	// happen returns when the fault has had its effect.
	happen func(ctx context.Context, o occurrence) error
	// undo repairs; nil: there is nothing to repair.
	undo func(ctx context.Context, o occurrence) error
}

// faultRows are the rows that each fault has.
func faultRows(name string) []column {
	return []column{{"failover_" + name, "ms"}, {"who_has_gap_" + name, "ms"}, {"dual_answer_" + name, "ms"}}
}

// repeat lets a fault happen n times.
func (b *bench) repeat(ctx context.Context, f fault, n int) error {
	d, err := b.sharedLab(ctx)
	if err != nil {
		return err
	}
	t, err := d.newTarget(ctx, lanPool)
	if err != nil {
		return err
	}
	for i := range n {
		if err := b.once(ctx, f, occurrence{target: t, n: i}); err != nil {
			return fmt.Errorf("%d of %d: %w", i+1, n, err)
		}
	}
	return t.remove(ctx)
}

func (b *bench) once(ctx context.Context, f fault, o occurrence) error {
	_, seen, err := o.measure(ctx, cmp.Or(f.limit, faultLimit), func(ctx context.Context, holder *lab.Node, w *watcher) error {
		o.holder, o.w = holder, w
		return f.happen(ctx, o)
	})
	if err != nil {
		return err
	}
	b.say("  %s on %s: UDP %.0f ms, HTTP %.0f ms, who-has %.0f ms, two answered %.0f ms",
		f.name, o.holder.ShortName(), seen.udp, seen.http, seen.whoHas, seen.dual)
	for _, l := range seen.lost {
		b.say("    %s", l)
	}
	b.add("failover_"+f.name, seen.client())
	b.add("who_has_gap_"+f.name, seen.whoHas)
	b.add("dual_answer_"+f.name, seen.dual)
	ctx, cancel := context.WithTimeout(ctx, recovery)
	defer cancel()
	if f.undo != nil {
		if err := f.undo(ctx, o); err != nil {
			return fmt.Errorf("repair: %w", err)
		}
	}
	return o.waitWell(ctx)
}

func startAgent(_ context.Context, o occurrence) error { return o.holder.Agent().Start() }

// measureKillRestart kills the holder's agent; its supervisor starts it again
// after a second.
func measureKillRestart(ctx context.Context, b *bench) error {
	return b.repeat(ctx, fault{name: "kill_restart", happen: func(ctx context.Context, o occurrence) error {
		if err := o.holder.Agent().Kill(); err != nil {
			return err
		}
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
		return o.holder.Agent().Start()
	}}, b.times(20))
}

// measureKillForever kills the holder's agent, and nobody starts it again until
// another node has the address.
func measureKillForever(ctx context.Context, b *bench) error {
	return b.repeat(ctx, fault{
		name: "kill_forever",
		happen: func(ctx context.Context, o occurrence) error {
			if err := o.holder.Agent().Kill(); err != nil {
				return err
			}
			return o.w.waitMoved(ctx, o.holder)
		},
		undo: startAgent,
	}, b.times(20))
}

// measureStop lets the holder's agent hang until another node has the address.
func measureStop(ctx context.Context, b *bench) error {
	return b.repeat(ctx, fault{
		name: "sigstop",
		happen: func(ctx context.Context, o occurrence) error {
			if err := o.holder.Agent().Signal(syscall.SIGSTOP); err != nil {
				return err
			}
			if err := o.w.waitMoved(ctx, o.holder); err != nil {
				return err
			}
			// Going on is part of the fault: it must not claim what it had.
			if err := pause(ctx, afterFault); err != nil {
				return err
			}
			return o.holder.Agent().Signal(syscall.SIGCONT)
		},
	}, b.times(20))
}

// measureDrain takes the holder out of service in order: a drain begins with a
// cordon, in turns with an agent that gets SIGTERM because its DaemonSet is gone.
func measureDrain(ctx context.Context, b *bench) error {
	err := b.repeat(ctx, fault{
		name: "drain",
		happen: func(ctx context.Context, o occurrence) error {
			var err error
			if o.n%2 == 0 {
				_, err = o.d.Kubectl(ctx, "cordon", o.holder.ShortName())
			} else {
				_, err = o.d.Kubectl(ctx, "delete", "daemonset", "-n", lab.SystemNamespace, "onelb-node", "--cascade=orphan")
				err = errors.Join(err, o.holder.Agent().Stop())
			}
			if err != nil {
				return err
			}
			return o.w.waitMoved(ctx, o.holder)
		},
		undo: func(ctx context.Context, o occurrence) error {
			if o.n%2 != 0 {
				return errors.Join(o.d.ApplyManifests(ctx), o.holder.Agent().Start())
			}
			_, err := o.d.Kubectl(ctx, "uncordon", o.holder.ShortName())
			return err
		},
	}, max(b.times(20), 2))
	if err != nil {
		return err
	}
	for _, c := range faultRows("drain") {
		var by [2][]float64
		for i, x := range b.samples[c.name] {
			by[i%2] = append(by[i%2], x)
		}
		cordon, term := newRow("", "", by[0], nil), newRow("", "", by[1], nil)
		b.note(c.name, "cordon (n=%d): median %g, max %g; SIGTERM for good (n=%d): median %g, max %g",
			cordon.N, cordon.Median, cordon.Max, term.N, term.Median, term.Max)
	}
	return nil
}

// sessions is how many connections are open during a rolling restart.
const sessions = 20

// measureRolling restarts the agents of all nodes, one after the other, each when
// the one before it is ready, as a DaemonSet does.
func measureRolling(ctx context.Context, b *bench) error {
	broken, moved, opened := 0, 0, 0
	err := b.repeat(ctx, fault{name: "rolling", happen: func(ctx context.Context, o occurrence) error {
		open, err := o.openSessions(ctx, sessions)
		defer func() {
			for _, s := range open {
				_ = s.conn.Close()
			}
		}()
		if err != nil {
			return err
		}
		for _, n := range o.d.Nodes() {
			if err := errors.Join(n.Agent().Restart(), o.d.WaitReady(ctx), o.d.WaitPeers(ctx)); err != nil {
				return err
			}
		}
		for _, s := range open {
			opened++
			if err := s.ask(); err != nil {
				broken++
			}
		}
		if o.w.whoHas.Last() != o.holder.Link(lab.Private).MAC().String() {
			moved++
		}
		return nil
	}}, b.times(20))
	b.note("failover_rolling", "%d of %d open connections broke; the address moved %d times", broken, opened, moved)
	return err
}

// session is an open connection to a pod.
type session struct {
	conn net.Conn
	in   *bufio.Reader
}

// openSessions opens connections on which there has been an answer. It returns
// those that are open also beside an error.
func (t *target) openSessions(ctx context.Context, n int) ([]*session, error) {
	var out []*session
	for range n {
		conn, err := t.d.LAN().DialContext(ctx, "tcp", netip.AddrPortFrom(t.addr, port).String())
		if err != nil {
			return out, fmt.Errorf("open a connection: %w", err)
		}
		s := &session{conn, bufio.NewReader(conn)}
		out = append(out, s)
		if err := s.ask(); err != nil {
			return out, fmt.Errorf("open a connection: %w", err)
		}
	}
	return out, nil
}

// ask makes one request and reads its answer.
func (s *session) ask() error {
	if err := s.conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	if _, err := io.Copy(s.conn, strings.NewReader("GET / HTTP/1.1\r\nHost: lab\r\n\r\n")); err != nil {
		return err
	}
	resp, err := http.ReadResponse(s.in, nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}

const (
	// apiAway is how long the API server is away around the first of the failovers
	// without it; around the others it is apiAwayShort before them.
	apiAway      = 10 * time.Minute
	apiAwayShort = 5 * time.Second
)

// measureAPIDown loses the holder's machine while there is no API server.
func measureAPIDown(ctx context.Context, b *bench) error {
	half := b.lasting(apiAway) / 2
	b.note("failover_api_down", "the API server is away from %v before to %v after the first loss, from %v before each other one", half, half, apiAwayShort)
	return b.repeat(ctx, fault{
		name:  "api_down",
		limit: apiAway + 2*time.Minute,
		happen: func(ctx context.Context, o occurrence) error {
			before, after := half, half
			if o.n > 0 {
				before, after = apiAwayShort, 0
			}
			if err := o.d.StopAPIServer(); err != nil {
				return err
			}
			if err := pause(ctx, before); err != nil {
				return err
			}
			if err := o.holder.PowerOff(); err != nil {
				return err
			}
			if err := o.w.waitMoved(ctx, o.holder); err != nil {
				return err
			}
			return pause(ctx, after)
		},
		undo: func(ctx context.Context, o occurrence) error {
			if err := o.d.StartAPIServer(ctx); err != nil {
				return err
			}
			return o.holder.PowerOn(ctx)
		},
	}, b.times(20))
}
