package migrate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/cmd/onelbctl/opennebula"
	"github.com/onelb/onelb/cmd/onelbctl/term"
	"github.com/onelb/onelb/loadbalancer/inventory"
	"github.com/onelb/onelb/provider/config"
	"github.com/onelb/onelb/provider/identity"
	"github.com/onelb/onelb/provider/one"
)

// Cluster is where Services are.
type Cluster interface {
	Connect() (inventory.Clients, error)
	Config() (*rest.Config, error)
}

// Command is `onelbctl migrate`.
func Command(cluster Cluster) *cobra.Command {
	c := &cobra.Command{Use: "migrate", Short: "Move Services from another load balancer, with their addresses"}
	c.AddCommand(metalCommand(cluster), officialCommand(cluster))
	return c
}

// options are those of all predecessors.
type options struct {
	cloudConfig string
	apply       bool
	timeout     time.Duration
	only        []string
	output      term.Output
}

func (o *options) addFlags(c *cobra.Command) {
	opennebula.AddFlag(c, &o.cloudConfig)
	f := c.Flags()
	f.BoolVar(&o.apply, "apply", false, "do it; without, the plan is shown only")
	f.DurationVar(&o.timeout, "timeout", 2*time.Minute, "how long one pool, or one Service, may take")
	f.StringSliceVar(&o.only, "service", nil, "NAMESPACE/NAME of a Service to move; may be repeated; default: all")
	f.StringVarP((*string)(&o.output), "output", "o", "", "json or yaml, of the plan; default: text")
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
}

// scene is what a plan is made from, and applied to.
type scene struct {
	clients   inventory.Clients
	dynamic   dynamic.Interface
	config    *config.Config
	front     *one.Client
	inv       *inventory.Inventory
	workloads []inventory.Workload
}

func (o *options) check() error {
	if err := o.output.Check(term.Table, term.JSON, term.YAML); err != nil {
		return err
	}
	if o.apply && o.output != term.Table {
		return fmt.Errorf("-o %s goes without --apply", o.output)
	}
	if o.timeout < time.Second {
		return fmt.Errorf("--timeout %s: give a second or more", o.timeout)
	}
	for _, s := range o.only {
		if ns, name, ok := strings.Cut(s, "/"); !ok || ns == "" || name == "" {
			return fmt.Errorf("--service %q: want NAMESPACE/NAME", s)
		}
	}
	return nil
}

// open reads what all plans need.
func (o *options) open(ctx context.Context, cluster Cluster) (*scene, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	cfg, front, err := opennebula.Open(o.cloudConfig)
	if err != nil {
		return nil, err
	}
	clients, err := cluster.Connect()
	if err != nil {
		return nil, err
	}
	rc, err := cluster.Config()
	if err != nil {
		return nil, err
	}
	dyn, err := dynamic.NewForConfig(rc)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	s := &scene{clients: clients, dynamic: dyn, config: cfg, front: front}
	return s, s.read(ctx)
}

