package wire

import (
	"bytes"
	"errors"
	"net"
	"sync"
	"syscall"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/onelb/onelb/loadbalancer/announcer/arp"
	"github.com/onelb/onelb/loadbalancer/announcer/ndp"
)

const (
	// receiveBuffer holds what comes while this agent waits for a processor: a
	// thousand addresses are asked for and answered, each several times. The usual
	// 200 KiB are full after some 250 frames. Memory is used as frames come.
	receiveBuffer = 4 << 20
	// readAtOnce bounds the frames of one turn, so that a flood ends some time.
	readAtOnce = 20000
)

// port is one socket with its reader.
type port struct {
	w    *Wire
	key  key
	conn *packet.Conn
	raw  syscall.RawConn
	own  net.HardwareAddr

	mu     sync.Mutex // held from reading a frame until it is handed over
	buffer []byte
	failed error
}

func newPort(w *Wire, k key, c *packet.Conn, own net.HardwareAddr) (*port, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	err = raw.Control(func(fd uintptr) {
		// Refused without the right to exceed the system's limit: then it is the limit.
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil { // #nosec G115 -- a descriptor
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer) // #nosec G115 -- a descriptor
		}
	})
	return &port{w: w, key: k, conn: c, raw: raw, own: bytes.Clone(own), buffer: make([]byte, 4096)}, err
}

// read hands over frames until the socket ends.
func (p *port) read() {
	err := p.raw.Read(func(fd uintptr) bool {
		for p.drain(int(fd)) { // #nosec G115 -- a descriptor
		}
		return p.broken()
	})
	if err != nil || p.broken() {
		p.w.drop(p)
	}
}

func (p *port) broken() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed != nil
}

// drain hands over all frames that have arrived. It reports whether there were
// too many.
func (p *port) drain(fd int) (more bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for range readAtOnce {
		n, err := unix.Read(fd, p.buffer)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENETDOWN):
			// The latter is told once when the interface goes down; it may come back.
		case errors.Is(err, unix.EAGAIN):
			return false
		case err != nil:
			p.failed = err
			return false
		default:
			p.hand(p.buffer[:n])
		}
	}
	return true
}

// hand hands over one frame.
func (p *port) hand(frame []byte) {
	var s Sighting
	var claims, asks bool
	if p.key.v6 {
		m, err := ndp.Parse(frame)
		s = Sighting{Address: m.Target, MAC: m.MAC, Index: p.key.index}
		claims, asks = err == nil && m.Advertisement, err == nil && !m.Advertisement
	} else {
		m, err := arp.Parse(frame)
		s = Sighting{Address: m.Sender, MAC: m.SenderMAC, Index: p.key.index}
		claims = err == nil && !m.Sender.IsUnspecified()
		if asks = err == nil && m.Request && m.Sender.IsUnspecified(); asks {
			s.Address = m.Target
		}
	}
	switch {
	case bytes.Equal(s.MAC, p.own):
	case claims:
		p.w.seen(s)
	case asks:
		p.w.asked(s)
	}
}

// CatchUp hands over all that has arrived by now, and returns when Seen and Asked
// have returned. It reports whether something was lost since the last call: the
// host had no room for it, or there is more than can be read.
func (w *Wire) CatchUp() (lost bool) {
	w.mu.Lock()
	ports := make([]*port, 0, len(w.conns))
	for _, p := range w.conns {
		ports = append(ports, p)
	}
	w.mu.Unlock()
	for _, p := range ports {
		_ = p.raw.Control(func(fd uintptr) { // fails if it was closed meanwhile
			lost = p.drain(int(fd)) || lost // #nosec G115 -- a descriptor
		})
		if s, err := p.conn.Stats(); err == nil && s.Drops > 0 {
			lost = true
		}
	}
	return lost
}
