package arpfilter

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// netlinkWithin bounds one transaction; it may wait for one of kube-proxy.
const netlinkWithin = 30 * time.Second

// chunk keeps one attribute below 64 KiB.
const chunk = 400

var (
	table = &nftables.Table{Name: "onelb", Family: nftables.TableFamilyARP}
	// request is ARP's operation 1.
	request = []byte{0, 1}
)

// sets as they are at the beginning of a transaction; their identifiers belong to it.
type sets struct{ alive, renewed, known, held *nftables.Set }

func newSets() sets {
	iface := nftables.TypeIFIndex
	return sets{
		alive: &nftables.Set{Table: table, Name: "alive", KeyType: nftables.TypeARPOp, HasTimeout: true},
		// renewed has the same element while held places may answer.
		renewed: &nftables.Set{Table: table, Name: "renewed", KeyType: nftables.TypeARPOp, HasTimeout: true},
		known:   &nftables.Set{Table: table, Name: "known", KeyType: nftables.TypeIPAddr},
		held: &nftables.Set{Table: table, Name: "held", Concatenation: true,
			KeyType: nftables.MustConcatSetType(iface, nftables.TypeIPAddr)},
	}
}

// sockOptions runs at each dial, so the deadline covers one transaction. All of it
// must fit into the socket's buffer.
func sockOptions(c *netlink.Conn) error {
	return errors.Join(c.SetWriteBuffer(4<<20), c.SetReadBuffer(4<<20), c.SetDeadline(time.Now().Add(netlinkWithin)))
}

// library is held while a transaction is put together: google/nftables numbers
// new sets from a global variable that it does not guard, and several agents of
// one process (tests) would race for it.
var library sync.Mutex

// transaction runs f and sends what it queued, all or nothing.
func (f *Filter) transaction(what string, queue func(*nftables.Conn) error) error {
	library.Lock()
	defer library.Unlock()
	err := f.o.Enter(func() error {
		conn, err := nftables.New(nftables.WithSockOptions(sockOptions))
		if err != nil {
			return err
		}
		if err := queue(conn); err != nil {
			return err
		}
		return conn.Flush()
	})
	if err != nil {
		return fmt.Errorf("%s table arp %s: %w", what, table.Name, err)
	}
	return nil
}

// rebuild writes everything anew.
func (f *Filter) rebuild(want *elements) error {
	return f.transaction("write", func(conn *nftables.Conn) error {
		conn.AddTable(table) // so that the deletion cannot fail
		conn.DelTable(table)
		conn.AddTable(table)
		s := newSets()
		if err := conn.AddSet(s.alive, []nftables.SetElement{{Key: request, Timeout: lapseTime}}); err != nil {
			return err
		}
		// Without a timeout, an element stays.
		answers := []nftables.SetElement{{Key: request}}
		if want.renewed {
			answers[0].Timeout = f.o.Release
		}
		if err := conn.AddSet(s.renewed, answers); err != nil {
			return err
		}
		for set, keys := range map[*nftables.Set][]string{s.known: want.known, s.held: want.held} {
			if err := conn.AddSet(set, nil); err != nil {
				return err
			}
			if err := inChunks(keys, func(e []nftables.SetElement) error { return conn.SetAddElements(set, e) }); err != nil {
				return err
			}
		}
		accept := nftables.ChainPolicyAccept
		chain := conn.AddChain(&nftables.Chain{
			Name: "input", Table: table, Type: nftables.ChainTypeFilter, Policy: &accept,
			Hooknum: nftables.ChainHookRef(0), Priority: nftables.ChainPriorityFilter, // NF_ARP_IN
		})
		for _, exprs := range rules(s) {
			conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: exprs})
		}
		return nil
	})
}

// edit writes the difference.
func (f *Filter) edit(from, to *elements, renew bool) error {
	return f.transaction("change", func(conn *nftables.Conn) error {
		s := newSets()
		if renew {
			if err := renewElement(conn, s.alive, lapseTime); err != nil {
				return err
			}
		}
		if renew && to.renewed && f.o.Alive() {
			if err := renewElement(conn, s.renewed, f.o.Release); err != nil {
				return err
			}
		}
		for _, x := range []struct {
			set      *nftables.Set
			from, to []string
		}{{s.known, from.known, to.known}, {s.held, from.held, to.held}} {
			if err := inChunks(without(x.from, x.to), func(e []nftables.SetElement) error { return conn.SetDeleteElements(x.set, e) }); err != nil {
				return err
			}
			if err := inChunks(without(x.to, x.from), func(e []nftables.SetElement) error { return conn.SetAddElements(x.set, e) }); err != nil {
				return err
			}
		}
		return nil
	})
}

// renewElement gives the element of a set its whole timeout again, also if it has
// lapsed: it is added first so that the deletion cannot fail.
func renewElement(conn *nftables.Conn, set *nftables.Set, timeout time.Duration) error {
	element := []nftables.SetElement{{Key: request, Timeout: timeout}}
	return errors.Join(conn.SetAddElements(set, element), conn.SetDeleteElements(set, element), conn.SetAddElements(set, element))
}

func inChunks(keys []string, write func([]nftables.SetElement) error) error {
	for part := range slices.Chunk(keys, chunk) {
		list := make([]nftables.SetElement, 0, len(part))
		for _, k := range part {
			list = append(list, nftables.SetElement{Key: []byte(k)})
		}
		if err := write(list); err != nil {
			return err
		}
	}
	return nil
}

// rules, where daddr is the address that is asked for:
//
//	arp operation @alive arp daddr ip @known iif . arp daddr ip != @held drop
//	arp operation @alive arp daddr ip @known arp operation != @renewed drop
func rules(s sets) [][]expr.Any {
	const operation, target = 6, 24
	asks := func(set *nftables.Set, not bool) []expr.Any {
		return []expr.Any{
			&expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseNetworkHeader, Offset: operation, Len: 2},
			&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: set.Name, SetID: set.ID, Invert: not},
		}
	}
	address := func(register uint32) expr.Any {
		return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: target, Len: 4}
	}
	known := append(asks(s.alive, false), address(unix.NFT_REG_1),
		&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: s.known.Name, SetID: s.known.ID})
	notHeld := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIF, Register: unix.NFT_REG_1},
		address(unix.NFT_REG32_01),
		&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: s.held.Name, SetID: s.held.ID, Invert: true},
	}
	drop := []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}
	return [][]expr.Any{
		slices.Concat(known, notHeld, drop),
		slices.Concat(known, asks(s.renewed, true), drop),
	}
}
