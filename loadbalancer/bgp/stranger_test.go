package bgp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// message is a BGP message with a length of its own choice.
func message(kind byte, length int, body []byte) []byte {
	m := bytes.Repeat([]byte{0xff}, 16)
	m = binary.BigEndian.AppendUint16(m, uint16(length))
	return append(append(m, kind), body...)
}

// open is an OPEN message of an autonomous system, with hold time 90 s.
func open(asn uint16) []byte {
	body := binary.BigEndian.AppendUint16([]byte{4}, asn)
	body = append(body, 0, 90, 10, 79, 0, 1, 0)
	return message(1, 19+len(body), body)
}

// nonsense is what somebody may send who does not speak BGP, or means no good.
var nonsense = map[string][]byte{
	"text":               []byte("GET / HTTP/1.1\r\nHost: node\r\n\r\n"),
	"nothing":            {},
	"half a message":     open(64512)[:20],
	"a huge message":     append(message(2, 65535, nil), make([]byte, 65535-19)...),
	"too short a length": message(1, 18, nil),
	"an unknown kind":    message(77, 19, nil),
	"routes at once":     message(2, 28, []byte{0, 0, 0, 0, 24, 198, 51, 100}),
	"another AS":         open(64999),
	"the right AS":       open(64512),
}

// TestStrangers: who is no peer gets nothing and is counted, and even what comes from
// the peer's address does not touch the session that stands.
func TestStrangers(t *testing.T) {
	f := frr(t, "passive")
	n := newNode(0)
	n.desired.Global.ListenPort = 179
	n.routes(&Attributes{}, "203.0.113.7/32")
	n.start(t, false)
	n.up()
	hops(t, f, "203.0.113.7/32", "10.79.0.11")
	refused := 0.0
	for name, text := range nonsense {
		c := dial(t, nodes4[1])
		closed(t, c, "a stranger with "+name, text)
		refused++
	}
	eventually(t, "strangers are counted", func() string {
		if got := testutil.ToFloat64(n.metrics.refusedConnections); got != refused {
			return fmt.Sprintf("%v of %v", got, refused)
		}
		return ""
	})
	var open []net.Conn
	for name, text := range nonsense {
		var c net.Conn
		must(t, routerNS.Do(func() error { c = dial(t, router4); return nil }))
		_, err := c.Write(text)
		if err != nil {
			t.Logf("the peer's address with %s: %v", name, err)
		}
		open = append(open, c) // half open from now on
	}
	n.routes(&Attributes{}, "203.0.113.8/32") // it works meanwhile
	hops(t, f, "203.0.113.8/32", "10.79.0.11")
	for _, c := range open {
		_ = c.Close()
	}
	if count, state := uptime(t, f.ShowJSON, nodes4[0]); count != 1 || state != "Established" {
		t.Errorf("%d sessions, %s", count, state)
	}
	if s := n.session(); s.Received != 0 || s.Breaks != 0 || !s.Up() {
		t.Errorf("%+v", s)
	}
}

func dial(t *testing.T, from netip.Addr) net.Conn {
	t.Helper()
	d := net.Dialer{Timeout: 30 * time.Second, LocalAddr: &net.TCPAddr{IP: from.AsSlice()}}
	c, err := d.DialContext(t.Context(), "tcp", "10.79.0.11:179")
	must(t, err)
	return c
}

// closed sends something and wants nothing back but the end of the connection.
func closed(t *testing.T, c net.Conn, what string, text []byte) {
	t.Helper()
	defer func() { _ = c.Close() }()
	_, _ = c.Write(text)
	must(t, c.SetReadDeadline(time.Now().Add(60*time.Second)))
	got, err := io.ReadAll(c)
	if e, ok := err.(net.Error); len(got) > 0 || ok && e.Timeout() { //nolint:errorlint // a reset is as good as an end
		t.Errorf("%s got %q, %v", what, got, err)
	}
}
