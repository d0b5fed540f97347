package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// Responder is a machine that answered for an address.
type Responder struct {
	MAC   net.HardwareAddr
	After time.Duration // from the question to its first answer
}

// Asker is who asks: an interface with one of its addresses, of the same family
// as the address in question.
type Asker struct {
	Space Space
	Dev   string
	MAC   net.HardwareAddr
	Addr  netip.Addr
}

// WhoHas asks the wire once who has target, and returns everyone who answers
// before ctx ends, in the order of the answers. Nobody is no error. The kernel's
// own neighbour table is neither used nor asked.
func (a Asker) WhoHas(ctx context.Context, target netip.Addr) ([]Responder, error) {
	if a.Addr.Is4() != target.Is4() {
		return nil, fmt.Errorf("ask for %s from %s: families differ", target, a.Addr)
	}
	conn, err := open(a.Space, a.Dev)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	end := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer end()
	question := whoHas
	if target.Is6() {
		question = solicitation
	}
	frame := question(a.MAC, a.Addr, target)
	if ctx.Err() != nil { // so late, on a busy machine, that silence would mean nothing
		return nil, fmt.Errorf("ask for %s: %w", target, ctx.Err())
	}
	begin := time.Now()
	if _, err := conn.WriteTo(frame, &packet.Addr{HardwareAddr: net.HardwareAddr(frame[:6])}); err != nil {
		return nil, fmt.Errorf("ask for %s: %w", target, err)
	}
	return collect(conn, target, begin)
}

// collect reads answers until the connection's deadline, and what came before it.
func collect(conn *packet.Conn, target netip.Addr, begin time.Time) ([]Responder, error) {
	var responders []Responder
	known := map[string]bool{}
	buffer := make([]byte, maxFrame)
	read := func() (int, error) {
		n, _, err := conn.ReadFrom(buffer)
		return n, err
	}
	for {
		n, err := read()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			read = func() (int, error) { return arrived(conn, buffer) }
			continue
		case errors.Is(err, unix.EAGAIN):
			return responders, nil
		case err != nil:
			return responders, fmt.Errorf("answers for %s: %w", target, err)
		}
		mac := answers(buffer[:n], target)
		if mac == nil || known[mac.String()] {
			continue
		}
		known[mac.String()] = true
		responders = append(responders, Responder{append(net.HardwareAddr(nil), mac...), time.Since(begin)})
	}
}

// arrived reads a frame that waits to be read, else EAGAIN, whatever the deadline: this
// process may have waited for a processor until after it.
func arrived(conn *packet.Conn, buffer []byte) (n int, err error) {
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return 0, err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	failed := raw.Read(func(fd uintptr) bool {
		n, _, err = unix.Recvfrom(int(fd), buffer, unix.MSG_DONTWAIT)
		return true
	})
	return n, errors.Join(failed, err)
}

// answers is the hardware address that a frame gives for target, if it does.
func answers(frame []byte, target netip.Addr) net.HardwareAddr {
	if p, ok := parseARP(frame); ok && p.operation == 2 && p.sender == target {
		return p.senderMAC
	}
	if na, ok := parseNA(frame); ok && na.target == target {
		return na.mac
	}
	return nil
}
