package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// Announcement is a frame that tells everyone who has an address.
type Announcement struct {
	Time time.Time // when it was read
	Kind Kind
	Addr netip.Addr
	MAC  net.HardwareAddr // the announced hardware address
}

// String is for people.
func (a Announcement) String() string {
	return fmt.Sprintf("%s %s is at %s (%s)", a.Time.Format("15:04:05.000"), a.Addr, a.MAC, a.Kind)
}

// Sniffer collects the announcements that an interface sees.
type Sniffer struct {
	conn *packet.Conn
	done chan struct{}

	mu      sync.Mutex // guards seen and changed
	seen    []Announcement
	changed chan struct{} // closed and replaced at each announcement
}

// NewSniffer starts to listen on an interface. Close ends it.
func NewSniffer(space Space, dev string) (*Sniffer, error) {
	conn, err := open(space, dev)
	if err != nil {
		return nil, err
	}
	if err := enlarge(conn); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	s := &Sniffer{conn: conn, done: make(chan struct{}), changed: make(chan struct{})}
	go s.read()
	return s, nil
}

// Close ends the sniffer; what it has seen stays readable.
func (s *Sniffer) Close() error {
	err := s.conn.Close()
	<-s.done
	return err
}

// Seen are the announcements so far, in order.
func (s *Sniffer) Seen() []Announcement {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.seen)
}

// Wait returns the first announcement of addr not earlier than since, which may
// have been seen already.
func (s *Sniffer) Wait(ctx context.Context, addr netip.Addr, since time.Time) (Announcement, error) {
	for {
		s.mu.Lock()
		i := slices.IndexFunc(s.seen, func(a Announcement) bool { return a.Addr == addr && !a.Time.Before(since) })
		var found Announcement
		if i >= 0 {
			found = s.seen[i]
		}
		changed := s.changed
		s.mu.Unlock()
		if i >= 0 {
			return found, nil
		}
		select {
		case <-changed:
		case <-s.done:
			return Announcement{}, fmt.Errorf("wait for an announcement of %s: sniffer is closed", addr)
		case <-ctx.Done():
			return Announcement{}, fmt.Errorf("wait for an announcement of %s: %w", addr, ctx.Err())
		}
	}
}

func (s *Sniffer) read() {
	defer close(s.done)
	buffer := make([]byte, maxFrame)
	for {
		n, _, err := s.conn.ReadFrom(buffer)
		if err != nil {
			return // closed
		}
		if a, ok := announced(buffer[:n]); ok {
			a.Time, a.MAC = time.Now(), slices.Clone(a.MAC)
			s.mu.Lock()
			s.seen = append(s.seen, a)
			close(s.changed)
			s.changed = make(chan struct{})
			s.mu.Unlock()
		}
	}
}

// announced reads an announcement from a frame.
func announced(frame []byte) (Announcement, bool) {
	if p, ok := parseARP(frame); ok {
		kind := GratuitousRequest
		if p.operation == 2 {
			kind = GratuitousReply
		}
		// A probe for a free address (RFC 5227) has no sender and is none.
		return Announcement{Kind: kind, Addr: p.sender, MAC: p.senderMAC}, p.sender == p.target && !p.sender.IsUnspecified()
	}
	if na, ok := parseNA(frame); ok && !na.solicited {
		return Announcement{Kind: UnsolicitedNA, Addr: na.target, MAC: na.mac}, true
	}
	return Announcement{}, false
}

// enlarge gives a socket room for the announcements of thousands of addresses at
// once: its default holds a few hundred frames.
func enlarge(conn *packet.Conn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
	})
	if err := errors.Join(err, set); err != nil {
		return fmt.Errorf("enlarge the buffer of a packet socket: %w", err)
	}
	return nil
}

// open opens a packet socket for all frames of an interface.
func open(space Space, dev string) (*packet.Conn, error) {
	var conn *packet.Conn
	err := space.Do(func() error {
		ifi, err := net.InterfaceByName(dev)
		if err != nil {
			return fmt.Errorf("interface %s: %w", dev, err)
		}
		conn, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, nil)
		if err != nil {
			return fmt.Errorf("packet socket on %s: %w", dev, err)
		}
		return nil
	})
	return conn, err
}
