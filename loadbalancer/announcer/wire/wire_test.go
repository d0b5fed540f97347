package wire_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/onelb/onelb/loadbalancer/announcer/addr"
	"github.com/onelb/onelb/loadbalancer/announcer/arp"
	"github.com/onelb/onelb/loadbalancer/announcer/ndp"
	"github.com/onelb/onelb/loadbalancer/announcer/wire"
	"github.com/onelb/onelb/test/lab/ns"
)

const prefix = "onelb-wire-"

func TestMain(m *testing.M) {
	left, _ := ns.Named(prefix) // of a run that was interrupted
	for _, n := range left {
		_ = ns.DeleteNamed(n)
	}
	goleak.VerifyTestMain(m)
}

// pair is two hosts on one cable, each with eth0 and the address given.
func pair(t *testing.T) (a, b *ns.Namespace) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	var hosts [2]*ns.Namespace
	for i := range hosts {
		n, err := ns.New(fmt.Sprintf("%s%d", prefix, time.Now().UnixNano()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = n.Delete() })
		hosts[i] = n
	}
	must(t, hosts[0].Do(func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0",
			PeerNamespace: netlink.NsFd(hosts[1].FD()),
		})
	}))
	for i, n := range hosts {
		must(t, n.Do(func() error {
			l, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			for _, text := range []string{fmt.Sprintf("198.51.100.1%d/24", i), fmt.Sprintf("2001:db8::1%d/64", i)} {
				a, _ := netlink.ParseAddr(text)
				a.Flags = unix.IFA_F_NODAD
				if err := netlink.AddrAdd(l, a); err != nil {
					return err
				}
			}
			return netlink.LinkSetUp(l)
		}))
	}
	return hosts[0], hosts[1]
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eth0(t *testing.T, n *ns.Namespace) addr.Interface {
	t.Helper()
	table, err := addr.Open(addr.Options{Enter: n.Do})
	must(t, err)
	defer func() { _ = table.Close() }()
	all, err := table.Interfaces()
	must(t, err)
	for _, i := range all {
		if i.Name == "eth0" {
			return i
		}
	}
	t.Fatal("no eth0")
	return addr.Interface{}
}

// start runs a Wire in n and returns what it sees.
func start(t *testing.T, n *ns.Namespace) (*wire.Wire, <-chan wire.Sighting) {
	t.Helper()
	seen := make(chan wire.Sighting, 100)
	w, err := wire.New(wire.Options{Enter: n.Do, Seen: func(s wire.Sighting) { seen <- s }})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		must(t, <-done)
	})
	return w, seen
}

func TestAskFindsTheKernelThatHasTheAddress(t *testing.T) {
	a, b := pair(t)
	w, seen := start(t, a)
	on, there := eth0(t, a), eth0(t, b)
	for _, text := range []string{"198.51.100.11", "2001:db8::11"} {
		for _, to := range []net.HardwareAddr{nil, there.MAC} {
			address := netip.MustParseAddr(text)
			s := until(t, seen, address, func() error { return w.Ask(on, address, to) })
			if s.Address != address || s.MAC.String() != there.MAC.String() || s.Index != on.Index {
				t.Errorf("asked %v for %s, saw %+v", to, address, s)
			}
		}
	}
	// Nobody has this one.
	nobody4, nobody6 := netip.MustParseAddr("198.51.100.99"), netip.MustParseAddr("2001:db8::99")
	must(t, w.Ask(on, nobody4, nil))
	must(t, w.Ask(on, nobody6, nil))
	for end := time.After(200 * time.Millisecond); ; {
		select {
		case s := <-seen: // late answers are of the others
			if s.Address == nobody4 || s.Address == nobody6 {
				t.Errorf("saw %+v", s)
			}
			continue
		case <-end:
		}
		break
	}
}

// until sends again and again, since a link that has just come up loses frames, and
// returns what is seen of the address then. Late answers of others may come before.
func until(t *testing.T, seen <-chan wire.Sighting, address netip.Addr, send func() error) wire.Sighting {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	for {
		must(t, send())
		for again := time.After(50 * time.Millisecond); ; {
			select {
			case s := <-seen:
				if s.Address == address {
					return s
				}
				continue
			case <-deadline:
				t.Fatal("nothing was seen")
			case <-again:
			}
			break
		}
	}
}

