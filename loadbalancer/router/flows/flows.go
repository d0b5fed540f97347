// Package flows reads, watches and writes the kernel's tracked connections that are
// translated to backends, so that another router can go on with them.
//
// Only what is worth it is told: TCP connections that are established or half
// closed, and UDP streams that the kernel calls assured (both sides have sent for
// some seconds). A connection that is written gets liberal checks of its TCP
// sequence numbers: this kernel has not seen them.
package flows

import (
	"net/netip"
)

// Protocols that are told.
const (
	TCP = 6
	UDP = 17
)

// TCP states, as the kernel numbers them.
const (
	tcpEstablished = 3
	tcpLastAck     = 6
)

// Bits of a connection's status.
const (
	seenReply = 1 << 1
	assured   = 1 << 2
	confirmed = 1 << 3
)

// Key identifies a connection: what the client sends.
type Key struct {
	Protocol         uint8
	Client, Frontend netip.AddrPort
}

// Connection is a translated connection.
type Connection struct {
	Key
	// Backend is where the packets go, Source what the backend sees as client.
	Backend, Source netip.AddrPort
	TCPState        uint8
	Mark            uint32
	Labels          [16]byte
	// Timeout is in seconds.
	Timeout uint32

	status uint32
}

// Same reports whether two connections differ in nothing but their timeout.
func (c Connection) Same(o Connection) bool {
	c.Timeout, c.status = o.Timeout, o.status
	return c == o
}

// worth reports whether a connection is told.
func (c Connection) worth() bool {
	if c.Frontend == c.Backend && c.Client == c.Source {
		return false
	}
	switch c.Protocol {
	case TCP:
		return c.TCPState >= tcpEstablished && c.TCPState <= tcpLastAck
	case UDP:
		return c.status&assured != 0
	}
	return false
}

// Event is a change of a connection.
type Event struct {
	Connection
	// Ended: it is gone, or not worth to be told any more. Only the Key counts.
	Ended bool
}
