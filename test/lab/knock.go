package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrLost says that a segment had to be sent again.
var ErrLost = errors.New("a segment was lost")

// knockTimeout is for a machine that is busy; see Knock.
const knockTimeout = 30 * time.Second

// Knock opens a connection from this host, which the caller closes. The connection fails
// if nothing answers the first SYN, as it would on a machine that is idle, and not
// because this process had to wait for a processor: the kernel knows what it sent again.
func (h *Host) Knock(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	// The parent's end interrupts nothing: whether it was answered is still to be seen.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), knockTimeout)
	defer cancel()
	conn, err := h.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	if err := Lost(conn, 0); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("from %s: connect to %s: %w", h.short, to, err)
	}
	return conn, nil
}

// Lost returns ErrLost if more than some segments of a TCP connection's own were sent again.
func Lost(conn net.Conn, most int) error {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return fmt.Errorf("%T is no TCP connection", conn)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var info *unix.TCPInfo
	if control := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); control != nil {
		return control
	}
	if err != nil {
		return fmt.Errorf("read what TCP knows: %w", err)
	}
	if n := int(info.Total_retrans); n > most {
		return fmt.Errorf("%w: %d sent again", ErrLost, n)
	}
	return nil
}
