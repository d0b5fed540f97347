package flows

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Messages and groups of ctnetlink.
const (
	subsystem   = 1 << 8 // NFNL_SUBSYS_CTNETLINK
	messageNew  = subsystem | 0
	messageGet  = subsystem | 1
	messageDel  = subsystem | 2
	groupNew    = 1
	groupUpdate = 2
	groupGone   = 3

	// watchBuffer holds the events of a burst of some ten thousand connections.
	watchBuffer = 8 << 20
	within      = 10 * time.Second
)

// ErrLost: events were lost. What is there must be listed again.
var ErrLost = errors.New("events of connections were lost")

// Kernel is the connection tracking of the network namespace in which it was
// opened. Its methods must not be called at the same time.
type Kernel struct{ conn *netlink.Conn }

// Open opens the kernel's connection tracking.
func Open() (*Kernel, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open connection tracking: %w", err)
	}
	return &Kernel{conn: conn}, nil
}

// Close closes it. What was written stays.
func (k *Kernel) Close() error { return k.conn.Close() }

// List calls back for each connection worth to be told.
func (k *Kernel) List(ctx context.Context, each func(Connection)) error {
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		if err := ctx.Err(); err != nil {
			return err
		}
		messages, err := k.execute(messageGet, netlink.Dump, []byte{family, 0, 0, 0})
		if err != nil {
			return fmt.Errorf("list connections: %w", err)
		}
		for _, m := range messages {
			c, err := decode(m.Data)
			if err != nil {
				return fmt.Errorf("list connections: %w", err)
			}
			if c.worth() {
				each(c)
			}
		}
	}
	return nil
}

// Put makes a connection, in place of whatever has one of its two tuples: the
// reply may have come before, and then stands as a connection of its own.
func (k *Kernel) Put(c Connection) error {
	body, err := c.encode()
	if err != nil {
		return fmt.Errorf("put connection %v: %w", c.Key, err)
	}
	_, err = k.execute(messageNew, netlink.Create|netlink.Excl|netlink.Acknowledge, body)
	if errors.Is(err, unix.EEXIST) {
		if err := errors.Join(k.remove(c.original()), k.remove(c.reply())); err != nil {
			return fmt.Errorf("put connection %v: %w", c.Key, err)
		}
		_, err = k.execute(messageNew, netlink.Create|netlink.Excl|netlink.Acknowledge, body)
	}
	if err != nil {
		return fmt.Errorf("put connection %v: %w", c.Key, err)
	}
	return nil
}

// Delete forgets a connection; one that is not there is no error.
func (k *Kernel) Delete(key Key) error {
	if err := k.remove(tuple{key.Client, key.Frontend, key.Protocol}); err != nil {
		return fmt.Errorf("delete connection %v: %w", key, err)
	}
	return nil
}

func (k *Kernel) remove(t tuple) error {
	body, err := encodeTuple(t)
	if err != nil {
		return err
	}
	if _, err = k.execute(messageDel, netlink.Acknowledge, body); errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

func (k *Kernel) execute(kind netlink.HeaderType, flags netlink.HeaderFlags, body []byte) ([]netlink.Message, error) {
	if err := k.conn.SetDeadline(time.Now().Add(within)); err != nil {
		return nil, err
	}
	replies, err := k.conn.Execute(netlink.Message{Header: netlink.Header{Type: kind, Flags: netlink.Request | flags}, Data: body})
	if err == nil || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOENT) {
		return replies, err
	}
	// What the kernel answers late would be taken for answers to whatever is asked next.
	conn, failed := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if failed != nil {
		return nil, errors.Join(err, failed)
	}
	_ = k.conn.Close()
	k.conn = conn
	return nil, err
}

// Watch calls back for each event until the context ends, with nil, or with ErrLost
// when the kernel was faster. Ready is called when events are being kept: a listing
// that begins then misses nothing.
func Watch(ctx context.Context, ready func(), each func(Event)) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return fmt.Errorf("watch connections: %w", err)
	}
	defer func() { _ = conn.Close() }()
	err = errors.Join(conn.SetReadBuffer(watchBuffer), conn.JoinGroup(groupNew), conn.JoinGroup(groupUpdate), conn.JoinGroup(groupGone))
	if err != nil {
		return fmt.Errorf("watch connections: %w", err)
	}
	ready()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		messages, err := conn.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			return ErrLost
		case err != nil:
			return fmt.Errorf("watch connections: %w", err)
		}
		for _, m := range messages {
			c, err := decode(m.Data)
			if err != nil {
				return fmt.Errorf("watch connections: %w", err)
			}
			each(Event{Connection: c, Ended: m.Header.Type == messageDel || !c.worth()})
		}
	}
}
