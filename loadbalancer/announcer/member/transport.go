package member

import (
	"net"
	"time"

	"github.com/hashicorp/memberlist"
)

// transport is memberlist's own, except that it dials from inside the network
// namespace in which it listens.
type transport struct {
	*memberlist.NetTransport
	enter func(func() error) error
}

var _ memberlist.NodeAwareTransport = (*transport)(nil)

func (t *transport) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: address}, timeout)
}

func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	var conn net.Conn
	err := t.enter(func() (err error) {
		conn, err = t.NetTransport.DialAddressTimeout(a, timeout)
		return err
	})
	return conn, err
}
