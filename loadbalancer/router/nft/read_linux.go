package nft

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// read returns what the kernel holds, or nil when a table, set, chain or rule is
// not as it must be.
func (k *Kernel) read(ctx context.Context) (*Plan, error) {
	conn, err := k.conn()
	if err != nil {
		return nil, err
	}
	p := &Plan{}
	for i, f := range families {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("read tables: %w", err)
		}
		right, err := f.read(ctx, conn, &p.tables[i])
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read table %s %s: %w", f.name, tableName, err)
		}
		if !right {
			return nil, nil
		}
	}
	return p, nil
}

func (f family) read(ctx context.Context, conn *nftables.Conn, out *tableContent) (bool, error) {
	tables, err := conn.ListTablesOfFamily(f.family)
	if err != nil {
		return false, err
	}
	var table *nftables.Table
	for _, t := range tables {
		if t.Name == tableName {
			table = t
		}
	}
	if table == nil || table.Flags != 0 { // a dormant table does nothing
		return false, nil
	}
	right, err := f.readSets(ctx, conn, table, out)
	if err != nil || !right {
		return false, err
	}
	return f.sameChains(conn, table, (&Plan{tables: [len(families)]tableContent{*out}}).valueChains(0))
}

func (f family) readSets(ctx context.Context, conn *nftables.Conn, table *nftables.Table, out *tableContent) (bool, error) {
	sets, err := conn.GetSets(table)
	if err != nil {
		return false, fmt.Errorf("sets: %w", err)
	}
	byName := make(map[string]*nftables.Set, len(sets))
	for _, s := range sets {
		byName[s.Name] = s
	}
	definitions := f.definitions()
	if len(sets) != len(definitions) {
		return false, nil
	}
	for i, d := range definitions {
		want, have := d.kernelSet(table), byName[d.name]
		if have == nil || !sameSet(have, want) {
			return false, nil
		}
		if d.dynamic {
			continue
		}
		if out[i], err = d.elements(ctx, conn, want); err != nil {
			return false, fmt.Errorf("elements of %s: %w", d.name, err)
		}
	}
	return true, nil
}

// Reading of a set that the kernel is just making larger is tried again.
const (
	readTries = 50
	readPause = 20 * time.Millisecond
)

var errUnsteady = errors.New("the kernel gives some twice, and so not others")

// elements reads the elements of a set, sorted. For a moment after many were added the
// kernel moves them to a larger table; who reads meanwhile gets some twice and as many
// not at all.
func (d definition) elements(ctx context.Context, conn *nftables.Conn, set *nftables.Set) ([]element, error) {
	for range readTries {
		found, err := conn.GetSetElements(set)
		if err != nil {
			return nil, err
		}
		out := make([]element, 0, len(found))
		for _, e := range found {
			val := string(e.Val)
			if d.data == nftables.TypeVerdict {
				val = verdictChain(e.Val)
			}
			out = append(out, element{key: string(e.Key), end: string(e.KeyEnd), val: val})
		}
		sortElements(out)
		if !doubled(out) {
			return out, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(readPause):
		}
	}
	return nil, errUnsteady
}

// doubled reports whether a sorted list has an element twice.
func doubled(list []element) bool {
	for i := 1; i < len(list); i++ {
		if compareElements(list[i-1], list[i]) == 0 {
			return true
		}
	}
	return false
}

func sameSet(have, want *nftables.Set) bool {
	if have.IsMap != want.IsMap || have.Interval != want.Interval || have.HasTimeout != want.HasTimeout || have.Dynamic != want.Dynamic {
		return false
	}
	if want.DataType == nftables.TypeVerdict {
		return true // the library mixes up the types of key and data
	}
	return have.KeyType.Bytes == want.KeyType.Bytes && (!want.IsMap || have.DataType.Bytes == want.DataType.Bytes)
}

// verdictChain reads where an element jumps to; nothing if it does something else.
func verdictChain(b []byte) string {
	attributes, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return ""
	}
	attributes.ByteOrder = binary.BigEndian
	jump, name := false, ""
	for attributes.Next() {
		switch attributes.Type() {
		case unix.NFTA_VERDICT_CODE:
			jump = int32(attributes.Uint32()) == int32(expr.VerdictJump) //nolint:gosec // the kernel's signed number
		case unix.NFTA_VERDICT_CHAIN:
			name = attributes.String()
		}
	}
	if attributes.Err() != nil || !jump {
		return ""
	}
	return name
}

