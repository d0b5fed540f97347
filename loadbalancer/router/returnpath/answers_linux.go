package returnpath

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// answers opens a TCP connection in the process's network namespace.
func answers(ctx context.Context, b Backend, from netip.Addr) bool {
	d := net.Dialer{Timeout: timeout, KeepAlive: -1}
	if from.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	if b.Interface != "" {
		d.Control = func(_, _ string, c syscall.RawConn) error {
			var bind error
			err := c.Control(func(fd uintptr) { bind = unix.BindToDevice(int(fd), b.Interface) }) //nolint:gosec // a file descriptor
			return errors.Join(err, bind)
		}
	}
	conn, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(b.Address, b.Port).String())
	if err == nil {
		_ = conn.Close()
		return true
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}
