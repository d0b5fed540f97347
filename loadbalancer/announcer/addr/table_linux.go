package addr

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// deadline of one exchange with the kernel.
	deadline = 5 * time.Second
	// batch is how many addresses are renewed in one message: it must fit the
	// socket's send buffer.
	batch = 256
	// dumpTries bounds the repetitions of a listing that changed while it was read.
	dumpTries = 5
)

// Options of Open.
type Options struct {
	// Enter runs a function in the network namespace to work in. Nil: the
	// caller's.
	Enter func(func() error) error
}

// Table is the kernel's table of addresses in one network namespace.
type Table struct {
	enter func(func() error) error

	mu       sync.Mutex // one exchange at a time on conn
	conn     *netlink.Conn
	renewals map[renewalKey][]byte // guarded by mu
}

type renewalKey struct {
	address netip.Addr
	index   int
	valid   time.Duration
}

// renewalsMax is far more than a node has.
const renewalsMax = 10000

// Open opens the table. Close it after use.
func Open(o Options) (*Table, error) {
	t := &Table{enter: o.Enter, renewals: map[renewalKey][]byte{}}
	if t.enter == nil {
		t.enter = func(f func() error) error { return f() }
	}
	conn, err := t.dial()
	if err != nil {
		return nil, err
	}
	t.conn = conn
	return t, nil
}

func (t *Table) dial() (*netlink.Conn, error) {
	var conn *netlink.Conn
	err := t.enter(func() (err error) {
		conn, err = netlink.Dial(unix.NETLINK_ROUTE, nil)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open route netlink: %w", err)
	}
	return conn, nil
}

// Close ends the use of the table; the addresses stay for their lifetimes.
func (t *Table) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.conn.Close()
}

// Interfaces lists the interfaces, sorted by name.
func (t *Table) Interfaces() ([]Interface, error) {
	links, err := t.dump(unix.RTM_GETLINK, unix.RTM_NEWLINK, make([]byte, sizeofLink))
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	byIndex := map[int]*Interface{}
	for _, b := range links {
		i, err := decodeLink(b)
		if err != nil {
			return nil, err
		}
		byIndex[i.Index] = &i
	}
	records, err := t.records()
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		i := byIndex[r.index]
		if i == nil || r.marked() {
			continue
		}
		i.Own = append(i.Own, r.prefix.Addr())
		if !r.prefix.IsSingleIP() {
			i.Networks = append(i.Networks, r.prefix.Masked())
		}
	}
	return sorted(byIndex), nil
}

func sorted(byIndex map[int]*Interface) []Interface {
	out := make([]Interface, 0, len(byIndex))
	for _, i := range byIndex {
		slices.SortFunc(i.Own, netip.Addr.Compare)
		slices.SortFunc(i.Networks, netip.Prefix.Compare)
		out = append(out, *i)
	}
	slices.SortFunc(out, func(a, b Interface) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Ours lists the addresses that an earlier run or this one left, sorted. On
// kernels without IFA_PROTO an address that remembered reports is ours if it is
// a host prefix with a lifetime.
func (t *Table) Ours(remembered func(netip.Addr) bool) ([]Entry, error) {
	records, err := t.records()
	if err != nil {
		return nil, err
	}
	var out []Entry
	for _, r := range records {
		a := r.prefix.Addr()
		if !r.marked() && !(r.protocol == 0 && r.prefix.IsSingleIP() && r.valid != forever && remembered(a)) {
			continue
		}
		out = append(out, Entry{Address: a, Index: r.index, Valid: r.remaining()})
	}
	slices.SortFunc(out, func(a, b Entry) int {
		return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.Index, b.Index))
	})
	return out, nil
}

// marked reports whether the address is ours beyond doubt.
func (r record) marked() bool {
	if !r.prefix.IsSingleIP() || r.valid == forever {
		return false
	}
	return r.protocol == Protocol || r.protocol == 0 && len(r.label) > len(labelSuffix) && r.label[len(r.label)-len(labelSuffix):] == labelSuffix
}

// Add adds the address to the interface for the time valid, rounded up to
// seconds. An address of ours that is there already is renewed; one that is not
// ours gives ErrForeign.
func (t *Table) Add(a netip.Addr, on Interface, valid time.Duration) error {
	if valid < time.Second {
		return fmt.Errorf("add %s to %s: %w", a, on.Name, ErrLifetime)
	}
	body, err := encodeAddress(a, on.Index, on.Name, valid)
	if err != nil {
		return err
	}
	err = t.execute(unix.RTM_NEWADDR, netlink.Create|netlink.Excl, body)
	if !errors.Is(err, unix.EEXIST) {
		return wrap(err, "add %s to %s", a, on.Name)
	}
	ours, err := t.Ours(func(netip.Addr) bool { return false })
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(ours, func(e Entry) bool { return e.Address == a && e.Index == on.Index }) {
		return fmt.Errorf("add %s to %s: %w", a, on.Name, ErrForeign)
	}
	return wrap(t.execute(unix.RTM_NEWADDR, netlink.Create|netlink.Replace, body), "renew %s on %s", a, on.Name)
}

// Renew sets the lifetime of our addresses anew, all in one message; an address
// that has gone is added again. Valid of the entries is ignored. The errors of
// single addresses are joined; the others are renewed all the same.
func (t *Table) Renew(entries []Entry, valid time.Duration) error {
	if valid < time.Second {
		return fmt.Errorf("renew addresses: %w", ErrLifetime)
	}
	var errs []error
	for chunk := range slices.Chunk(entries, batch) {
		if t.renewAll(chunk, valid) == nil {
			continue
		}
		for _, e := range chunk { // one of them fails: find out which
			body, err := encodeAddress(e.Address, e.Index, "", valid)
			if err == nil {
				err = t.execute(unix.RTM_NEWADDR, netlink.Create|netlink.Replace, body)
			}
			if err != nil {
				errs = append(errs, &EntryError{Entry: e, Err: err})
			}
		}
	}
	return errors.Join(errs...)
}

