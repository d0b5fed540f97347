// Command labpod is a pod of the lab: an HTTP and UDP server that tells which
// pod it is and which client address it saw.
//
//	/         one JSON answer
//	/healthz  200
//	/stream   a JSON answer every 100 ms (or ?every=DURATION) until the client
//	          leaves, to see whether an established connection lives on
//	/bytes    ?n=COUNT bytes of payload
//
// A UDP datagram is answered with one JSON answer.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"github.com/onelb/onelb/test/lab/answer"
)

type pod struct{ name, node string }

func main() {
	var p pod
	pflag.StringVar(&p.name, "name", "", "name of the pod")
	pflag.StringVar(&p.node, "node", "", "name of the node")
	tcp := pflag.IntSlice("tcp", nil, "TCP ports that serve HTTP")
	udp := pflag.IntSlice("udp", nil, "UDP ports")
	pflag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	if err := p.run(ctx, *tcp, *udp); err != nil {
		fmt.Fprintln(os.Stderr, "labpod:", err)
		cancel()
		os.Exit(1) //nolint:gocritic // cancel was called
	}
}

// run serves all ports until ctx ends.
func (p pod) run(ctx context.Context, tcp, udp []int) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, port := range tcp {
		g.Go(func() error { return p.serveHTTP(ctx, port) })
	}
	for _, port := range udp {
		g.Go(func() error { return p.serveUDP(ctx, port) })
	}
	return g.Wait()
}

func (p pod) serveHTTP(ctx context.Context, port int) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", p.root)
	mux.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/stream", p.stream)
	mux.HandleFunc("/bytes", payload)
	s := &http.Server{
		Addr: net.JoinHostPort("", strconv.Itoa(port)), Handler: mux, ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stopped := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stopped()
	if err := s.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// seen is the answer to an HTTP request.
func (p pod) seen(r *http.Request) answer.Answer {
	client, _ := netip.ParseAddrPort(r.RemoteAddr)
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return p.answer("TCP", client, local)
}

func (p pod) answer(proto string, client netip.AddrPort, local net.Addr) answer.Answer {
	a := answer.Answer{Pod: p.name, Node: p.node, Proto: proto, Client: unmap(client)}
	if local != nil {
		server, _ := netip.ParseAddrPort(local.String())
		a.Server = unmap(server)
	}
	return a
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

func (p pod) root(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(p.seen(r)) // the client may have left
}

func (p pod) stream(w http.ResponseWriter, r *http.Request) {
	every := 100 * time.Millisecond
	if v := r.URL.Query().Get("every"); v != "" {
		var err error
		if every, err = time.ParseDuration(v); err != nil || every <= 0 {
			http.Error(w, "every: want a duration above zero", http.StatusBadRequest)
			return
		}
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	encoder, flush := json.NewEncoder(w), http.NewResponseController(w)
	for {
		if encoder.Encode(p.seen(r)) != nil || flush.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-ticker.C:
		}
	}
}

func payload(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseInt(r.URL.Query().Get("n"), 10, 64)
	if err != nil || n < 0 {
		http.Error(w, "n: want a number of bytes", http.StatusBadRequest)
		return
	}
	block := make([]byte, 64<<10)
	for ; n > 0; n -= int64(len(block)) {
		if _, err := w.Write(block[:min(n, int64(len(block)))]); err != nil {
			return
		}
	}
}

func (p pod) serveUDP(ctx context.Context, port int) error {
	conn, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", net.JoinHostPort("", strconv.Itoa(port)))
	if err != nil {
		return err
	}
	stopped := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stopped()
	buffer := make([]byte, 64<<10)
	for {
		_, from, err := conn.ReadFrom(buffer)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		client, _ := netip.ParseAddrPort(from.String())
		reply, err := json.Marshal(p.answer("UDP", client, conn.LocalAddr()))
		if err != nil {
			return err
		}
		_, _ = conn.WriteTo(reply, from) // a lost reply is the network's business
	}
}
