package nft

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/onelb/onelb/loadbalancer/router"
)

// eachFamily calls do for both public addresses.
func eachFamily(do func(public netip.Addr)) {
	do(public4)
	do(public6)
}

// inside is the router's own address on the nodes' network.
func inside(public netip.Addr) string {
	if public.Is4() {
		return "10.20.0.1"
	}
	return "fd00:20::1"
}

// outside is the client's address.
func outside(public netip.Addr) string {
	if public.Is4() {
		return "203.0.113.1"
	}
	return "2001:db8:113::1"
}

// spreads fails the test unless both nodes answer in time, and all see the
// client as they should.
func (s *stage) spreads(host, network string, to netip.AddrPort, client string) {
	s.t.Helper()
	seen := map[string]bool{}
	for end := time.Now().Add(patience); len(seen) < 2; {
		node, from := s.asks(host, network, to)
		seen[node] = true
		if from != client {
			s.t.Errorf("%s/%s: %s sees %s as client, want %s", to, network, node, from, client)
		}
		if time.Now().After(end) {
			s.t.Fatalf("%s/%s: only %v answers", to, network, seen)
		}
	}
}

// TestForward: new connections go to both nodes, each protocol of a port to its
// own, with the client's address; what is no frontend is refused.
func TestForward(t *testing.T) {
	s := newStage(t)
	for _, node := range []string{"node-1", "node-2"} {
		s.serve(node, "tcp", 30080)
		s.serve(node, "udp", 31080)
	}
	s.serve("router", "tcp", 22)
	s.apply(stageDocument(func(f *router.Frontend) {
		if f.Protocol == router.UDP {
			f.BackendPort = 31080
		}
	}, 80))
	eachFamily(func(public netip.Addr) {
		to := netip.AddrPortFrom(public, 80)
		for _, network := range []string{"tcp", "udp"} {
			s.spreads("client", network, to, outside(public))
			s.spreads("lan", network, to, inside(public)) // or the reply would take a short cut
			s.asks("router", network, to)
			s.asks("node-1", network, to)
		}
		s.refused("client", "tcp", netip.AddrPortFrom(public, 22)) // the router's own service
		s.refused("client", "udp", netip.AddrPortFrom(public, 81))
	})
}

// TestSourceRanges: whoever is outside of them hears nothing.
func TestSourceRanges(t *testing.T) {
	s := newStage(t)
	s.serve("node-1", "tcp", 30080)
	s.serve("node-2", "tcp", 30080)
	s.serve("node-1", "tcp", 30081)
	s.serve("node-2", "tcp", 30081)
	ranges := map[uint16][]netip.Prefix{
		80: {netip.MustParsePrefix("203.0.113.1/32"), netip.MustParsePrefix("2001:db8:113::/124")},
		81: {netip.MustParsePrefix("203.0.113.4/30"), netip.MustParsePrefix("2001:db8:113::8/125")},
	}
	s.apply(stageDocument(func(f *router.Frontend) { f.SourceRanges = ranges[f.Port] }, 80, 81))
	eachFamily(func(public netip.Addr) {
		s.asks("client", "tcp", netip.AddrPortFrom(public, 80))
		s.silent("client", "tcp", netip.AddrPortFrom(public, 81))
		s.silent("lan", "tcp", netip.AddrPortFrom(public, 80))
	})
}

// TestSNAT: whose address the nodes see.
func TestSNAT(t *testing.T) {
	s := newStage(t)
	s.serve("node-1", "tcp", 30080)
	s.serve("node-2", "tcp", 30080)
	for _, mode := range []router.SNAT{router.SNATAlways, router.SNATNever, router.SNATAuto} {
		s.apply(stageDocument(func(f *router.Frontend) { f.SNAT = mode }, 80))
		eachFamily(func(public netip.Addr) {
			want := outside(public)
			if mode == router.SNATAlways {
				want = inside(public)
			}
			s.spreads("client", "tcp", netip.AddrPortFrom(public, 80), want)
		})
	}
}

