// Command onelbctl is the operator's tool.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/onelb/onelb/cmd/onelbctl/bgp"
	"github.com/onelb/onelb/cmd/onelbctl/doctor"
	"github.com/onelb/onelb/cmd/onelbctl/explain"
	"github.com/onelb/onelb/cmd/onelbctl/inventory"
	"github.com/onelb/onelb/cmd/onelbctl/pool"
	"github.com/onelb/onelb/cmd/onelbctl/status"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := root().ExecuteContext(ctx); err != nil {
		var code doctor.CodeError
		if errors.As(err, &code) {
			os.Exit(int(code)) //nolint:gocritic // nothing is left to be stopped
		}
		fmt.Fprintln(os.Stderr, "onelbctl:", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	c := &cobra.Command{
		Use: "onelbctl", Short: "Look at and set up onelb", SilenceUsage: true, SilenceErrors: true,
	}
	if filepath.Base(os.Args[0]) == "kubectl-onelb" {
		c.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl onelb"}
	}
	var cluster inventory.Kubeconfig
	for _, sub := range []*cobra.Command{status.Command(cluster.Connect), explain.Command(&cluster), doctor.Command(&cluster), bgp.Command(cluster.Connect), pool.Command(cluster.Connect)} {
		cluster.AddFlags(sub.PersistentFlags())
		c.AddCommand(sub)
	}
	c.AddCommand(routerCommand(), adoptCommand(), &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(c *cobra.Command, _ []string) { _, _ = fmt.Fprintln(c.OutOrStdout(), "onelbctl", version) },
	})
	return c
}
