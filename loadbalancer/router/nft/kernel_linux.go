package nft

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
)

const (
	// netlinkWithin bounds one conversation with the kernel. 100,000 frontends
	// take half a second on an idle machine.
	netlinkWithin = 30 * time.Second
	// A transaction is one message to the kernel; beyond the socket's buffer it
	// fails with EMSGSIZE.
	writeBuffer = 256 << 20
	readBuffer  = 16 << 20
	// chunk keeps one attribute below 64 KiB.
	chunk = 400
)

// Options configure a Kernel.
type Options struct {
	// NetNS is a file descriptor of a network namespace; 0 is the own one.
	NetNS int
}

// Kernel writes plans to the kernel of one network namespace. It has one owner:
// its methods must not be called at the same time.
type Kernel struct {
	opts Options
	// current is what the kernel holds, nil when that is not known.
	current *Plan
	// generation is the ruleset's when current was last known to be true.
	generation uint32
	// line and its socket are kept for edits; nil when there is none.
	line   *nftables.Conn
	socket *netlink.Conn
}

// Open returns a Kernel. It does not talk to the kernel yet.
func Open(o Options) *Kernel { return &Kernel{opts: o} }

// Close ends the connection to the kernel; the tables stay. The Kernel can still be used.
func (k *Kernel) Close() error {
	line := k.line
	k.line, k.socket = nil, nil
	if line == nil {
		return nil
	}
	return line.CloseLasting()
}

// Apply makes the kernel hold the plan, in one transaction. On error the kernel
// holds what it held before; the error is ErrRefused if the kernel said no.
func (k *Kernel) Apply(ctx context.Context, p *Plan) error {
	if k.current != nil {
		err := k.edit(k.current, p)
		if err == nil {
			return nil
		}
		// Somebody may have changed the tables, so that an element is missing
		// or there already. Look, and try once more.
		k.current = nil
		if again := k.reconcile(ctx, p); again != nil {
			return errors.Join(err, again)
		}
		return nil
	}
	return k.reconcile(ctx, p)
}

// Repair makes the kernel hold the last applied plan if somebody else changed
// the tables, and reports whether that was so. It costs one small request while
// nobody touches nftables.
func (k *Kernel) Repair(ctx context.Context) (changed bool, err error) {
	if k.current == nil {
		return false, nil
	}
	generation, err := k.rulesetGeneration()
	if err != nil {
		return false, err
	}
	if generation == k.generation {
		return false, nil
	}
	plan := k.current
	found, err := k.read(ctx)
	if err != nil {
		return false, err
	}
	if found != nil && equal(found, plan) {
		k.generation = generation
		return false, nil
	}
	return true, k.write(found, plan)
}

// Remove deletes the tables.
func (k *Kernel) Remove() error {
	conn, err := k.conn()
	if err != nil {
		return err
	}
	for _, f := range families {
		table := f.table()
		conn.AddTable(table) // so that the deletion cannot fail
		conn.DelTable(table)
	}
	k.current = nil
	return flush(conn)
}

// reconcile reads what is there and writes what differs.
func (k *Kernel) reconcile(ctx context.Context, p *Plan) error {
	found, err := k.read(ctx)
	if err != nil {
		return err
	}
	return k.write(found, p)
}

// write goes from what was found, nil for tables that are not as they must be.
func (k *Kernel) write(found, p *Plan) error {
	if found == nil {
		return k.rebuild(p)
	}
	return k.edit(found, p)
}

// edit writes the difference between two plans.
func (k *Kernel) edit(from, to *Plan) (err error) {
	changes, dirty := to.changesFrom(from)
	if !dirty {
		return k.noted(to, 0)
	}
	conn, err := k.call()
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = k.Close() // of an exchange that failed, something may be left in it
		}
	}()
	if changes.ofValues() {
		// Chains that elements jump to come before these, and go after them.
		editChains(conn, from, to, addValueChain)
	}
	// Removals first: a key that gets a new value is removed and added.
	err = eachSet(func(i int, s set) []element { return changes[i][s].remove }, conn.SetDeleteElements)
	if err == nil {
		err = eachSet(func(i int, s set) []element { return changes[i][s].add }, conn.SetAddElements)
	}
	if err != nil {
		return fmt.Errorf("encode elements: %w", err)
	}
	if changes.ofValues() {
		editChains(conn, to, from, delValueChain)
	}
	if err := flush(conn); err != nil {
		return err
	}
	return k.noted(to, 1)
}

// rebuild replaces both tables, still in one transaction.
func (k *Kernel) rebuild(p *Plan) error {
	conn, err := k.conn()
	if err != nil {
		return err
	}
	for _, f := range families {
		f.recreate(conn)
	}
	editChains(conn, &Plan{}, p, addValueChain)
	err = eachSet(func(i int, s set) []element { return p.tables[i][s] }, conn.SetAddElements)
	if err != nil {
		return fmt.Errorf("encode elements: %w", err)
	}
	if err := flush(conn); err != nil {
		return err
	}
	k.current = nil // the generation before is not known
	return k.noted(p, 1)
}

