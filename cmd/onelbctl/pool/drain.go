// Package pool makes AddressPools for the operator, after a look at what they need,
// and changes them, one field at a time, and says what follows. A change is a patch:
// it can be made again, and others' edits are kept.
package pool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/onelb/onelb/api/client"
	"github.com/onelb/onelb/loadbalancer/inventory"
)

// Command is `onelbctl pool`; connect is called when it runs.
func Command(connect func() (inventory.Clients, error)) *cobra.Command {
	c := &cobra.Command{Use: "pool", Short: "Make and change AddressPools"}
	c.AddCommand(createCommand(connect), drainCommand(connect))
	return c
}

func drainCommand(connect func() (inventory.Clients, error)) *cobra.Command {
	d := drain{every: 2 * time.Second}
	c := &cobra.Command{
		Use: "drain NAME", Short: "Stop a pool from giving addresses, and show who still has some", Args: cobra.ExactArgs(1),
		Long: `Sets spec.draining of an AddressPool. It gives no more addresses, Services keep those
that they have, and what nobody has goes back to OpenNebula. Shows which Services still
have addresses of it; with --wait, until none has.`,
		ValidArgsFunction: func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return complete(c.Context(), connect), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			clients, err := connect()
			if err != nil {
				return err
			}
			return d.run(c.Context(), c.OutOrStdout(), clients.OneLB, args[0])
		},
	}
	c.Flags().BoolVar(&d.undo, "undo", false, "let the pool give addresses again")
	c.Flags().DurationVar(&d.wait, "wait", 0, "wait until no Service has an address of it, at most so long")
	return c
}

type drain struct {
	undo  bool
	wait  time.Duration
	every time.Duration // between two looks
}

// callTimeout is for one call.
const callTimeout = 30 * time.Second

func (d drain) run(ctx context.Context, w io.Writer, c client.Interface, name string) error {
	if d.undo && d.wait > 0 {
		return errors.New("--undo and --wait do not go together")
	}
	if err := d.set(ctx, c, name); err != nil {
		return err
	}
	if d.undo {
		_, err := fmt.Fprintf(w, "AddressPool %s gives addresses again.\n", name)
		return err
	}
	if _, err := fmt.Fprintf(w, "AddressPool %s gives no more addresses (onelbctl pool drain %[1]s --undo takes that back).\n", name); err != nil {
		return err
	}
	return d.follow(ctx, w, c, name)
}

func (d drain) set(ctx context.Context, c client.Interface, name string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	body := fmt.Sprintf(`{"spec":{"draining":%t}}`, !d.undo)
	_, err := c.AddressPools().Patch(ctx, name, types.MergePatchType, []byte(body), metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("there is no AddressPool %s", name)
	}
	if err != nil {
		return fmt.Errorf("drain AddressPool %s: %w", name, err)
	}
	return nil
}

// follow shows who has addresses, and with wait each change of that.
func (d drain) follow(ctx context.Context, w io.Writer, c client.Interface, name string) error {
	deadline := time.Now().Add(d.wait)
	tick := time.NewTicker(d.every)
	defer tick.Stop()
	var shown []string
	for first := true; ; first = false {
		users, err := users(ctx, c, name)
		switch {
		case err != nil && (first || ctx.Err() != nil):
			return err
		case err == nil && (first || !slices.Equal(users, shown)):
			shown = users
			if err := show(w, users); err != nil {
				return err
			}
		}
		if d.wait == 0 || err == nil && len(users) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after %s, %d Services still have addresses of AddressPool %s", d.wait, len(shown), name)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func show(w io.Writer, users []string) error {
	if len(users) == 0 {
		_, err := fmt.Fprintln(w, "No Service has an address of it.")
		return err
	}
	if _, err := fmt.Fprintf(w, "%d Services still have addresses of it; annotation onelb.io/pool of another pool moves one:\n", len(users)); err != nil {
		return err
	}
	for _, u := range users {
		if _, err := fmt.Fprintln(w, "  "+u); err != nil {
			return err
		}
	}
	return nil
}

// users lists the Services with addresses of a pool, and whom addresses are kept for.
func users(ctx context.Context, c client.Interface, name string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	l, err := c.VirtualIPs().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("read VirtualIPs: %w", err)
	}
	var out []string
	for i := range l.Items {
		v := &l.Items[i]
		if v.Spec.Pool != name {
			continue
		}
		for _, s := range v.Spec.Services {
			out = append(out, fmt.Sprintf("%s/%s has %s", s.Namespace, s.Name, v.Spec.Address))
		}
		if r := v.Spec.Retain; r != nil && len(v.Spec.Services) == 0 {
			out = append(out, fmt.Sprintf("%s/%s will get %s again if it comes before %s", r.Namespace, r.Name, v.Spec.Address, r.Until.UTC().Format(time.RFC3339)))
		}
	}
	slices.Sort(out)
	return out, nil
}

// complete lists the names of pools.
func complete(ctx context.Context, connect func() (inventory.Clients, error)) []string {
	clients, err := connect()
	if err != nil {
		return nil
	}
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	l, err := clients.OneLB.AddressPools().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil
	}
	var out []string
	for i := range l.Items {
		out = append(out, l.Items[i].Name)
	}
	return out
}