func TestAnnounceIsSeen(t *testing.T) {
	a, b := pair(t)
	announcer, _ := start(t, a)
	listener, seen := start(t, b)
	on, there := eth0(t, a), eth0(t, b)
	for _, text := range []string{"198.51.100.77", "2001:db8::77"} {
		address := netip.MustParseAddr(text)
		must(t, listener.Listen(there, address))
		s := until(t, seen, address, func() error { return announcer.Announce(on, address) })
		if s.Address != address || s.MAC.String() != on.MAC.String() {
			t.Errorf("saw %+v", s)
		}
	}
}

// What a host with the address in its cache makes of it.
func TestAnnounceMovesTheNeighbourEntry(t *testing.T) {
	a, b := pair(t)
	w, _ := start(t, a)
	on := eth0(t, a)
	for _, text := range []string{"198.51.100.77", "2001:db8::77"} {
		address := netip.MustParseAddr(text)
		must(t, b.Do(func() error {
			return netlink.NeighAdd(&netlink.Neigh{
				LinkIndex: eth0(t, b).Index, IP: address.AsSlice(), State: unix.NUD_REACHABLE,
				HardwareAddr: net.HardwareAddr{2, 9, 9, 9, 9, 9},
			})
		}))
		deadline := time.Now().Add(2 * time.Minute)
		for {
			must(t, w.Announce(on, address))
			if got := neighbour(t, b, address); got == on.MAC.String() {
				break
			} else if time.Now().After(deadline) {
				t.Fatalf("the neighbour of %s is still %s", text, got)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
}

func neighbour(t *testing.T, n *ns.Namespace, a netip.Addr) string {
	t.Helper()
	var mac string
	must(t, n.Do(func() error {
		all, err := netlink.NeighList(0, netlink.FAMILY_ALL)
		for _, x := range all {
			if x.IP.Equal(a.AsSlice()) {
				mac = x.HardwareAddr.String()
			}
		}
		return err
	}))
	return mac
}

// An interface that went down and came back is used again.
func TestInterfaceGoesAndComes(t *testing.T) {
	a, b := pair(t)
	w, seen := start(t, a)
	on := eth0(t, a)
	target := netip.MustParseAddr("198.51.100.11")
	until(t, seen, target, func() error { return w.Ask(on, target, nil) })
	link := func(f func(netlink.Link) error) {
		must(t, b.Do(func() error {
			l, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			return f(l)
		}))
	}
	must(t, a.Do(func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetDown(l); err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	}))
	link(netlink.LinkSetUp)
	deadline := time.After(2 * time.Minute)
	for {
		_ = w.Ask(on, target, nil) // may fail once
		select {
		case <-seen:
			return
		case <-deadline:
			t.Fatal("no answer after the interface came back")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func TestClosed(t *testing.T) {
	w, err := wire.New(wire.Options{Seen: func(wire.Sighting) {}})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, w.Run(ctx))
	lo := addr.Interface{Name: "lo", Index: 1, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}}
	if err := w.Announce(lo, netip.MustParseAddr("198.51.100.1")); err == nil {
		t.Error("announced after the end")
	}
}

// Frames that others send do not disturb it, whatever they hold.
func TestGarbage(t *testing.T) {
	a, b := pair(t)
	w, seen := start(t, a)
	on, there := eth0(t, a), eth0(t, b)
	must(t, w.Listen(on, netip.MustParseAddr("198.51.100.11")))
	must(t, w.Listen(on, netip.MustParseAddr("2001:db8::11")))
	var c *packet.Conn
	must(t, b.Do(func() (err error) {
		c, err = packet.Listen(&net.Interface{Index: there.Index, Name: "eth0", HardwareAddr: there.MAC}, packet.Raw, arp.EtherType, nil)
		return err
	}))
	defer func() { _ = c.Close() }()
	good, err := ndp.Unsolicited(netip.MustParseAddr("2001:db8::78"), there.MAC)
	must(t, err)
	broken := append([]byte(nil), good...)
	broken[60]++ // checksum
	short, err := arp.Gratuitous(arp.FormReply, netip.MustParseAddr("198.51.100.78"), there.MAC)
	must(t, err)
	until(t, seen, netip.MustParseAddr("2001:db8::78"), func() error {
		for _, frame := range [][]byte{broken, short[:20], good} {
			if _, err := c.WriteTo(frame, &packet.Addr{HardwareAddr: frame[:6]}); err != nil {
				return err
			}
		}
		return nil
	})
	for len(seen) > 0 {
		if s := <-seen; s.Address == netip.MustParseAddr("198.51.100.78") {
			t.Errorf("saw %+v", s)
		}
	}
}
