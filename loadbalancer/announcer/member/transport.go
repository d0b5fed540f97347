package member

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// acceptPause follows a connection that could not be accepted, for want of
// descriptors, most likely, or a datagram that could not be read.
const acceptPause = 50 * time.Millisecond

// transport is memberlist's way to the other agents: UDP and TCP on one address. It
// dials from inside the network namespace in which it listens.
type transport struct {
	enter    func(func() error) error
	bound    netip.AddrPort
	packets  *packets
	listener *net.TCPListener
	streams  chan net.Conn
	closed   chan struct{}
	once     sync.Once
	accepts  sync.WaitGroup
}

var _ memberlist.NodeAwareTransport = (*transport)(nil)

// newTransport listens; it is called in the network namespace.
func newTransport(address netip.AddrPort, enter func(func() error) error) (*transport, error) {
	listener, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(address))
	if err != nil {
		return nil, fmt.Errorf("listen for connections: %w", err)
	}
	packets, err := listenPackets(address)
	if err != nil {
		_ = listener.Close()
		return nil, fmt.Errorf("listen for datagrams: %w", err)
	}
	t := &transport{
		enter: enter, bound: address, packets: packets, listener: listener,
		streams: make(chan net.Conn), closed: make(chan struct{}),
	}
	t.accepts.Go(t.accept)
	return t, nil
}

func (t *transport) accept() {
	for {
		conn, err := t.listener.Accept()
		if err != nil {
			select {
			case <-t.closed:
				return
			case <-time.After(acceptPause):
				continue
			}
		}
		select {
		case t.streams <- conn:
		case <-t.closed:
			_ = conn.Close()
			return
		}
	}
}

// FinalAdvertiseAddr is what the transport is bound to.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.bound.Addr().AsSlice(), int(t.bound.Port()), nil
}

func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets.ch }

func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

func (t *transport) WriteTo(b []byte, address string) (time.Time, error) {
	return t.packets.write(b, address)
}

func (t *transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return t.packets.write(b, a.Addr)
}

func (t *transport) DialTimeout(address string, timeout time.Duration) (conn net.Conn, err error) {
	err = t.enter(func() (err error) {
		conn, err = (&net.Dialer{Timeout: timeout}).Dial("tcp", address)
		return err
	})
	return conn, err
}

func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(a.Addr, timeout)
}

// Shutdown ends all that listens, and may be called again.
func (t *transport) Shutdown() error {
	t.once.Do(func() {
		close(t.closed)
		_ = t.listener.Close()
	})
	t.packets.close()
	t.accepts.Wait()
	return nil
}
