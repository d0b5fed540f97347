// Command onelb-node holds load balancer addresses on the node it runs on, and
// announces others to BGP routers. It runs on every node, in the node's network,
// with the capabilities NET_ADMIN and NET_RAW, and NET_BIND_SERVICE to listen on
// port 179.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	logsapi "k8s.io/component-base/logs/api/v1"
	_ "k8s.io/component-base/logs/json/register" // --logging-format=json

	"github.com/onelb/onelb/loadbalancer/announcer/node"
)

// version is set by the linker.
var version = "dev"

func main() {
	node.Tune()
	os.Exit(cli.Run(command()))
}

func command() *cobra.Command {
	options, logging := node.Defaults(), logs.NewOptions()
	cmd := &cobra.Command{
		Use:           "onelb-node",
		Short:         "Holds load balancer addresses on this node",
		Version:       version,
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(*cobra.Command, []string) error {
			if err := logsapi.ValidateAndApply(logging, nil); err != nil {
				return fmt.Errorf("set up logging: %w", err)
			}
			agent, err := node.New(options)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return agent.Run(ctx)
		},
	}
	options.AddFlags(cmd.Flags())
	logsapi.AddFlags(logging, cmd.Flags())
	return cmd
}