func (s *scene) read(ctx context.Context) error {
	var err error
	if s.inv, err = inventory.Read(ctx, s.clients); err != nil {
		return err
	}
	for _, what := range []string{"Services", "Namespaces", "the Deployment"} {
		if s.inv.Unread(what) {
			return fmt.Errorf("%s cannot be read, without which no plan can be made: %v", what, s.inv.Gaps)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if s.workloads, err = inventory.Workloads(ctx, s.clients.Kube); err != nil {
		return fmt.Errorf("read Deployments and DaemonSets: %w", err)
	}
	return nil
}

// finish shows the plan, and applies it if that is asked for.
func (o *options) finish(c *cobra.Command, s *scene, p Plan, before func(context.Context) error) error {
	for _, key := range o.only {
		if !slices.ContainsFunc(p.Services, func(x Service) bool { return x.Key() == key }) {
			return fmt.Errorf("--service %s is not one that %s serves", key, p.From)
		}
	}
	w := c.OutOrStdout()
	if done, err := o.output.Encode(w, p); done || err != nil {
		return err
	}
	if err := p.Print(w); err != nil {
		return err
	}
	if !o.apply {
		_, err := fmt.Fprintln(w, "Nothing was changed. With --apply, this is done, one Service after the other.")
		return err
	}
	r := &runner{clients: s.clients, out: w, progress: term.NewProgress(c.ErrOrStderr()), timeout: o.timeout, every: 250 * time.Millisecond, only: o.only}
	return r.apply(c.Context(), p, before)
}

func metalCommand(cluster Cluster) *cobra.Command {
	var o options
	var networks []string
	c := &cobra.Command{
		Use: "metallb", Short: "Move Services from MetalLB", Args: cobra.NoArgs,
		Long: `Reads MetalLB's IPAddressPools, L2Advertisements and BGPAdvertisements and the Services
that it serves, and shows which AddressPools would be made of which OpenNebula networks,
what changes on each Service, and what cannot be moved and why. Every Service keeps the
addresses that it shows.

With --apply, the pools are made first; while MetalLB's controller runs, that is all. Then
one Service after the other gets its annotations, and the next follows when onelb has
published the one before. It can be interrupted, and applied again. MetalLB's objects
and annotations stay: docs/how-to/migrate-metallb.md has the whole way, and the way back.`,
		RunE: func(c *cobra.Command, _ []string) error {
			named, err := parseNetworks(networks)
			if err != nil {
				return err
			}
			s, err := o.open(c.Context(), cluster)
			if err != nil {
				return err
			}
			m, err := readMetal(c.Context(), s.dynamic)
			if err != nil {
				return err
			}
			nets, err := readNetworks(c.Context(), term.NewProgress(c.ErrOrStderr()), s.front)
			if err != nil {
				return err
			}
			p := metalPlan{metal: m, inv: s.inv, workloads: s.workloads, networks: nets, named: named}
			return o.finish(c, s, p.make(), nil)
		},
	}
	o.addFlags(c)
	c.Flags().StringArrayVar(&networks, "network", nil, "virtual network, by name or ID, of the pools, or POOL=NETWORK; default: the one that has the addresses")
	return c
}

// parseNetworks reads POOL=NETWORK, or NETWORK for all others.
func parseNetworks(args []string) (map[string]string, error) {
	out := map[string]string{}
	for _, a := range args {
		pool, network, two := strings.Cut(a, "=")
		if !two {
			pool, network = "", a
		}
		if _, twice := out[pool]; twice || network == "" || two && pool == "" {
			return nil, fmt.Errorf("--network %q: want NETWORK, or POOL=NETWORK, once for each pool", a)
		}
		out[pool] = network
	}
	return out, nil
}

func officialCommand(cluster Cluster) *cobra.Command {
	var o options
	var from struct{ old, reservation, pool, router, forward, inner string }
	c := &cobra.Command{
		Use: "opennebula-ccm", Short: "Move Services from OpenNebula's own cloud-controller-manager", Args: cobra.NoArgs,
		Long: `Takes over the reservation in which OpenNebula's own cloud-controller-manager
(cloud-provider-opennebula) keeps a cluster's addresses: it becomes that of one
AddressPool, and each Service keeps its address. Shows what would be done; with --apply
does it, one Service after the other.

The addresses are never free meanwhile. The other cloud-controller-manager has to be
removed first, and its virtual router last: until then it answers for the addresses
(docs/how-to/migrate-opennebula-ccm.md).`,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := o.open(c.Context(), cluster)
			if err != nil {
				return err
			}
			id, err := identity.Of(c.Context(), s.clients.Kube, s.config.IdentityFile)
			if err != nil {
				return err
			}
			old := cmp.Or(from.old, s.config.Cluster)
			plan := official{
				front: s.front, inv: s.inv, workloads: s.workloads, cluster: s.config.Cluster, identity: id,
				old: old, name: cmp.Or(from.reservation, old+officialLB), pool: from.pool, exposure: v1alpha1.ExposureL2,
			}
			if from.router != "" {
				plan.exposure = v1alpha1.ExposureRouter
				plan.router = &v1alpha1.RouterSpec{Name: from.router, Forward: v1alpha1.Forward(from.forward), InnerPool: from.inner}
			} else if from.forward+from.inner != "" {
				return errors.New("--forward and --inner-pool go with --router")
			}
			p, err := plan.plan(c.Context())
			if err != nil {
				return err
			}
			r := runner{clients: s.clients}
			return o.finish(c, s, p, func(ctx context.Context) error {
				if err := r.gate(ctx, p); err != nil { // two must not work on one reservation
					return err
				}
				return plan.inscribe(ctx)
			})
		},
	}
	o.addFlags(c)
	f := c.Flags()
	f.StringVar(&from.old, "old-cluster", "", "--cluster-name of the other cloud-controller-manager; default: the cluster's name in the cloud-config")
	f.StringVar(&from.reservation, "reservation", "", "name of its reservation, if that is not OLD-CLUSTER-lb any more")
	f.StringVar(&from.pool, "pool", "lb", "name of the AddressPool that the reservation becomes")
	f.StringVar(&from.router, "router", "", "router of the cloud-config that is to answer for the addresses; default: the nodes do")
	f.StringVar(&from.forward, "forward", "", "NodePort, VIP, Pod or Route, with --router")
	f.StringVar(&from.inner, "inner-pool", "", "AddressPool of the inner addresses, with --forward VIP")
	_ = c.RegisterFlagCompletionFunc("forward", cobra.FixedCompletions([]string{"NodePort", "VIP", "Pod", "Route"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}
