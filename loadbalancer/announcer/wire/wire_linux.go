// Package wire speaks ARP and neighbour discovery on the interfaces of a host:
// it announces addresses, asks who has them, and reports who says so.
//
// Sockets are opened at first use, one for each interface and family, and
// receive only ARP, or only neighbour advertisements and the questions of those
// who have no address yet. Sending does not wait for answers: they arrive, like
// what others announce unasked, at the Seen function. Whoever concludes something
// from silence calls CatchUp first: what a busy host has not read yet is no silence.
package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/onelb/onelb/loadbalancer/announcer/addr"
	"github.com/onelb/onelb/loadbalancer/announcer/arp"
	"github.com/onelb/onelb/loadbalancer/announcer/ndp"
)

// sendDeadline bounds one attempt to send a frame; a socket whose queue stays full is
// broken. It may also pass before the kernel was asked at all, while this agent waits
// for a processor: hence more than one attempt.
const (
	sendDeadline = 100 * time.Millisecond
	sendAttempts = 3
)

// ErrClosed is returned after Run has ended.
var ErrClosed = errors.New("wire is closed")

// Sighting is one frame in which another host says that it has an address.
type Sighting struct {
	Address netip.Addr
	MAC     net.HardwareAddr
	// Index of the interface that received it.
	Index int
}

// Options of New.
type Options struct {
	// Seen is called with every claim of another host, from several goroutines;
	// it must not block.
	Seen func(Sighting)
	// Asked is called likewise with every question of a host that claims nothing
	// and asks everybody who has the address. Nil: not called.
	Asked func(Sighting)
	// Enter runs a function in the network namespace to work in. Nil: the
	// caller's.
	Enter func(func() error) error
}

// Wire sends and receives on the interfaces of one network namespace.
type Wire struct {
	seen  func(Sighting)
	asked func(Sighting)
	enter func(func() error) error

	readers sync.WaitGroup

	mu     sync.Mutex // guards the rest
	conns  map[key]*port
	closed bool
}

type key struct {
	index int
	v6    bool
}

// New returns a Wire that has no socket yet. Run must be called to end it.
func New(o Options) (*Wire, error) {
	if o.Seen == nil {
		return nil, errors.New("wire: no function for sightings")
	}
	w := &Wire{seen: o.Seen, asked: o.Asked, enter: o.Enter, conns: map[key]*port{}}
	if w.asked == nil {
		w.asked = func(Sighting) {}
	}
	if w.enter == nil {
		w.enter = func(f func() error) error { return f() }
	}
	return w, nil
}

// Run waits for ctx, then closes the sockets and waits for their readers.
func (w *Wire) Run(ctx context.Context) error {
	<-ctx.Done()
	w.mu.Lock()
	w.closed = true
	for k, p := range w.conns {
		_ = p.conn.Close()
		delete(w.conns, k)
	}
	w.mu.Unlock()
	w.readers.Wait()
	return nil
}

// Announce tells everybody on the interface's network that it has a: for IPv4
// gratuitous ARP in both forms, for IPv6 an unsolicited neighbour advertisement.
func (w *Wire) Announce(on addr.Interface, a netip.Addr) error {
	if a.Is6() {
		frame, err := ndp.Unsolicited(a, on.MAC)
		if err != nil {
			return err
		}
		return w.send(on, a, frame)
	}
	for _, form := range []arp.Form{arp.FormRequest, arp.FormReply} {
		frame, err := arp.Gratuitous(form, a, on.MAC)
		if err != nil {
			return err
		}
		if err := w.send(on, a, frame); err != nil {
			return err
		}
	}
	return nil
}

// Ask asks the hardware address to, or everybody if it is nil, who has a.
func (w *Wire) Ask(on addr.Interface, a netip.Addr, to net.HardwareAddr) error {
	probe := arp.Probe
	if a.Is6() {
		probe = ndp.Probe
	}
	frame, err := probe(a, on.MAC, to)
	if err != nil {
		return err
	}
	return w.send(on, a, frame)
}

// Listen opens the socket for a's family, so that claims are seen from now on.
func (w *Wire) Listen(on addr.Interface, a netip.Addr) error {
	_, err := w.conn(on, a.Is6())
	return err
}

func (w *Wire) send(on addr.Interface, a netip.Addr, frame []byte) error {
	c, err := w.conn(on, a.Is6())
	if err != nil {
		return err
	}
	for attempt := 1; ; attempt++ {
		_ = c.conn.SetWriteDeadline(time.Now().Add(sendDeadline))
		_, err := c.conn.WriteTo(frame, &packet.Addr{HardwareAddr: frame[:6]})
		if err == nil {
			return nil
		}
		if attempt == sendAttempts || !errors.Is(err, os.ErrDeadlineExceeded) {
			w.drop(c)
			return fmt.Errorf("send on %s for %s: %w", on.Name, a, err)
		}
	}
}

func (w *Wire) conn(on addr.Interface, v6 bool) (*port, error) {
	k := key{on.Index, v6}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, ErrClosed
	}
	if c := w.conns[k]; c != nil {
		return c, nil
	}
	c, err := w.listen(on, v6)
	if err != nil {
		return nil, fmt.Errorf("open packet socket on %s: %w", on.Name, err)
	}
	p, err := newPort(w, k, c, on.MAC)
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("packet socket on %s: %w", on.Name, err)
	}
	w.conns[k] = p
	w.readers.Go(p.read)
	return p, nil
}

func (w *Wire) listen(on addr.Interface, v6 bool) (*packet.Conn, error) {
	ifi := &net.Interface{Index: on.Index, Name: on.Name, HardwareAddr: on.MAC}
	protocol, config := unix.ETH_P_ARP, (*packet.Config)(nil)
	if v6 {
		filter, err := neighbours()
		if err != nil {
			return nil, err
		}
		protocol, config = unix.ETH_P_IPV6, &packet.Config{Filter: filter}
	}
	var c *packet.Conn
	err := w.enter(func() (err error) {
		c, err = packet.Listen(ifi, packet.Raw, protocol, config)
		return err
	})
	return c, err
}

// neighbours lets pass neighbour advertisements, and solicitations from the
// unspecified address: they are of hosts that ask before they take an address.
func neighbours() ([]bpf.RawInstruction, error) {
	const nextHeader, source, icmpType, icmpv6 = 14 + 6, 14 + 8, 14 + 40, 58
	return bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: nextHeader, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: icmpv6, SkipTrue: 6},
		bpf.LoadAbsolute{Off: icmpType, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: ndp.TypeAdvertisement, SkipTrue: 3},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: ndp.TypeSolicitation, SkipTrue: 3},
		bpf.LoadAbsolute{Off: source, Size: 4}, // no host has an address in ::/32
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 1},
		bpf.RetConstant{Val: 4096},
		bpf.RetConstant{Val: 0},
	})
}

// drop closes a socket that does not work; the next use opens another one.
func (w *Wire) drop(p *port) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conns[p.key] == p {
		delete(w.conns, p.key)
	}
	_ = p.conn.Close()
}
