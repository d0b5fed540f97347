package unnumbered

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/mdlayher/ndp"
	"golang.org/x/net/ipv6"
)

var (
	allNodes   = netip.MustParseAddr("ff02::1")
	allRouters = netip.MustParseAddr("ff02::2")
)

// converse advertises this node on an interface and hears the other side, until ctx
// is done or the interface does not work any more.
func (f *Finder) converse(ctx context.Context, device string, l *link) error {
	conn, hardware, err := f.open(device)
	if err != nil {
		return fmt.Errorf("%s: %w", device, err)
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	for ctx.Err() == nil {
		if err := speak(conn, hardware); err != nil {
			return fmt.Errorf("%s: %w", device, err)
		}
		until := time.Now().Add(f.forget(l))
		if err := conn.SetReadDeadline(until); err != nil {
			return fmt.Errorf("%s: %w", device, err)
		}
		if ctx.Err() != nil { // the deadline that it has set may be overwritten now
			return nil
		}
		if err := f.listen(conn, hardware, l); err != nil {
			return fmt.Errorf("%s: %w", device, err)
		}
	}
	return nil
}

func (f *Finder) open(device string) (conn *ndp.Conn, hardware net.HardwareAddr, err error) {
	err = f.o.Enter(func() error {
		i, err := net.InterfaceByName(device)
		if err != nil {
			return errors.New("this node has no such interface")
		}
		hardware = i.HardwareAddr
		conn, _, err = ndp.Listen(i, ndp.LinkLocal)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	var filter ipv6.ICMPFilter
	filter.SetAll(true)
	filter.Accept(ipv6.ICMPTypeRouterAdvertisement)
	filter.Accept(ipv6.ICMPTypeRouterSolicitation)
	err = errors.Join(conn.SetICMPFilter(&filter), conn.SetControlMessage(ipv6.FlagHopLimit, true), conn.JoinGroup(allNodes), conn.JoinGroup(allRouters))
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return conn, hardware, nil
}

// speak says that this node is there, and asks who else is.
func speak(conn *ndp.Conn, hardware net.HardwareAddr) error {
	if err := advertise(conn, hardware); err != nil {
		return err
	}
	return conn.WriteTo(&ndp.RouterSolicitation{Options: options(hardware)}, nil, allRouters)
}

// advertise says that this node is there, and no default router: its lifetime is 0.
func advertise(conn *ndp.Conn, hardware net.HardwareAddr) error {
	return conn.WriteTo(&ndp.RouterAdvertisement{Options: options(hardware)}, nil, allNodes)
}

func options(hardware net.HardwareAddr) []ndp.Option {
	if len(hardware) != 6 {
		return nil
	}
	return []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: hardware}}
}

// listen hears routers until the deadline of the connection.
func (f *Finder) listen(conn *ndp.Conn, hardware net.HardwareAddr, l *link) error {
	for {
		m, cm, from, err := conn.ReadFrom()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return err
		case cm == nil || cm.HopLimit != ndp.HopLimit || !from.IsLinkLocalUnicast():
			continue // from elsewhere, or forged
		}
		switch m.(type) {
		case *ndp.RouterAdvertisement:
			f.hear(l, from)
		case *ndp.RouterSolicitation:
			if !l.answers(time.Now()) {
				continue
			}
			if err := advertise(conn, hardware); err != nil {
				return err
			}
		}
	}
}