// EntryError is the failure of one address in a batch.
type EntryError struct {
	Entry Entry
	Err   error
}

func (e *EntryError) Error() string {
	return fmt.Sprintf("%s on interface %d: %v", e.Entry.Address, e.Entry.Index, e.Err)
}

func (e *EntryError) Unwrap() error { return e.Err }

// renewAll asks for no acknowledgement of each address, since the kernel reports
// failures anyway, and ends the batch with an empty message that is acknowledged.
func (t *Table) renewAll(entries []Entry, valid time.Duration) error {
	messages := make([]netlink.Message, 0, len(entries)+1)
	for _, e := range entries {
		body, err := t.renewal(e, valid)
		if err != nil {
			return err
		}
		messages = append(messages, netlink.Message{
			Header: netlink.Header{Type: unix.RTM_NEWADDR, Flags: netlink.Request | netlink.Create | netlink.Replace},
			Data:   body,
		})
	}
	return t.sendAll(messages)
}

// renewal is the body of a renewal. It is the same each time, and to put it together
// costs as much as what the kernel does then.
func (t *Table) renewal(e Entry, valid time.Duration) ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := renewalKey{e.Address, e.Index, valid}
	if body, ok := t.renewals[key]; ok {
		return body, nil
	}
	body, err := encodeAddress(e.Address, e.Index, "", valid)
	if err == nil {
		if len(t.renewals) >= renewalsMax {
			clear(t.renewals) // addresses come and go
		}
		t.renewals[key] = body
	}
	return body, err
}

// sendAll sends the messages at once and returns when the kernel has done them all,
// with one of the errors if there were any.
func (t *Table) sendAll(messages []netlink.Message) error {
	messages = append(messages, netlink.Message{
		Header: netlink.Header{Type: netlink.Noop, Flags: netlink.Request | netlink.Acknowledge},
	})
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.conn.SetDeadline(time.Now().Add(deadline)); err != nil {
		return err
	}
	sent, err := t.conn.SendMessages(messages)
	if err != nil {
		return t.anew(err)
	}
	last := sent[len(sent)-1].Header.Sequence
	var failed error
	for range sent {
		replies, err := t.conn.Receive()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return t.anew(err)
		}
		if err != nil {
			failed = err
			continue
		}
		if slices.ContainsFunc(replies, func(m netlink.Message) bool { return m.Header.Sequence == last }) {
			break
		}
	}
	return failed
}

// Remove removes an address of ours. One that has gone is no error.
func (t *Table) Remove(a netip.Addr, index int) error {
	body, err := encodeAddress(a, index, "", 0)
	if err != nil {
		return err
	}
	err = t.execute(unix.RTM_DELADDR, 0, body)
	if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return wrap(err, "remove %s from interface %d", a, index)
}

// WatchLinks calls changed whenever an interface changes, until ctx is done.
func (t *Table) WatchLinks(ctx context.Context, changed func()) error {
	conn, err := t.dial()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.JoinGroup(unix.RTNLGRP_LINK); err != nil {
		return fmt.Errorf("watch interfaces: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		_, err := conn.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !errors.Is(err, unix.ENOBUFS): // ENOBUFS: some were lost, which is a change too
			return fmt.Errorf("watch interfaces: %w", err)
		}
		changed()
	}
}

func (t *Table) records() ([]record, error) {
	bodies, err := t.dump(unix.RTM_GETADDR, unix.RTM_NEWADDR, make([]byte, sizeofAddr))
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	out := make([]record, 0, len(bodies))
	for _, b := range bodies {
		r, err := decodeAddress(b)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// dump returns the bodies of a listing.
func (t *Table) dump(request, reply netlink.HeaderType, body []byte) ([][]byte, error) {
	for range dumpTries {
		replies, err := t.exchange(request, netlink.Dump, body)
		if err != nil {
			return nil, err
		}
		var out [][]byte
		interrupted := false
		for _, m := range replies {
			interrupted = interrupted || m.Header.Flags&netlink.DumpInterrupted != 0
			if m.Header.Type == reply {
				out = append(out, m.Data)
			}
		}
		if !interrupted {
			return out, nil
		}
	}
	return nil, fmt.Errorf("the table kept changing while it was read")
}

func (t *Table) execute(kind netlink.HeaderType, flags netlink.HeaderFlags, body []byte) error {
	_, err := t.exchange(kind, flags|netlink.Acknowledge, body)
	return err
}

func (t *Table) exchange(kind netlink.HeaderType, flags netlink.HeaderFlags, body []byte) ([]netlink.Message, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.conn.SetDeadline(time.Now().Add(deadline)); err != nil {
		return nil, err
	}
	replies, err := t.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: kind, Flags: netlink.Request | flags},
		Data:   body,
	})
	return replies, t.anew(err)
}

// anew opens another socket if err leaves this one in disorder, and returns err: what
// the kernel answers after the deadline would be taken for the answers to whatever is
// asked next, and all of it would fail.
func (t *Table) anew(err error) error {
	var op *netlink.OpError
	if !errors.Is(err, os.ErrDeadlineExceeded) && !(errors.As(err, &op) && op.Op == "validate") {
		return err
	}
	conn, failed := t.dial()
	if failed != nil {
		return errors.Join(err, failed)
	}
	_ = t.conn.Close()
	t.conn = conn
	return err
}

func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}
