package lab

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/onelb/onelb/test/lab/answer"
)

// requestTimeout bounds a client call whose context has no deadline.
const requestTimeout = 5 * time.Second

// Answer is what a pod replies with.
type Answer = answer.Answer

// httpClient makes connections from the host, a new one for each request: what a
// test wants to know is what happens to a new connection.
func (h *Host) httpClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: h.DialContext, DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
}

// withDeadline gives ctx a deadline if it has none.
func withDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, requestTimeout)
}

// Get fetches a URL over a new connection from this host, such as a program's
// metrics. Certificates are not verified: nothing in the lab is a secret.
func (h *Host) Get(ctx context.Context, url string) (status int, body []byte, err error) {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := h.httpClient().Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("from %s: %w", h.short, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err = io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return 0, nil, fmt.Errorf("from %s: read %s: %w", h.short, url, err)
	}
	return resp.StatusCode, body, nil
}

// HTTPGet asks a pod, over a new connection from this host.
func (h *Host) HTTPGet(ctx context.Context, to netip.Addr, port uint16) (Answer, error) {
	url := "http://" + netip.AddrPortFrom(to, port).String() + "/"
	status, body, err := h.Get(ctx, url)
	if err != nil {
		return Answer{}, err
	}
	if status != http.StatusOK {
		return Answer{}, fmt.Errorf("from %s: get %s: status %d", h.short, url, status)
	}
	return decode(body)
}

// UDP sends one datagram from a new port of this host and waits for the answer.
func (h *Host) UDP(ctx context.Context, to netip.Addr, port uint16) (Answer, error) {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	conn, err := h.DialContext(ctx, "udp", netip.AddrPortFrom(to, port).String())
	if err != nil {
		return Answer{}, fmt.Errorf("from %s: %w", h.short, err)
	}
	defer func() { _ = conn.Close() }()
	end := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer end()
	if _, err := conn.Write([]byte("who?")); err != nil {
		return Answer{}, fmt.Errorf("from %s: %w", h.short, err)
	}
	buffer := make([]byte, 64<<10)
	n, err := conn.Read(buffer)
	if err != nil {
		return Answer{}, fmt.Errorf("from %s: answer of %s port %d: %w", h.short, to, port, errors.Join(err, ctx.Err()))
	}
	return decode(buffer[:n])
}

func decode(body []byte) (Answer, error) {
	var a Answer
	if err := json.Unmarshal(body, &a); err != nil {
		return Answer{}, fmt.Errorf("answer %q: %w", body, err)
	}
	return a, nil
}

// Ping sends one ICMP echo request and returns the time to its reply.
func (h *Host) Ping(ctx context.Context, to netip.Addr) (time.Duration, error) {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	network, listen, protocol := "ip4:icmp", "0.0.0.0", 1
	var request, reply icmp.Type = ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply
	if to.Is6() {
		network, listen, protocol = "ip6:ipv6-icmp", "::", 58
		request, reply = ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
	}
	var conn *icmp.PacketConn
	err := h.Do(func() error {
		var err error
		conn, err = icmp.ListenPacket(network, listen)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("ping from %s: %w", h.short, err)
	}
	defer func() { _ = conn.Close() }()
	end := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer end()
	begin := time.Now()
	id := int(begin.UnixNano() & 0xffff)
	message := icmp.Message{Type: request, Body: &icmp.Echo{ID: id, Seq: 1, Data: []byte("onelb lab")}}
	packet, err := message.Marshal(nil)
	if err != nil {
		return 0, err
	}
	if _, err := conn.WriteTo(packet, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return 0, fmt.Errorf("ping %s from %s: %w", to, h.short, err)
	}
	buffer := make([]byte, 1500)
	for {
		n, _, err := conn.ReadFrom(buffer)
		if err != nil {
			return 0, fmt.Errorf("ping %s from %s: %w", to, h.short, errors.Join(err, ctx.Err()))
		}
		got, err := icmp.ParseMessage(protocol, buffer[:n])
		if err != nil || got.Type != reply {
			continue
		}
		if echo, ok := got.Body.(*icmp.Echo); ok && echo.ID == id {
			return time.Since(begin), nil
		}
	}
}
