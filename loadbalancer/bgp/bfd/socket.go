package bfd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// Where packets are to be sent from (RFC 5881, section 4), and how often a port that
// is in use is changed for another one.
const (
	firstPort = 49152
	ports     = 65536 - firstPort
	portTries = 8
)

// dial makes the socket that a session sends from.
func dial(p Peer) (conn *net.UDPConn, err error) {
	to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.Address, Port))
	for range portTries {
		from := &net.UDPAddr{Port: firstPort + rand.IntN(ports)}
		if p.Source.IsValid() {
			from.IP, from.Zone = p.Source.AsSlice(), p.Source.Zone()
		}
		if conn, err = net.DialUDP("udp", from, to); err == nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	if p.Address.Is6() {
		err = ipv6.NewConn(conn).SetHopLimit(255)
	} else {
		err = ipv4.NewConn(conn).SetTTL(255)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set the hop limit: %w", err), conn.Close())
	}
	return conn, nil
}

// listeners are the sockets that hear, one for each family in use. They belong to Run.
type listeners struct {
	server  *Server
	readers *sync.WaitGroup
	open    [2]*net.UDPConn
	tried   [2]time.Time
}

// adjust opens and closes them.
func (l *listeners) adjust(ctx context.Context, now time.Time) {
	var used [2]bool
	l.server.mu.Lock()
	for a := range l.server.sessions {
		used[family(a)] = true
	}
	l.server.mu.Unlock()
	for f, network := range []string{"udp4", "udp6"} {
		switch {
		case !used[f] && l.open[f] != nil:
			_ = l.open[f].Close()
			l.open[f], l.tried[f] = nil, time.Time{}
		case used[f] && l.open[f] == nil && now.Sub(l.tried[f]) >= retry:
			l.tried[f] = now
			l.listen(ctx, f, network)
		}
	}
}

func (l *listeners) listen(ctx context.Context, f int, network string) {
	problem := ""
	conn, read, err := listen(ctx, network)
	if err != nil {
		problem = fmt.Sprintf("BFD cannot be heard: %v", err)
	} else {
		l.open[f] = conn
		l.readers.Go(func() { l.read(ctx, conn, read) })
	}
	l.server.mu.Lock()
	news := l.server.problem[f] != problem
	l.server.problem[f] = problem
	l.server.mu.Unlock()
	if news {
		l.server.o.Changed()
	}
}

// heard is a packet's way.
type heard struct {
	from, to netip.Addr
	hops     int // that it had left
}

// reader reads a packet.
type reader func([]byte) (n int, h heard, err error)

func listen(ctx context.Context, network string) (*net.UDPConn, reader, error) {
	c, err := (&net.ListenConfig{}).ListenPacket(ctx, network, fmt.Sprintf(":%d", Port))
	if err != nil {
		return nil, nil, err
	}
	conn, ok := c.(*net.UDPConn)
	if !ok {
		return nil, nil, errors.Join(fmt.Errorf("a socket of type %T", c), c.Close())
	}
	var read reader
	if network == "udp4" {
		read, err = reader4(conn)
	} else {
		read, err = reader6(conn)
	}
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return conn, read, nil
}

func reader4(conn *net.UDPConn) (reader, error) {
	p := ipv4.NewPacketConn(conn)
	return func(b []byte) (int, heard, error) {
		n, cm, from, err := p.ReadFrom(b)
		if cm == nil {
			return n, heard{}, err
		}
		return n, heard{addrOf(from), ipOf(cm.Dst), cm.TTL}, err
	}, p.SetControlMessage(ipv4.FlagTTL|ipv4.FlagDst, true)
}

func reader6(conn *net.UDPConn) (reader, error) {
	p := ipv6.NewPacketConn(conn)
	return func(b []byte) (int, heard, error) {
		n, cm, from, err := p.ReadFrom(b)
		if cm == nil {
			return n, heard{}, err
		}
		return n, heard{addrOf(from), ipOf(cm.Dst), cm.HopLimit}, err
	}, p.SetControlMessage(ipv6.FlagHopLimit|ipv6.FlagDst, true)
}

// addrOf is the address of a socket's end, with its zone; invalid if it has none.
func addrOf(a net.Addr) netip.Addr {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.Addr{}
	}
	return u.AddrPort().Addr().Unmap()
}

func ipOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// read takes packets until the socket is closed.
func (l *listeners) read(ctx context.Context, conn *net.UDPConn, read reader) {
	buffer := make([]byte, 512)
	for {
		n, way, err := read(buffer)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			// It may be one that stays, such as a lack of memory: do not spin.
			select {
			case <-ctx.Done():
				return
			case <-time.After(10 * time.Millisecond):
			}
			continue
		}
		l.server.take(way, buffer[:n])
	}
}

func (l *listeners) close() {
	for _, c := range l.open {
		if c != nil {
			_ = c.Close()
		}
	}
}
