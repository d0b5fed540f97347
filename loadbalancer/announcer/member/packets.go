package member

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// packetMax is the longest datagram.
	packetMax = 65536
	// packetBuffer is what the kernel may keep while this agent waits for a processor.
	packetBuffer = 2 << 20
)

// packets is the UDP half of a transport. memberlist's own takes a new buffer of
// 64 KiB for each datagram, of which an idle agent gets twenty a second; what it
// throws away in that way is most of what it throws away.
type packets struct {
	conn    *net.UDPConn
	ch      chan *memberlist.Packet
	closed  chan struct{}
	reading sync.WaitGroup
	once    sync.Once
}

func listenPackets(address netip.AddrPort) (*packets, error) {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(address))
	if err != nil {
		return nil, err
	}
	_ = conn.SetReadBuffer(packetBuffer) // as much as the kernel allows
	p := &packets{conn: conn, ch: make(chan *memberlist.Packet), closed: make(chan struct{})}
	p.reading.Go(p.read)
	return p, nil
}

func (p *packets) read() {
	buffer := make([]byte, packetMax)
	for {
		n, from, err := p.conn.ReadFromUDP(buffer)
		at := time.Now()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			select { // whatever it is, it may go on
			case <-time.After(acceptPause):
				continue
			case <-p.closed:
				return
			}
		case n == 0:
			continue
		}
		own := make([]byte, n)
		copy(own, buffer)
		select {
		case p.ch <- &memberlist.Packet{Buf: own, From: from, Timestamp: at}:
		case <-p.closed:
			return
		}
	}
}

func (p *packets) write(b []byte, to string) (time.Time, error) {
	address, err := netip.ParseAddrPort(to)
	if err != nil {
		return time.Time{}, err
	}
	_, err = p.conn.WriteToUDPAddrPort(b, address)
	return time.Now(), err
}

func (p *packets) close() {
	p.once.Do(func() {
		close(p.closed)
		_ = p.conn.Close()
	})
	p.reading.Wait()
}
