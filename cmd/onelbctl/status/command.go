// Package status shows, in one view, what onelb has and how it is: pools,
// addresses, Services that wait, agents and routers. It reads and changes
// nothing; what no object tells is left out.
package status

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/onelb/onelb/cmd/onelbctl/term"
	"github.com/onelb/onelb/loadbalancer/inventory"
	"github.com/onelb/onelb/loadbalancer/overview"
)

// Command is `onelbctl status`; connect is called when it runs.
func Command(connect func() (inventory.Clients, error)) *cobra.Command {
	var o options
	c := &cobra.Command{
		Use: "status", Short: "Show pools, addresses, agents and routers", Args: cobra.NoArgs,
		Long: `Shows pools and how full they are, each address with its Service, who holds it and
whether packets reach the pods, Services that wait for an address and why, and the
agents and routers with what they have published.

HEALTH is that of the worst hop of the way to the pods: ok, warning (it works, or will
soon), down, or unknown (you may not read what it would be told from).`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.output.Check(term.Table, term.Wide, term.JSON, term.YAML); err != nil {
				return err
			}
			clients, err := connect()
			if err != nil {
				return err
			}
			return o.run(c.Context(), c.OutOrStdout(), clients)
		},
	}
	c.Flags().StringVarP((*string)(&o.output), "output", "o", "", "wide, json or yaml; default: tables")
	c.Flags().BoolVarP(&o.watch, "watch", "w", false, "show it again and again, until interrupted")
	c.Flags().DurationVar(&o.interval, "interval", 2*time.Second, "pause between two looks of --watch")
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"wide", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

type options struct {
	output   term.Output
	watch    bool
	interval time.Duration
}

func (o options) run(ctx context.Context, w io.Writer, c inventory.Clients) error {
	if !o.watch {
		return o.show(ctx, w, c)
	}
	tick := time.NewTicker(max(o.interval, 100*time.Millisecond))
	defer tick.Stop()
	for {
		err := o.show(ctx, w, c)
		switch {
		case ctx.Err() != nil:
			return nil // interrupted, as it has to be
		case errors.Is(err, inventory.ErrNotInstalled):
			return err
		case err != nil: // the API server may come back
			if _, err := fmt.Fprintf(w, "%v; trying again\n", err); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (o options) show(ctx context.Context, w io.Writer, c inventory.Clients) error {
	inv, err := inventory.Read(ctx, c)
	if err != nil {
		return err
	}
	r := overview.New(inv)
	if done, err := o.output.Encode(w, r); done || err != nil {
		return err
	}
	if o.watch {
		line := "\n"
		if term.Terminal(w) {
			line = term.Clear
		}
		if _, err := fmt.Fprintf(w, "%s%s, every %s\n", line, r.Time.Format(time.DateTime), o.interval); err != nil {
			return err
		}
	}
	return Print(r, w, term.For(w), o.output == term.Wide)
}
