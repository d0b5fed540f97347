// Package gc is `onelbctl gc`: it shows what this cluster has in OpenNebula and
// nobody wants, and gives it back where no cloud-controller-manager does. With
// --dry-run nothing is changed; without, by the rules of the sweep.
package gc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/spf13/cobra"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/onelb/onelb/api/client"
	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/cmd/onelbctl/opennebula"
	"github.com/onelb/onelb/cmd/onelbctl/term"
	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/loadbalancer/inventory"
	"github.com/onelb/onelb/provider/gc"
	"github.com/onelb/onelb/provider/identity"
)

// ErrLed: a cloud-controller-manager leads, and gives back by itself.
var ErrLed = errors.New("a cloud-controller-manager leads")

// lookTimeout is for one look at both sides.
const lookTimeout = 2 * time.Minute

// Command is `onelbctl gc`; connect is called when it runs.
func Command(connect func() (inventory.Clients, error)) *cobra.Command {
	var o options
	c := &cobra.Command{
		Use: "gc", Short: "Show what nobody wants in OpenNebula, and give it back", Args: cobra.NoArgs,
		Long: `Compares the holds and reservations that this cluster has in OpenNebula with its
AddressPools and VirtualIPs, and shows what no object is for, and why it stays or goes.

Without --dry-run, it looks twice with the grace time between (and at least that of the
Lease), and gives back what was found both times. Where a cloud-controller-manager leads,
that does so by itself, every five minutes: then only --dry-run is possible.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.output.Check(term.Table, term.JSON, term.YAML); err != nil {
				return err
			}
			clients, err := connect()
			if err != nil {
				return err
			}
			return o.run(c.Context(), c.OutOrStdout(), term.NewProgress(c.ErrOrStderr()), clients)
		},
	}
	opennebula.AddFlag(c, &o.cloudConfig)
	c.Flags().BoolVar(&o.dryRun, "dry-run", false, "show it only")
	c.Flags().DurationVar(&o.grace, "grace", ipam.DefaultOrphanGrace, "for how long something has to be unwanted before it goes; the default is that of the cloud-controller-manager")
	c.Flags().StringVarP((*string)(&o.output), "output", "o", "", "json or yaml; default: text")
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

type options struct {
	cloudConfig string
	dryRun      bool
	grace       time.Duration
	output      term.Output
}

func (o options) run(ctx context.Context, w io.Writer, progress *term.Progress, c inventory.Clients) error {
	switch {
	case o.grace < 0:
		return fmt.Errorf("--grace %s: give a duration that is not negative", o.grace)
	case o.output != term.Table && !o.dryRun:
		return fmt.Errorf("-o %s goes with --dry-run", o.output)
	}
	cfg, front, err := opennebula.Open(o.cloudConfig)
	if err != nil {
		return err
	}
	id, err := identity.Of(ctx, c.Kube, cfg.IdentityFile)
	if err != nil {
		return err
	}
	look := func() (gc.Plan, error) {
		ctx, cancel := context.WithTimeout(ctx, lookTimeout)
		defer cancel()
		wanted, err := wanted(ctx, c.OneLB)
		if err != nil {
			return gc.Plan{}, err
		}
		return gc.New(ctx, front, cfg.Cluster, id, wanted, time.Now())
	}
	plan, err := look()
	if err != nil {
		return err
	}
	if err := o.print(w, plan); err != nil || o.dryRun || plan.Returns() == 0 {
		return err
	}
	lease, err := unled(ctx, c)
	if err != nil {
		return fmt.Errorf("nothing was changed: %w", err)
	}
	if err := wait(ctx, progress, max(o.grace, renewal(lease))); err != nil {
		return err
	}
	again, err := look()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	return again.Both(plan).Apply(ctx, front, gc.Steps{
		// One may come at any time, or have been there all the time, with another clock.
		Before: func(gc.Item) error { return stillUnled(ctx, c, lease) },
		Done:   func(i gc.Item) { _, _ = fmt.Fprintf(w, "Gave back the %s.\n", i) },
	})
}

// wanted reads what the API server knows. VirtualIPs come last: one that is made
// meanwhile is seen.
func wanted(ctx context.Context, c client.Interface) (gc.Wanted, error) {
	out := gc.Wanted{Addresses: map[string][]gc.Address{}}
	pools, err := c.AddressPools().List(ctx, metav1.ListOptions{})
	if err != nil {
		return out, fmt.Errorf("read AddressPools: %w", err)
	}
	for i := range pools.Items {
		out.Pools = append(out.Pools, pools.Items[i].Name)
	}
	vips, err := c.VirtualIPs().List(ctx, metav1.ListOptions{})
	if err != nil {
		return out, fmt.Errorf("read VirtualIPs: %w", err)
	}
	for i := range vips.Items {
		v := &vips.Items[i]
		a, err := netip.ParseAddr(v.Spec.Address)
		if err != nil {
			return out, fmt.Errorf("VirtualIP %s: spec.address %q is no address; nothing was changed", v.Name, v.Spec.Address)
		}
		out.Addresses[v.Spec.Pool] = append(out.Addresses[v.Spec.Pool], gc.Address{Addr: a, Fence: v.Status.Phase == v1alpha1.PhaseQuarantined})
	}
	return out, nil
}

// unled makes sure that nobody gives addresses meanwhile, by this machine's clock,
// and returns the Lease, or nil.
func unled(ctx context.Context, c inventory.Clients) (*coordinationv1.Lease, error) {
	inv, err := inventory.ReadManager(ctx, c.Kube)
	if err != nil {
		return nil, fmt.Errorf("it cannot be known whether a cloud-controller-manager leads: %w", err)
	}
	name, fresh := inv.Leads()
	switch {
	case fresh:
		return nil, led("on " + name)
	case !inv.Elects() && inv.Manager.Status.ReadyReplicas > 0:
		return nil, fmt.Errorf("%w without an election: end it first", ErrLed)
	}
	return inv.Leader, nil
}

// stillUnled: moreover, nobody has written the Lease since, whatever the clocks say.
func stillUnled(ctx context.Context, c inventory.Clients, before *coordinationv1.Lease) error {
	now, err := unled(ctx, c)
	if err == nil && renewed(before, now) {
		err = led("its Lease was renewed")
	}
	if err != nil {
		return fmt.Errorf("nothing more is changed: %w", err)
	}
	return nil
}

func led(how string) error {
	return fmt.Errorf("%w (%s) and gives such things back itself when they have been like that for %s, unless it runs with --orphans=report: end it, or that flag", ErrLed, how, ipam.DefaultOrphanGrace)
}

// renewed reports whether somebody has written the Lease since: only who leads does.
func renewed(before, now *coordinationv1.Lease) bool {
	if before == nil || now == nil {
		return now != nil // one that was removed is nobody's
	}
	return before.UID != now.UID || !before.Spec.RenewTime.Equal(now.Spec.RenewTime)
}

// renewal is the time in which who leads, by whatever clock, renews the Lease.
func renewal(l *coordinationv1.Lease) time.Duration {
	if l == nil || ptr.Deref(l.Spec.HolderIdentity, "") == "" {
		return 0
	}
	return time.Duration(ptr.Deref(l.Spec.LeaseDurationSeconds, 0)) * time.Second
}

// wait shows how long it still takes.
func wait(ctx context.Context, progress *term.Progress, d time.Duration) error {
	defer progress.Clear()
	end := time.Now().Add(d)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		left := time.Until(end)
		if left <= 0 {
			return nil
		}
		progress.Show("Looking again in %s, before anything is given back; interrupt to change nothing.", left.Round(time.Second))
		select {
		case <-tick.C:
		case <-time.After(left):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (o options) print(w io.Writer, plan gc.Plan) error {
	if plan.Items == nil {
		plan.Items = []gc.Item{}
	}
	if done, err := o.output.Encode(w, plan); done || err != nil {
		return err
	}
	p := term.For(w)
	for _, i := range plan.Items {
		verdict, colour := "stays", term.Grey
		if i.Verdict == gc.Return {
			verdict, colour = "goes back", term.Yellow
		}
		if _, err := fmt.Fprintf(w, "%s  %s\n    %s\n", p.Paint(colour, fmt.Sprintf("%-9s", verdict)), p.Paint(term.Bold, i.String()), i.Why); err != nil {
			return err
		}
	}
	text := "Nothing in OpenNebula is unwanted.\n"
	if n := plan.Returns(); n > 0 {
		text = fmt.Sprintf("%d to be given back.\n", n)
	} else if len(plan.Items) > 0 {
		text = "Nothing is to be given back.\n"
	}
	_, err := io.WriteString(w, text)
	return err
}