// TestElsewhere: a node without a route back sees the router's address instead.
func TestElsewhere(t *testing.T) {
	s := newStage(t)
	for i, node := range []string{"node-1", "node-2"} {
		s.serve(node, "tcp", 30080)
		s.serve(node, "udp", 30080)
		if i == 0 {
			s.ip(node, "route del 0.0.0.0/0\nroute del ::/0")
		}
	}
	out := map[netip.Addr]bool{netip.MustParseAddr(nodes4[0]): true, netip.MustParseAddr(nodes6[0]): true}
	s.apply(stageDocument(nil, 80), func(in *Input) { in.Elsewhere = out })
	eachFamily(func(public netip.Addr) {
		want := map[string]string{"node-1": inside(public), "node-2": outside(public)}
		for _, network := range []string{"tcp", "udp"} {
			seen := map[string]bool{}
			for end := time.Now().Add(patience); len(seen) < 2; {
				node, from := s.asks("client", network, netip.AddrPortFrom(public, 80))
				if seen[node] = true; from != want[node] {
					t.Errorf("%s/%s: %s sees %s as client, want %s", public, network, node, from, want[node])
				}
				if time.Now().After(end) {
					t.Fatalf("only %v answers", seen)
				}
			}
		}
	})
}

// TestHealth: a dead node gets no new connection; when all are dead, all are
// tried; without nodes, connections are refused.
func TestHealth(t *testing.T) {
	s := newStage(t)
	s.serve("node-1", "tcp", 30080)
	s.serve("node-2", "tcp", 30080)
	d := stageDocument(nil, 80)
	eachFamily(func(public netip.Addr) {
		to := netip.AddrPortFrom(public, 80)
		s.apply(d, healthyNodes(2))
		s.keeps("tcp", to, "node-2")
		s.apply(d, healthyNodes())
		s.spreads("client", "tcp", to, outside(public))
	})
	for i := range d.Groups {
		d.Groups[i].Members = nil
	}
	s.apply(d)
	eachFamily(func(public netip.Addr) { s.refused("client", "tcp", netip.AddrPortFrom(public, 80)) })
}

// TestLeavingNode: a node that leaves its group gets no new connection, and those
// that it has go on, with and without affinity.
func TestLeavingNode(t *testing.T) {
	s := newStage(t)
	s.serve("node-1", "tcp", 30080)
	s.serve("node-2", "tcp", 30080)
	for _, affinity := range []time.Duration{0, time.Hour} {
		d := stageDocument(func(f *router.Frontend) { f.Affinity = affinity }, 80)
		eachFamily(func(public netip.Addr) {
			to := netip.AddrPortFrom(public, 80)
			s.apply(d)
			conn, answer, err := s.open("client", "tcp", to, patience)
			s.must(err)
			other, left := "node-2", d
			if strings.HasPrefix(answer, other) {
				other = "node-1"
			}
			left.Groups = []router.Group{
				{Name: "nodes-ipv4", Members: stageMembers(nodes4)}, {Name: "nodes-ipv6", Members: stageMembers(nodes6)},
			}
			for i := range left.Groups {
				n := int(other[len(other)-1] - '1')
				left.Groups[i].Members = left.Groups[i].Members[n : n+1]
			}
			s.apply(left)
			s.keeps("tcp", to, other)
			if again, err := ask(conn, patience); err != nil || again != answer {
				t.Errorf("the connection that stands: %q, %v, want %q", again, err, answer)
			}
			s.must(conn.Close())
		})
	}
}

// TestErrors: ICMP errors find their way back through the translation.
func TestErrors(t *testing.T) {
	s := newStage(t)
	s.apply(stageDocument(nil, 80)) // nobody listens
	eachFamily(func(public netip.Addr) {
		s.refused("client", "udp", netip.AddrPortFrom(public, 80))
	})
}

// TestSmallMTU: packets that do not fit behind the router are sent again in
// smaller ones, which needs an ICMP error about the address that the client knows.
func TestSmallMTU(t *testing.T) {
	s := newStage(t)
	s.ip("router", "route replace 10.20.0.0/24 dev eth1 src 10.20.0.1 mtu lock 1300\nroute replace fd00:20::/64 dev eth1 mtu lock 1300")
	for _, node := range []string{"node-1", "node-2"} {
		l, err := s.hosts[node].Listen("tcp", ":30080")
		s.must(err)
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go func() { _, _ = io.Copy(conn, conn); _ = conn.Close() }()
			}
		}()
	}
	s.apply(stageDocument(nil, 80))
	sent := bytes.Repeat([]byte("0123456789abcdef"), 16<<10)
	eachFamily(func(public netip.Addr) {
		var conn net.Conn
		s.must(s.hosts["client"].Do(func() (err error) {
			conn, err = (&net.Dialer{Timeout: patience}).DialContext(t.Context(), "tcp", netip.AddrPortFrom(public, 80).String())
			return err
		}))
		s.must(conn.SetDeadline(time.Now().Add(patience)))
		go func() { _, _ = conn.Write(sent) }()
		got := make([]byte, len(sent))
		if n, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%s: %d of %d bytes come back: %v", public, n, len(sent), err)
		}
		s.must(conn.Close())
	})
}

