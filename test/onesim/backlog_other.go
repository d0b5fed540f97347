//go:build !linux

package onesim

import "net"

// setBacklog is only known on Linux; elsewhere the queue is as long as the system makes it.
func setBacklog(net.Listener, int) error { return nil }
