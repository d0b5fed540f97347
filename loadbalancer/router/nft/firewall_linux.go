package nft

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
)

// Firewalls returns an error that names what in other tables drops all of this
// traffic, whoever sends it. It changes nothing. What depends on the client, or on
// what it cannot look into, is not reported.
func (k *Kernel) Firewalls(ctx context.Context, traffic []Traffic) error {
	if len(traffic) == 0 {
		return nil
	}
	conn, err := k.conn()
	if err != nil {
		return err
	}
	tables, err := conn.ListTables()
	if err != nil {
		return fmt.Errorf("look for firewalls: %w", err)
	}
	chains, err := conn.ListChains()
	if err != nil {
		return fmt.Errorf("look for firewalls: %w", err)
	}
	var found []error
	for _, table := range tables {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("look for firewalls: %w", err)
		}
		if table.Name == tableName || table.Flags != 0 { // ours, or dormant
			continue
		}
		err := inTable(conn, table, chains, traffic)
		if errors.Is(err, os.ErrNotExist) {
			continue // it went meanwhile
		}
		found = append(found, err)
	}
	return errors.Join(found...)
}

// inTable judges the base chains of one table that forwarded packets go through.
func inTable(conn *nftables.Conn, table *nftables.Table, chains []*nftables.Chain, traffic []Traffic) error {
	var own, base []*nftables.Chain
	for _, c := range chains {
		if c.Table.Name != table.Name || c.Table.Family != table.Family {
			continue
		}
		own = append(own, c)
		if c.Type == nftables.ChainTypeFilter && c.Hooknum != nil && (*c.Hooknum == *nftables.ChainHookForward || *c.Hooknum == *nftables.ChainHookPostrouting) {
			base = append(base, c)
		}
	}
	if len(base) == 0 {
		return nil
	}
	f, err := readForeign(conn, table, own)
	if err != nil {
		return fmt.Errorf("look for firewalls in table %s %s: %w", familyName(table.Family), table.Name, err)
	}
	var found []error
	for _, c := range base {
		var dropped []string
		help := "ct status dnat accept"
		for _, t := range traffic {
			if concerns(table.Family, t.Backend.Addr()) && f.judge(c.Name, c.Policy, t) == drops {
				dropped = append(dropped, fmt.Sprintf("%s from %s to %s on %s", t.Protocol, t.In.Name, t.Backend, t.Out.Name))
				if t.Routed {
					help = fmt.Sprintf("%s daddr %s accept", families[familyIndex(t.Backend.Addr())].name, t.Backend.Addr())
				}
			}
		}
		if len(dropped) > 0 {
			slices.Sort(dropped)
			found = append(found, fmt.Errorf("chain %s of table %s %s drops connections to frontends (for example %s): let them pass there, for example with the rule: %s",
				c.Name, familyName(table.Family), table.Name, strings.Join(slices.Compact(dropped), ", "), help))
		}
	}
	return errors.Join(found...)
}

func readForeign(conn *nftables.Conn, table *nftables.Table, chains []*nftables.Chain) (foreign, error) {
	f := foreign{rules: map[string][]*nftables.Rule{}}
	for _, c := range chains {
		rules, err := conn.GetRules(table, c)
		if err != nil {
			return f, err
		}
		f.rules[c.Name] = rules
	}
	f.elements = func(name string) ([]nftables.SetElement, bool) {
		set, err := conn.GetSetByName(table, name)
		if err != nil {
			return nil, false
		}
		elements, err := conn.GetSetElements(set)
		return elements, err == nil && !set.Interval && !set.Concatenation
	}
	return f, nil
}
