package bgp

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/onelb/onelb/cmd/onelbctl/term"
	"github.com/onelb/onelb/loadbalancer/inventory"
)

// Command is `onelbctl bgp`; connect is called when it runs.
func Command(connect func() (inventory.Clients, error)) *cobra.Command {
	var output term.Output
	var node, peer string
	c := &cobra.Command{
		Use: "bgp", Short: "Show BGP sessions and routes of each node and peer", Args: cobra.NoArgs,
		Long: `Shows the BGP sessions of each node, as the node agents report them, what the peers get
and why there is no session, and which nodes announce each address of the pools with
exposure BGP to which peers.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := output.Check(term.Table, term.Wide, term.JSON, term.YAML); err != nil {
				return err
			}
			clients, err := connect()
			if err != nil {
				return err
			}
			return show(c.Context(), c.OutOrStdout(), clients, output, Filter{Node: node, Peer: peer})
		},
	}
	c.Flags().StringVarP((*string)(&output), "output", "o", "", "wide, json or yaml; default: tables")
	c.Flags().StringVar(&node, "node", "", "only of this node")
	c.Flags().StringVar(&peer, "peer", "", "only with this BGPPeer")
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"wide", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func show(ctx context.Context, w io.Writer, c inventory.Clients, output term.Output, f Filter) error {
	inv, err := inventory.Read(ctx, c)
	if err != nil {
		return err
	}
	if err := f.check(inv); err != nil {
		return err
	}
	r := New(inv, f)
	if done, err := output.Encode(w, r); done || err != nil {
		return err
	}
	return r.Print(w, term.For(w), output == term.Wide)
}

// Filter limits what is shown; empty: all.
type Filter struct{ Node, Peer string }

// check refuses names of what is not there.
func (f Filter) check(inv *inventory.Inventory) error {
	if f.Node != "" && !inv.Unread("Nodes") && inv.Node(f.Node) == nil {
		return fmt.Errorf("--node %s: there is no such node (kubectl get nodes)", f.Node)
	}
	if f.Peer == "" || inv.Unread("BGP") {
		return nil
	}
	for i := range inv.BGPPeers {
		if inv.BGPPeers[i].Name == f.Peer {
			return nil
		}
	}
	return fmt.Errorf("--peer %s: there is no such BGPPeer (kubectl get bgppeers)", f.Peer)
}
