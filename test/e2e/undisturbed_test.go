package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/onelb/onelb/test/lab"
)

// flow is one TCP connection over which requests follow each other.
type flow struct {
	conn net.Conn
	stop chan struct{}
	done sync.WaitGroup

	mu      sync.Mutex // guards what follows
	answers int
	pod     string
	err     error
	closed  bool
}

// open connects to an address and keeps asking.
func (w *world) open(a netip.Addr) *flow {
	w.T.Helper()
	conn, err := w.ClientOf(a).DialContext(w.T.Context(), "tcp", netip.AddrPortFrom(a, port).String())
	w.Must(err)
	f := &flow{conn: conn, stop: make(chan struct{})}
	f.done.Go(func() { f.run(a) })
	w.T.Cleanup(func() { _ = f.close() })
	return f
}

func (f *flow) run(a netip.Addr) {
	reader := bufio.NewReader(f.conn)
	for {
		select {
		case <-f.stop:
			return
		case <-time.After(20 * time.Millisecond):
		}
		got, err := exchange(f.conn, reader, a)
		f.mu.Lock()
		if err == nil && f.pod != "" && f.pod != got.Pod {
			err = fmt.Errorf("the connection has moved from %s to %s", f.pod, got.Pod)
		}
		f.err, f.pod = err, got.Pod
		f.answers++
		f.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// exchange asks once over a connection. The machine may be busy, so the time that it
// takes says nothing.
func exchange(conn net.Conn, reader *bufio.Reader, a netip.Addr) (lab.Answer, error) {
	var got lab.Answer
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return got, err
	}
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", netip.AddrPortFrom(a, port)); err != nil {
		return got, err
	}
	resp, err := http.ReadResponse(reader, nil)
	if err != nil {
		return got, err
	}
	defer func() { _ = resp.Body.Close() }()
	return got, json.NewDecoder(resp.Body).Decode(&got)
}

// close ends the flow and returns what broke it before, if anything did.
func (f *flow) close() error {
	select {
	case <-f.stop:
	default:
		close(f.stop)
	}
	f.done.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil && f.answers < 3 {
		f.err = fmt.Errorf("only %d answers", f.answers)
	}
	if f.err == nil && !f.closed {
		// One lost segment is sent again after 200 ms; more of them are an outage.
		f.err = lab.Lost(f.conn, 2)
	}
	f.closed = true
	_ = f.conn.Close()
	return f.err
}

// knocks are new connections, one after the other on a fixed schedule.
type knocks struct {
	cancel context.CancelFunc
	all    sync.WaitGroup

	mu     sync.Mutex // guards what follows
	sent   int
	failed []string
}

// knock opens a connection to an address every 50 ms.
func (w *world) knock(a netip.Addr) *knocks {
	ctx, cancel := context.WithCancel(w.T.Context())
	k := &knocks{cancel: cancel}
	k.all.Go(func() {
		for ctx.Err() == nil {
			k.all.Go(func() { k.once(w.T.Context(), w.ClientOf(a), a) })
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	return k
}

func (k *knocks) once(ctx context.Context, from *lab.Host, a netip.Addr) {
	begin := time.Now()
	conn, err := from.Knock(ctx, netip.AddrPortFrom(a, port))
	if err == nil {
		_, err = exchange(conn, bufio.NewReader(conn), a)
		_ = conn.Close()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sent++
	if err != nil {
		k.failed = append(k.failed, fmt.Sprintf("%s: %v", begin.Format("15:04:05.000"), err))
	}
}

// stop ends it and returns what went wrong.
func (k *knocks) stop() error {
	k.cancel()
	k.all.Wait()
	if k.sent == 0 || len(k.failed) > 0 {
		return fmt.Errorf("%d of %d failed: %q", len(k.failed), k.sent, k.failed)
	}
	return nil
}

// watched are a Service's flows and new connections while something happens.
type watched struct {
	w      *world
	flows  map[netip.Addr]*flow
	knocks map[netip.Addr]*knocks
}

func (w *world) watch(addrs ...netip.Addr) *watched {
	w.T.Helper()
	x := &watched{w: w, flows: map[netip.Addr]*flow{}, knocks: map[netip.Addr]*knocks{}}
	for _, a := range addrs {
		w.steady(a)
		x.flows[a], x.knocks[a] = w.open(a), w.knock(a)
	}
	return x
}

// steady waits until an address answers many times in a row: the nodes'
// kube-proxies learn of a new Service one after the other.
func (w *world) steady(a netip.Addr) {
	w.T.Helper()
	w.Eventually("steady answers from "+a.String(), func(ctx context.Context) error {
		for range 12 {
			if _, err := w.Ask(ctx, a, port, corev1.ProtocolTCP); err != nil {
				return err
			}
		}
		return nil
	})
}

// undisturbed ends the watch: connections live, and no new connection failed.
func (x *watched) undisturbed(during string) {
	x.w.T.Helper()
	for a, f := range x.flows {
		if err := f.close(); err != nil {
			x.w.T.Errorf("%s: the connection to %s was disturbed: %v", during, a, err)
		}
		if err := x.knocks[a].stop(); err != nil {
			x.w.T.Errorf("%s: new connections to %s were disturbed: %v", during, a, err)
		}
	}
}

// TestUndisturbed restarts and kills programs, and makes and deletes other
// Services, under running connections.
func TestUndisturbed(t *testing.T) {
	w := newWorld(t)
	var addrs []netip.Addr
	names := []string{"calm-lan", "calm-internet", "calm-direct"}
	for i, pool := range []string{"lan", "internet", "direct"} {
		addrs = append(addrs, w.serve(web, names[i], pool)...)
	}
	steps := []struct {
		name string
		do   func() error
	}{
		{"router agent restarted", w.Router(1).Agent().Restart},
		{"router agent killed", func() error { return errors.Join(routerFault.away(w), routerFault.back(w)) }},
		{"cloud-controller-manager restarted", w.CCM().Restart},
		{"node agent restarted", w.Agent(1).Restart},
		{"node agent killed", func() error { return errors.Join(nodeFault.away(w), nodeFault.back(w)) }},
		{"other Services come and go", func() error {
			r := newRound(w, "other")
			r.create()
			r.complete()
			r.delete()
			return nil
		}},
	}
	for _, s := range steps {
		x := w.watch(addrs...)
		time.Sleep(300 * time.Millisecond)
		w.Must(s.do())
		time.Sleep(4 * time.Second) // longer than an address lives unrenewed
		x.undisturbed(s.name)
	}
	w.Remove(names...)
	w.NothingLeft()
}