// sameChains compares chains and rules with what they must be, with those for the
// values that elements have.
func (f family) sameChains(conn *nftables.Conn, table *nftables.Table, values map[string]bool) (bool, error) {
	all, err := conn.ListChainsOfTableFamily(f.family)
	if err != nil {
		return false, fmt.Errorf("chains: %w", err)
	}
	have := map[string]*nftables.Chain{}
	for _, c := range all {
		if c.Table.Name == tableName {
			have[c.Name] = c
		}
	}
	want := f.chains()
	for name := range values {
		c, ok := f.valueChain(name)
		if !ok {
			return false, nil
		}
		want = append(want, c)
	}
	if len(have) != len(want) {
		return false, nil
	}
	for _, w := range want {
		h := have[w.name]
		if h == nil || !sameHook(h, w) {
			return false, nil
		}
		rules, err := conn.GetRules(table, h)
		if err != nil {
			return false, fmt.Errorf("rules of %s: %w", w.name, err)
		}
		if len(rules) != len(w.rules) {
			return false, nil
		}
		for i, r := range rules {
			same, err := sameRule(byte(f.family), r, w.rules[i])
			if err != nil || !same {
				return false, err
			}
		}
	}
	return true, nil
}

func sameHook(h *nftables.Chain, w chain) bool {
	if (h.Hooknum == nil) != (w.hook == nil) {
		return false
	}
	if w.hook == nil {
		return true
	}
	return *h.Hooknum == *w.hook && *h.Priority == *w.priority && h.Type == w.kind &&
		(h.Policy == nil || *h.Policy == nftables.ChainPolicyAccept)
}

// sameRule compares in the library's encoding, which is the same for what it
// decoded and for what it is about to write.
func sameRule(fam byte, have *nftables.Rule, want rule) (bool, error) {
	if len(have.Exprs) != len(want.exprs) || !bytes.Equal(have.UserData, want.userData()) {
		return false, nil
	}
	for i := range want.exprs {
		h, err := expr.Marshal(fam, have.Exprs[i])
		if err != nil {
			return false, fmt.Errorf("encode rule: %w", err)
		}
		w, err := expr.Marshal(fam, listed(want.exprs[i]))
		if err != nil {
			return false, fmt.Errorf("encode rule: %w", err)
		}
		if !bytes.Equal(h, w) {
			return false, nil
		}
	}
	return true, nil
}

// listed is an expression as the library decodes it: it does not read the
// register from which conntrack data is set.
func listed(e expr.Any) expr.Any {
	if ct, ok := e.(*expr.Ct); ok && ct.SourceRegister {
		return &expr.Ct{Key: ct.Key}
	}
	return e
}

func equal(a, b *Plan) bool {
	for i := range a.tables {
		for s := range a.tables[i] {
			if c := diff(a.tables[i][s], b.tables[i][s]); !c.empty() {
				return false
			}
		}
	}
	return true
}

// rulesetGeneration is the kernel's count of transactions in this namespace, of
// whoever. It skips 0.
func (k *Kernel) rulesetGeneration() (uint32, error) {
	if _, err := k.call(); err != nil {
		return 0, fmt.Errorf("read ruleset generation: %w", err)
	}
	messages, err := k.socket.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN),
			Flags: netlink.Request,
		},
		Data: []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0},
	})
	if err != nil {
		return 0, errors.Join(fmt.Errorf("read ruleset generation: %w", err), k.Close())
	}
	for _, m := range messages {
		if len(m.Data) < 4 {
			continue
		}
		attributes, err := netlink.NewAttributeDecoder(m.Data[4:])
		if err != nil {
			return 0, fmt.Errorf("read ruleset generation: %w", err)
		}
		attributes.ByteOrder = binary.BigEndian
		for attributes.Next() {
			if attributes.Type() == unix.NFTA_GEN_ID {
				return attributes.Uint32(), nil
			}
		}
	}
	return 0, errors.New("read ruleset generation: no answer")
}
