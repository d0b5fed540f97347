// Package wire speaks ARP and neighbour discovery on the interfaces of a host:
// it announces addresses, asks who has them, and reports who says so.
//
// Sockets are opened at first use, one for each interface and family, and
// receive only ARP or only neighbour advertisements. Sending does not wait for
// answers: they arrive, like what others announce unasked, at the Seen function.
package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/onelb/onelb/loadbalancer/announcer/addr"
	"github.com/onelb/onelb/loadbalancer/announcer/arp"
	"github.com/onelb/onelb/loadbalancer/announcer/ndp"
)

// sendDeadline bounds one frame; a socket whose queue stays full is broken.
const sendDeadline = 100 * time.Millisecond

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
	// Enter runs a function in the network namespace to work in. Nil: the
	// caller's.
	Enter func(func() error) error
}

// Wire sends and receives on the interfaces of one network namespace.
type Wire struct {
	seen  func(Sighting)
	enter func(func() error) error

	readers sync.WaitGroup

	mu     sync.Mutex // guards the rest
	conns  map[key]*packet.Conn
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
	w := &Wire{seen: o.Seen, enter: o.Enter, conns: map[key]*packet.Conn{}}
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
	for k, c := range w.conns {
		_ = c.Close()
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
	_ = c.SetWriteDeadline(time.Now().Add(sendDeadline))
	if _, err := c.WriteTo(frame, &packet.Addr{HardwareAddr: frame[:6]}); err != nil {
		w.drop(key{on.Index, a.Is6()}, c)
		return fmt.Errorf("send on %s for %s: %w", on.Name, a, err)
	}
	return nil
}

func (w *Wire) conn(on addr.Interface, v6 bool) (*packet.Conn, error) {
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
	w.conns[k] = c
	own := bytes.Clone(on.MAC)
	w.readers.Go(func() { w.read(k, c, own) })
	return c, nil
}

func (w *Wire) listen(on addr.Interface, v6 bool) (*packet.Conn, error) {
	ifi := &net.Interface{Index: on.Index, Name: on.Name, HardwareAddr: on.MAC}
	protocol, config := unix.ETH_P_ARP, (*packet.Config)(nil)
	if v6 {
		filter, err := advertisementsOnly()
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

// advertisementsOnly keeps the node's IPv6 traffic away from us.
func advertisementsOnly() ([]bpf.RawInstruction, error) {
	const nextHeader, icmpType, icmpv6 = 14 + 6, 14 + 40, 58
	return bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: nextHeader, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: icmpv6, SkipTrue: 3},
		bpf.LoadAbsolute{Off: icmpType, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: ndp.TypeAdvertisement, SkipTrue: 1},
		bpf.RetConstant{Val: 4096},
		bpf.RetConstant{Val: 0},
	})
}

// drop closes a socket that failed; the next use opens another one.
func (w *Wire) drop(k key, c *packet.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conns[k] == c {
		delete(w.conns, k)
	}
	_ = c.Close()
}

func (w *Wire) read(k key, c *packet.Conn, own net.HardwareAddr) {
	buffer := make([]byte, 4096)
	for {
		n, _, err := c.ReadFrom(buffer)
		if errors.Is(err, unix.ENETDOWN) {
			continue // told once when the interface goes down; it may come back
		}
		if err != nil {
			w.drop(k, c)
			return
		}
		if s, ok := claim(k, buffer[:n]); ok && !bytes.Equal(s.MAC, own) {
			w.seen(s)
		}
	}
}

// claim returns what the frame says about who has an address.
func claim(k key, frame []byte) (Sighting, bool) {
	if k.v6 {
		m, err := ndp.Parse(frame)
		return Sighting{Address: m.Target, MAC: m.MAC, Index: k.index}, err == nil && m.Advertisement
	}
	m, err := arp.Parse(frame)
	return Sighting{Address: m.Sender, MAC: m.SenderMAC, Index: k.index}, err == nil && !m.Sender.IsUnspecified()
}
