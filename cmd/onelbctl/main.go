// Command onelbctl is the operator's tool.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := root().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "onelbctl:", err)
		os.Exit(1) //nolint:gocritic // nothing is left to be stopped
	}
}

func root() *cobra.Command {
	c := &cobra.Command{
		Use: "onelbctl", Short: "Look at and set up onelb", SilenceUsage: true, SilenceErrors: true,
	}
	c.AddCommand(routerCommand(), adoptCommand(), &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(c *cobra.Command, _ []string) { _, _ = fmt.Fprintln(c.OutOrStdout(), "onelbctl", version) },
	})
	return c
}