// TestConnectionLimit: one connection too many waits until another one ends.
func TestConnectionLimit(t *testing.T) {
	s := newStage(t)
	s.serve("node-1", "tcp", 30080)
	s.serve("node-2", "tcp", 30080)
	eachFamily(func(public netip.Addr) {
		to := netip.AddrPortFrom(public, 80)
		s.apply(stageDocument(func(f *router.Frontend) { f.MaxConnections = 2 }, 80))
		var open []net.Conn
		for range 2 {
			conn, _, err := s.open("client", "tcp", to, patience)
			s.must(err)
			open = append(open, conn)
		}
		s.silent("client", "tcp", to)
		s.silent("lan", "tcp", to) // of all clients together
		s.must(open[0].Close())
		// A connection that was closed is known to the kernel for some time yet.
		conn, _, err := s.open("lan", "tcp", to, patience)
		s.must(err)
		open = append(open[1:], conn)
		s.apply(stageDocument(func(f *router.Frontend) { f.MaxConnections = 0 }, 80))
		s.asks("client", "tcp", to)
		for _, conn := range open {
			if _, err := ask(conn, patience); err != nil {
				t.Errorf("a connection below the limit: %v", err)
			}
			_ = conn.Close()
		}
	})
}

// TestSCTP sends the first packet of an association: there are no such sockets
// everywhere, but the translation needs none.
func TestSCTP(t *testing.T) {
	s := newStage(t)
	d := router.Document{Groups: stageDocument(nil).Groups, Frontends: []router.Frontend{
		{Address: public4, Protocol: router.SCTP, Port: 80, Service: "default/web", Group: "nodes-ipv4", BackendPort: 30080},
		{Address: public6, Protocol: router.SCTP, Port: 80, Service: "default/web", Group: "nodes-ipv6", BackendPort: 30080},
	}}
	s.apply(d)
	eachFamily(func(public netip.Addr) {
		network, header := "ip4:132", 0 // Go takes the IPv4 header off
		if public.Is6() {
			network = "ip6:132"
		}
		arrived := make(chan string, 16)
		for _, node := range []string{"node-1", "node-2"} {
			conn := s.raw(node, network)
			go func() {
				b := make([]byte, 2048)
				for {
					n, from, err := conn.ReadFrom(b)
					if err != nil {
						return
					}
					arrived <- fmt.Sprintf("%s port %d of %d bytes", from, binary.BigEndian.Uint16(b[header+2:]), n-header)
				}
			}()
		}
		client := s.raw("client", network)
		want := fmt.Sprintf("%s port 30080 of 32 bytes", outside(public))
		for end := time.Now().Add(patience); ; {
			_, err := client.WriteTo(sctpInit(40000, 80), &net.IPAddr{IP: public.AsSlice()})
			s.must(err)
			select {
			case got := <-arrived:
				if got != want {
					t.Errorf("arrived: %s, want %s", got, want)
				}
				return
			case <-time.After(200 * time.Millisecond):
			}
			if time.Now().After(end) {
				t.Fatalf("%s: no packet arrives\n%s", public, s.ruleset())
			}
		}
	})
}

func (s *stage) raw(host, network string) net.PacketConn {
	s.t.Helper()
	var conn net.PacketConn
	s.must(s.hosts[host].Do(func() (err error) {
		conn, err = (&net.ListenConfig{}).ListenPacket(context.Background(), network, "")
		return err
	}))
	s.t.Cleanup(func() {
		if err := conn.Close(); err != nil && !errors.Is(err, syscall.EBADF) {
			s.t.Error(err)
		}
	})
	return conn
}

// sctpInit is an INIT chunk (RFC 9260, 3.3.2) with its checksum.
func sctpInit(from, to uint16) []byte {
	b := make([]byte, 12, 32)
	binary.BigEndian.PutUint16(b[0:], from)
	binary.BigEndian.PutUint16(b[2:], to)
	b = append(b, 1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}
