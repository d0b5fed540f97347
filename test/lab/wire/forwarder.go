// Package wire touches Ethernet frames in a namespace: a forwarder that delays
// and loses them, a sniffer for gratuitous ARP and unsolicited neighbour
// advertisements, and a prober that asks who has an address.
//
// The kernel of small test machines has no netem, so the forwarder does in user
// space what netem would: it reads frames from a packet socket on one port,
// holds them, and writes them to a TAP device, and back.
package wire

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// queueLength is how many frames wait in one direction; more are lost, as in a
// switch. It is enough for 200 ms of a busy test.
const queueLength = 8192

// maxFrame is the largest frame with offloads: 64 KiB of IP, Ethernet and the
// virtio header.
const maxFrame = 1<<16 + 64

// Impairment is what a forwarder does to frames, in each direction.
type Impairment struct {
	Delay       time.Duration
	Jitter      time.Duration // up to this much in addition, evenly distributed
	DropPercent int
}

// Space is a network namespace.
type Space interface {
	Do(f func() error) error
	Netlink() (*netlink.Handle, error)
}

// Forwarder carries frames between an interface and a TAP device it makes.
type Forwarder struct {
	impairment atomic.Pointer[Impairment]
	port       *packet.Conn
	tap        *os.File
	done       chan struct{}
	all        sync.WaitGroup
}

// NewForwarder makes the TAP device named tap, sets it up, and starts to carry
// frames between it and the interface port, which must be on no bridge. Close
// ends it and removes the device.
func NewForwarder(space Space, port, tap string, impairment Impairment) (*Forwarder, error) {
	f := &Forwarder{done: make(chan struct{})}
	f.Set(impairment)
	err := space.Do(func() error {
		var err error
		if f.tap, err = openTap(tap); err != nil {
			return err
		}
		f.port, err = openPort(port)
		return err
	})
	if err == nil {
		err = setUp(space, tap)
	}
	if err != nil {
		return nil, errors.Join(err, f.closeFiles())
	}
	f.carry(f.tap.Read, func(frame []byte) error {
		_, err := f.port.WriteTo(frame, &packet.Addr{HardwareAddr: destination(frame)})
		return err
	})
	f.carry(func(frame []byte) (int, error) {
		n, _, err := f.port.ReadFrom(frame)
		return n, err
	}, func(frame []byte) error {
		_, err := f.tap.Write(frame)
		return err
	})
	return f, nil
}

// Set changes the impairment for the frames to come.
func (f *Forwarder) Set(i Impairment) { f.impairment.Store(&i) }

// Close ends the forwarder. Frames under way are lost.
func (f *Forwarder) Close() error {
	close(f.done)
	err := f.closeFiles()
	f.all.Wait()
	return err
}

func (f *Forwarder) closeFiles() error {
	var errs []error
	if f.tap != nil {
		errs = append(errs, f.tap.Close())
	}
	if f.port != nil {
		errs = append(errs, f.port.Close())
	}
	return errors.Join(errs...)
}

// delayed is a frame with the time it is due.
type delayed struct {
	due   time.Time
	frame []byte
}

// carry starts one direction: a reader that decides each frame's fate and a
// writer that waits until a frame is due.
func (f *Forwarder) carry(read func([]byte) (int, error), write func([]byte) error) {
	queue := make(chan delayed, queueLength)
	f.all.Add(2)
	go func() {
		defer f.all.Done()
		defer close(queue)
		buffer := make([]byte, maxFrame)
		var last time.Time
		for {
			n, err := read(buffer)
			if err != nil {
				if f.closed() || errors.Is(err, os.ErrClosed) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
					return
				}
				time.Sleep(time.Millisecond) // the interface is down: it may come back
				continue
			}
			i := f.impairment.Load()
			if rand.IntN(100) < i.DropPercent {
				continue
			}
			due := time.Now().Add(i.Delay)
			if i.Jitter > 0 {
				due = due.Add(rand.N(i.Jitter))
			}
			if due.Before(last) {
				due = last // a cable does not reorder
			}
			last = due
			select {
			case queue <- delayed{due, append([]byte(nil), buffer[:n]...)}:
			default: // the queue is full: lost
			}
		}
	}()
	go func() {
		defer f.all.Done()
		for d := range queue {
			if wait := time.Until(d.due); wait > 0 {
				select {
				case <-time.After(wait):
				case <-f.done:
					return
				}
			}
			_ = write(d.frame) // a frame that cannot be sent is a lost frame
		}
	}()
}

func (f *Forwarder) closed() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

// virtioHeader is the length of the header that carries checksum and
// segmentation offload along with each frame, on both sides alike.
const virtioHeader = 10

// destination is the receiver's MAC address of a frame with a virtio header.
func destination(frame []byte) net.HardwareAddr {
	if len(frame) < virtioHeader+6 {
		return net.HardwareAddr{0, 0, 0, 0, 0, 0}
	}
	return net.HardwareAddr(frame[virtioHeader : virtioHeader+6])
}

// openTap makes a TAP device in the current namespace.
func openTap(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("tap %s: %w", name, err)
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("make tap %s: %w", name, err)
	}
	const offloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloads); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("offloads of tap %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), "tap "+name), nil
}

// openPort opens a packet socket on an interface of the current namespace that
// sees what arrives, not what it sends itself, with virtio headers.
func openPort(name string) (*packet.Conn, error) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	conn, err := packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, nil)
	if err != nil {
		return nil, fmt.Errorf("packet socket on %s: %w", name, err)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = errors.Join(
			unix.SetsockoptInt(int(fd), unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
			unix.SetsockoptInt(int(fd), unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20),
		)
	})
	if err := errors.Join(err, set); err != nil {
		return nil, errors.Join(fmt.Errorf("packet socket on %s: %w", name, err), conn.Close())
	}
	return conn, nil
}

func setUp(space Space, name string) error {
	nl, err := space.Netlink()
	if err != nil {
		return err
	}
	defer nl.Close()
	link, err := nl.LinkByName(name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	return nl.LinkSetUp(link)
}
