package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/onelb/onelb/cmd/onelbctl/bgp"
	"github.com/onelb/onelb/cmd/onelbctl/doctor"
	"github.com/onelb/onelb/cmd/onelbctl/explain"
	"github.com/onelb/onelb/cmd/onelbctl/gc"
	"github.com/onelb/onelb/cmd/onelbctl/kubeconfig"
	"github.com/onelb/onelb/cmd/onelbctl/migrate"
	"github.com/onelb/onelb/cmd/onelbctl/page"
	"github.com/onelb/onelb/cmd/onelbctl/pool"
	"github.com/onelb/onelb/cmd/onelbctl/status"
)

func root() *cobra.Command {
	c := &cobra.Command{
		Use: "onelbctl", Short: "Look at and set up onelb", Version: version, SilenceUsage: true, SilenceErrors: true,
	}
	switch filepath.Base(os.Args[0]) {
	case "kubectl-onelb":
		c.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl onelb"}
	case "kubectl_complete-onelb": // what kubectl's own completion calls for plugins
		c.SetArgs(append([]string{cobra.ShellCompRequestCmd}, os.Args[1:]...))
	}
	var cluster kubeconfig.Flags
	for _, sub := range []*cobra.Command{
		status.Command(cluster.Connect), explain.Command(&cluster), doctor.Command(&cluster), bgp.Command(cluster.Connect), pool.Command(cluster.Connect),
		gc.Command(cluster.Connect), migrate.Command(&cluster), page.Command(&cluster),
	} {
		cluster.AddFlags(sub.PersistentFlags())
		c.AddCommand(sub)
	}
	c.AddCommand(routerCommand(), adoptCommand(), &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(c *cobra.Command, _ []string) { _, _ = fmt.Fprintln(c.OutOrStdout(), "onelbctl", version) },
	})
	return c
}
