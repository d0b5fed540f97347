package onesim

import (
	"net"
	"syscall"
)

// setBacklog shortens the queue of connections that wait to be accepted: a second listen on a socket changes it. A
// full queue drops SYNs, which clients see as waits of a second.
func setBacklog(ln net.Listener, n int) error {
	sc, ok := ln.(syscall.Conn)
	if !ok || n < 0 {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = syscall.Listen(int(fd), n) }); err != nil {
		return err
	}
	return inner
}
