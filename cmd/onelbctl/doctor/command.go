package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"

	"github.com/onelb/onelb/cmd/onelbctl/opennebula"
	"github.com/onelb/onelb/cmd/onelbctl/term"
	"github.com/onelb/onelb/loadbalancer/inventory"
	"github.com/onelb/onelb/provider/identity"
	"github.com/onelb/onelb/provider/vrouter"
)

// Cluster is where is looked.
type Cluster interface {
	Connect() (inventory.Clients, error)
	Config() (*rest.Config, error)
}

// CodeError ends the program with a code for scripts; what there is to say has been said.
type CodeError int

// Error implements error.
func (c CodeError) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// Command is `onelbctl doctor`.
func Command(cluster Cluster) *cobra.Command {
	var output term.Output
	var cloudConfig string
	c := &cobra.Command{
		Use: "doctor", Short: "Look for what is wrong, and say what to do", Args: cobra.NoArgs,
		Long: `Looks at the cluster and, with --cloud-config, at OpenNebula and the routers too, before
and after onelb is installed. Nothing is changed. Each finding says what it means and what
to do.

Exit code: 0 nothing is wrong, 2 there are warnings, 3 there are errors, 1 it could not look.

The cloud-config is that of the cloud-controller-manager; the paths in it (credentials,
certificates) have to be valid here too.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := output.Check(term.Table, term.JSON, term.YAML); err != nil {
				return err
			}
			p, findings, err := admit(c.Context(), cluster, cloudConfig)
			if err != nil {
				return err
			}
			findings = append(findings, Examine(c.Context(), p)...)
			if err := Print(c.OutOrStdout(), output, findings); err != nil {
				return err
			}
			if code := Code(findings); code != 0 {
				return CodeError(code)
			}
			return nil
		},
	}
	c.Flags().StringVarP((*string)(&output), "output", "o", "", "json or yaml; default: text")
	c.Flags().StringVar(&cloudConfig, "cloud-config", "", "cloud-config file of the cloud-controller-manager, to look at OpenNebula and the routers too")
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// admit gets a patient ready. What is wrong with the cloud-config is a finding.
func admit(ctx context.Context, cluster Cluster, cloudConfig string) (*Patient, []Finding, error) {
	clients, err := cluster.Connect()
	if err != nil {
		return nil, nil, err
	}
	rc, err := cluster.Config()
	if err != nil {
		return nil, nil, err
	}
	inv, err := inventory.Read(ctx, clients)
	if err != nil && !errors.Is(err, inventory.ErrNotInstalled) {
		return nil, nil, err
	}
	p := &Patient{Clients: clients, Inventory: inv, Installed: err == nil, ServerTime: ServerTime(rc)}
	if cloudConfig == "" {
		return p, nil, nil
	}
	bad := func(err error) (*Patient, []Finding, error) {
		p.Config = nil
		return p, []Finding{{Check: "cloud-config", Severity: Error, About: "file " + cloudConfig, Meaning: err.Error(), Remedy: "correct it (docs/reference/cloud-config.md); OpenNebula and the routers were not asked"}}, nil
	}
	cfg, client, err := opennebula.Open(cloudConfig)
	if err != nil {
		return bad(err)
	}
	p.Config = cfg
	id := ""
	if len(p.Config.Routers) > 0 {
		if id, err = identity.Of(ctx, clients.Kube, p.Config.IdentityFile); err != nil {
			return bad(err)
		}
	}
	p.OpenNebula, p.Ask = client, AskRouters(vrouter.Contexts{OpenNebula: client}, p.Config.Cluster, id, AskFor)
	return p, nil, nil
}

// Report is what -o json and -o yaml give.
type Report struct {
	Findings []Finding `json:"findings"`
}

// Print writes findings.
func Print(w io.Writer, output term.Output, findings []Finding) error {
	if findings == nil {
		findings = []Finding{}
	}
	if done, err := output.Encode(w, Report{Findings: findings}); done || err != nil {
		return err
	}
	if len(findings) == 0 {
		_, err := fmt.Fprintln(w, "Nothing is wrong.")
		return err
	}
	p := term.For(w)
	colours := map[Severity]term.Colour{Error: term.Red, Warning: term.Yellow, Info: term.Grey}
	counts := map[Severity]int{}
	for _, f := range findings {
		counts[f.Severity]++
		if _, err := fmt.Fprintf(w, "%s  %s  [%s]\n    %s\n    -> %s\n", p.Paint(colours[f.Severity], fmt.Sprintf("%-7s", f.Severity)), p.Paint(term.Bold, f.About), f.Check, f.Meaning, f.Remedy); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "\n%d errors, %d warnings, %d notes\n", counts[Error], counts[Warning], counts[Info])
	return err
}
