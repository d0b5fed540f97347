package explain

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/onelb/onelb/cmd/onelbctl/term"
	"github.com/onelb/onelb/loadbalancer/inventory"
)

// Cluster is where a Service is looked for.
type Cluster interface {
	Connect() (inventory.Clients, error)
	// Namespace is that of Services that are named without one.
	Namespace() (string, error)
}

// Command is `onelbctl explain`.
func Command(cluster Cluster) *cobra.Command {
	c := &cobra.Command{Use: "explain", Short: "Say why something is as it is"}
	c.AddCommand(serviceCommand(cluster))
	return c
}

func serviceCommand(cluster Cluster) *cobra.Command {
	var output term.Output
	var namespace string
	c := &cobra.Command{
		Use: "service [NAMESPACE/]NAME", Aliases: []string{"svc"}, Args: cobra.ExactArgs(1),
		Short: "Say why a Service waits for an address, or how packets get to its pods",
		Long: `For a Service that waits: why, and the way out, as the cloud-controller-manager would
decide from the pools that there are. For one that has addresses: each hop from outside
to the pods with its state, and what helps where it is not ok. And the last events of the
Service, its addresses and its pools.`,
		ValidArgsFunction: func(c *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
			return complete(c.Context(), cluster, prefix), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := output.Check(term.Table, term.JSON, term.YAML); err != nil {
				return err
			}
			ns, name, err := split(cluster, namespace, args[0])
			if err != nil {
				return err
			}
			clients, err := cluster.Connect()
			if err != nil {
				return err
			}
			r, err := New(c.Context(), clients, ns, name)
			if err != nil {
				return err
			}
			w := c.OutOrStdout()
			if done, err := output.Encode(w, r); done || err != nil {
				return err
			}
			return r.Print(w, term.For(w), time.Now())
		},
	}
	c.Flags().StringVarP((*string)(&output), "output", "o", "", "json or yaml; default: text")
	c.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace of the Service, if NAME does not have it; default: that of the context")
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// split reads [NAMESPACE/]NAME.
func split(cluster Cluster, namespace, arg string) (ns, name string, err error) {
	if ns, name, ok := strings.Cut(arg, "/"); ok {
		if ns == "" || name == "" || strings.Contains(name, "/") {
			return "", "", errors.New("name the Service as NAMESPACE/NAME")
		}
		if namespace != "" && namespace != ns {
			return "", "", errors.New("--namespace says another namespace than " + arg)
		}
		return ns, name, nil
	}
	if namespace == "" {
		if namespace, err = cluster.Namespace(); err != nil {
			return "", "", err
		}
	}
	return namespace, arg, nil
}

// completeWithin is how long the shell waits for names.
const completeWithin = 3 * time.Second

// complete lists the Services of type LoadBalancer whose names begin so.
func complete(ctx context.Context, cluster Cluster, prefix string) []string {
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completeWithin)
	defer cancel()
	clients, err := cluster.Connect()
	if err != nil {
		return nil
	}
	inv, err := inventory.Read(ctx, clients)
	if err != nil {
		return nil
	}
	var out []string
	for _, s := range inv.Services {
		if name := s.Namespace + "/" + s.Name; strings.HasPrefix(name, prefix) {
			out = append(out, name)
		}
	}
	return out
}