// noted remembers what the kernel holds after so many transactions of ours. If
// the ruleset's generation is not the expected one, somebody else wrote in
// between, and Repair shall look.
func (k *Kernel) noted(p *Plan, transactions uint32) error {
	generation, err := k.rulesetGeneration()
	if err != nil {
		return err
	}
	if k.current != nil && generation != k.generation+transactions {
		generation = 0 // the kernel never uses it
	}
	p.forget()
	k.current, k.generation = p, generation
	return nil
}

// call returns the connection that is kept. To close one takes until everything that
// was deleted before is really gone: 10 ms and more, since the kernel waits for all
// processors.
func (k *Kernel) call() (*nftables.Conn, error) {
	if k.line == nil {
		var socket *netlink.Conn
		line, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(k.opts.NetNS), nftables.WithSockOptions(func(c *netlink.Conn) error {
			socket = c
			return sockOptions(c)
		}))
		if err != nil {
			return nil, fmt.Errorf("open nftables: %w", err)
		}
		k.line, k.socket = line, socket
	}
	if err := k.socket.SetDeadline(time.Now().Add(netlinkWithin)); err != nil {
		return nil, errors.Join(fmt.Errorf("open nftables: %w", err), k.Close())
	}
	return k.line, nil
}

func (k *Kernel) conn() (*nftables.Conn, error) {
	conn, err := nftables.New(nftables.WithNetNSFd(k.opts.NetNS), nftables.WithSockOptions(sockOptions))
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	return conn, nil
}

// sockOptions runs at each dial, so the deadline covers one conversation.
func sockOptions(c *netlink.Conn) error {
	return errors.Join(c.SetWriteBuffer(writeBuffer), c.SetReadBuffer(readBuffer),
		c.SetDeadline(time.Now().Add(netlinkWithin)))
}

func flush(conn *nftables.Conn) error {
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return nil
}

func (f family) table() *nftables.Table {
	return &nftables.Table{Name: tableName, Family: f.family}
}

// recreate deletes and creates the table with its sets, chains and rules.
func (f family) recreate(conn *nftables.Conn) {
	table := f.table()
	conn.AddTable(table)
	conn.DelTable(table)
	conn.AddTable(table)
	for _, d := range f.definitions() {
		// AddSet without elements cannot fail; the kernel judges at the flush.
		_ = conn.AddSet(d.kernelSet(table), nil)
	}
	chains := f.chains()
	for _, c := range chains {
		c.add(conn, table)
	}
	for _, c := range chains {
		c.fill(conn, table)
	}
}

func (c chain) add(conn *nftables.Conn, table *nftables.Table) {
	conn.AddChain(&nftables.Chain{Name: c.name, Table: table, Type: c.kind, Hooknum: c.hook, Priority: c.priority})
}

func (c chain) fill(conn *nftables.Conn, table *nftables.Table) {
	for _, r := range c.rules {
		conn.AddRule(&nftables.Rule{Table: table, Chain: &nftables.Chain{Name: c.name}, Exprs: r.exprs, UserData: r.userData()})
	}
}

// editChains does something with each chain for a value that only the second plan has.
func editChains(conn *nftables.Conn, from, to *Plan, do func(conn *nftables.Conn, table *nftables.Table, c chain)) {
	for i, f := range families {
		had := from.valueChains(i)
		for _, name := range slices.Sorted(maps.Keys(to.valueChains(i))) {
			if c, ok := f.valueChain(name); ok && !had[name] {
				do(conn, f.table(), c)
			}
		}
	}
}

func addValueChain(conn *nftables.Conn, table *nftables.Table, c chain) {
	c.add(conn, table)
	c.fill(conn, table)
}

// delValueChain takes the rules with it.
func delValueChain(conn *nftables.Conn, table *nftables.Table, c chain) {
	conn.DelChain(&nftables.Chain{Name: c.name, Table: table})
}

// eachSet does something with the elements that there are for each set.
func eachSet(of func(family int, s set) []element, do func(*nftables.Set, []nftables.SetElement) error) error {
	for i, f := range families {
		table := f.table()
		for s, d := range f.definitions() {
			elements := of(i, set(s))
			if len(elements) == 0 {
				continue
			}
			ks := d.kernelSet(table)
			err := inChunks(elements, ks, func(e []nftables.SetElement) error { return do(ks, e) })
			if err != nil {
				return fmt.Errorf("%s %s: %w", f.name, d.name, err)
			}
		}
	}
	return nil
}

func inChunks(elements []element, ks *nftables.Set, do func([]nftables.SetElement) error) error {
	for len(elements) > 0 {
		n := min(len(elements), chunk)
		batch := make([]nftables.SetElement, 0, n)
		for _, e := range elements[:n] {
			k := nftables.SetElement{Key: []byte(e.key), KeyEnd: []byte(e.end)}
			if ks.DataType == nftables.TypeVerdict {
				k.VerdictData = &expr.Verdict{Kind: expr.VerdictJump, Chain: e.val}
			} else {
				k.Val = []byte(e.val)
			}
			batch = append(batch, k)
		}
		if err := do(batch); err != nil {
			return err
		}
		elements = elements[n:]
	}
	return nil
}
