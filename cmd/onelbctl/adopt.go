package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/onelb/onelb/cmd/onelbctl/opennebula"
	"github.com/onelb/onelb/provider/adopt"
	"github.com/onelb/onelb/provider/config"
	"github.com/onelb/onelb/provider/identity"
)

// adoptTimeout is for the whole of it: a handful of calls.
const adoptTimeout = 5 * time.Minute

func adoptCommand() *cobra.Command {
	var a adoption
	c := &cobra.Command{
		Use: "adopt", Short: "Take over the addresses of this cluster's predecessor, whose etcd is lost", Args: cobra.NoArgs,
		Long: `Shows which reservations in OpenNebula have this cluster's name and are signed with
the identity of another cluster, and with --yes signs them with the identity of this one:
the cluster of --kubeconfig, or identityFile of the cloud-config. Services that had an
address get the same one when they are created again.

Do so only if the other cluster is gone for good. A cluster that has shown itself in
OpenNebula within the last ` + adopt.Silence.String() + ` is not touched. That a cluster is silent proves
little: it may have lost OpenNebula only. Its nodes then answer for addresses that the new
cluster gives too, so make sure that they are off.`,
		RunE: func(c *cobra.Command, _ []string) error { return a.run(c.Context(), c.OutOrStdout()) },
	}
	opennebula.AddFlag(c, &a.cloudConfig)
	c.Flags().StringVar(&a.kubeconfig, "kubeconfig", "", "kubeconfig of the new cluster; needed without identityFile in the cloud-config")
	c.Flags().BoolVar(&a.yes, "yes", false, "do it; without, the plan is shown only")
	return c
}

type adoption struct {
	cloudConfig, kubeconfig string
	yes                     bool
}

func (a adoption) run(ctx context.Context, w io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, adoptTimeout)
	defer cancel()
	cfg, client, err := opennebula.Open(a.cloudConfig)
	if err != nil {
		return err
	}
	id, err := a.identity(ctx, cfg)
	if err != nil {
		return err
	}
	plan, err := adopt.New(ctx, client, cfg.Cluster, id)
	if printErr := plan.Print(w); err != nil || printErr != nil {
		return fmt.Errorf("nothing was changed: %w", orElse(err, printErr))
	}
	switch {
	case len(plan.Steps) == 0:
		return nil
	case !a.yes:
		_, err = fmt.Fprintln(w, "Nothing was changed. With --yes, this is done.")
		return err
	}
	if err := plan.Apply(ctx, client); err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, `Adopted. The cloud-controller-manager sees it within half a minute.
If the cluster uses virtual routers, each instance still refuses the new identity: remove
%s.document from its state directory and restart onelb-router there.
`, cfg.Cluster)
	return err
}

func orElse(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// identity is that of the cluster that adopts.
func (a adoption) identity(ctx context.Context, cfg *config.Config) (string, error) {
	if cfg.IdentityFile != "" {
		return identity.Of(ctx, nil, cfg.IdentityFile)
	}
	if a.kubeconfig == "" {
		return "", fmt.Errorf("--kubeconfig is needed: the cloud-config names no identityFile")
	}
	rest, err := clientcmd.BuildConfigFromFlags("", a.kubeconfig)
	if err != nil {
		return "", fmt.Errorf("kubeconfig: %w", err)
	}
	kube, err := kubernetes.NewForConfig(rest)
	if err != nil {
		return "", fmt.Errorf("kubeconfig %s: %w", a.kubeconfig, err)
	}
	return identity.Of(ctx, kube, "")
}
