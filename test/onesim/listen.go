package onesim

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	defaultConns       = 15
	defaultIdleTimeout = 15 * time.Second
)

// lifetimeKey finds the context of the server in that of a request.
type lifetimeKey struct{}

// lifetime is as long as the server: a call that oned has read is executed even when its client has gone.
func lifetime(ctx context.Context) context.Context {
	if c, ok := ctx.Value(lifetimeKey{}).(context.Context); ok {
		return c
	}
	return context.WithoutCancel(ctx)
}

// Serve answers on the listener until ctx ends or the listener fails, and closes it. It returns when all calls have
// ended; those that run are cut off, as when oned is killed. The state stays: Serve may be called again.
func (s *Sim) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := setBacklog(ln, bound(s.opts.Backlog)); err != nil {
		_ = ln.Close()
		return fmt.Errorf("set the backlog of %s: %w", ln.Addr(), err)
	}
	idle := s.opts.IdleTimeout
	if idle == 0 {
		idle = defaultIdleTimeout
	}
	calls := &gate{next: s.Handler()}
	srv := &http.Server{
		Handler:     calls,
		ReadTimeout: idle,
		ErrorLog:    log.New(io.Discard, "", 0),
		BaseContext: func(net.Listener) context.Context { return context.WithValue(ctx, lifetimeKey{}, ctx) },
	}
	srv.SetKeepAlivesEnabled(false)
	limited := newLimitListener(ln, bound(s.opts.MaxConns))
	stopped := make(chan struct{})
	unhook := context.AfterFunc(ctx, func() {
		defer close(stopped)
		_ = srv.Close()
		_ = limited.Close()
	})
	err := srv.Serve(limited)
	if unhook() {
		_ = srv.Close()
	} else {
		<-stopped
	}
	ended := ctx.Err() != nil
	cancel()
	calls.shut()
	if ended {
		return nil
	}
	return fmt.Errorf("serve on %s: %w", ln.Addr(), err)
}

// gate counts the calls that run by holding its lock for reading.
type gate struct {
	next   http.Handler
	mu     sync.RWMutex
	closed bool
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.closed {
		panic(http.ErrAbortHandler)
	}
	g.next.ServeHTTP(w, r)
}

// shut waits for the calls that run and refuses others.
func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}

func bound(n int) int {
	if n == 0 {
		return defaultConns
	}
	return n
}

// Start serves on an address ("127.0.0.1:0" for any port). stop ends it and waits; the state stays, and Start may be
// called again with the same address.
func (s *Sim) Start(addr string) (endpoint string, stop func(), err error) {
	ctx, cancel := context.WithCancel(context.Background())
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		cancel()
		return "", nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(ctx, ln)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	return "http://" + ln.Addr().String() + "/RPC2", stop, nil
}

// limitListener accepts no more connections than oned serves at once; others wait in the kernel.
type limitListener struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
}

func newLimitListener(ln net.Listener, n int) net.Listener {
	if n < 0 {
		return ln
	}
	return &limitListener{Listener: ln, slots: make(chan struct{}, n), closed: make(chan struct{})}
}

func (l *limitListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitConn{Conn: conn, release: sync.OnceFunc(func() { <-l.slots })}, nil
}

func (l *limitListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitConn struct {
	net.Conn
	release func()
}

func (c *limitConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
