package pool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/onelb/onelb/api/client"
	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/cmd/onelbctl/doctor"
	"github.com/onelb/onelb/cmd/onelbctl/opennebula"
	"github.com/onelb/onelb/cmd/onelbctl/term"
	"github.com/onelb/onelb/loadbalancer/inventory"
)

// errUnfit: the pool would not work.
var errUnfit = errors.New("the pool would not work as it is: correct what is said above")

func createCommand(connect func() (inventory.Clients, error)) *cobra.Command {
	o := create{every: 500 * time.Millisecond}
	c := &cobra.Command{
		Use: "create NAME", Short: "Print, or make, an AddressPool of an OpenNebula network", Args: cobra.ExactArgs(1),
		Long: `Checks that OpenNebula, the cluster and the cloud-config have what an AddressPool needs,
and prints it as YAML; with --apply makes it, and waits until it is ready. What would be
wrong is told on standard error. An error keeps the pool from being made.`,
		Example: `  onelbctl pool create main --network private --cloud-config cloud-config.yaml
  onelbctl pool create edge --network public --exposure Router --router edge --cloud-config cloud-config.yaml --apply`,
		RunE: func(c *cobra.Command, args []string) error {
			clients, err := connect()
			if err != nil {
				return err
			}
			return o.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr(), clients, args[0])
		},
	}
	opennebula.AddFlag(c, &o.cloudConfig)
	f := c.Flags()
	f.StringVar(&o.network, "network", "", "name of the virtual network")
	f.StringVar(&o.owner, "owner", "", "OpenNebula user who owns the network, if several have that name")
	f.Int32Var(&o.id, "network-id", -1, "ID of the virtual network, instead of --network")
	f.StringVar(&o.exposure, "exposure", "L2", "L2, Router or BGP")
	f.StringVar(&o.router, "router", "", "router of the cloud-config, with --exposure Router")
	f.StringVar(&o.forward, "forward", "", "NodePort, VIP, Pod or Route, with --exposure Router")
	f.StringVar(&o.inner, "inner-pool", "", "AddressPool of the inner addresses, with --forward VIP")
	f.StringArrayVar(&o.ranges, "range", nil, "addresses FIRST-LAST, or one address, that the pool is limited to; may be repeated")
	f.BoolVar(&o.manual, "no-auto-assign", false, "give addresses to Services only that name the pool or an address of it")
	f.Int32Var(&o.priority, "priority", 0, "order among pools: the smallest number first")
	f.StringVar(&o.reservation, "reservation", "", "child or none")
	f.BoolVar(&o.apply, "apply", false, "make it")
	f.DurationVar(&o.wait, "wait", time.Minute, "with --apply, wait until it is ready, at most so long; 0: do not")
	for flag, values := range map[string][]string{"exposure": {"L2", "Router", "BGP"}, "forward": {"NodePort", "VIP", "Pod", "Route"}, "reservation": {"child", "none"}} {
		_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	return c
}

type create struct {
	cloudConfig                      string
	network, owner                   string
	id                               int32
	exposure, router, forward, inner string
	ranges                           []string
	manual, apply                    bool
	priority                         int32
	reservation                      string
	wait, every                      time.Duration
}

// pool makes the object of the flags. What the API server checks is left to it.
func (o create) pool(name string) (*v1alpha1.AddressPool, error) {
	p := &v1alpha1.AddressPool{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "AddressPool"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.AddressPoolSpec{
			Network:  v1alpha1.NetworkReference{Name: o.network, Owner: o.owner},
			Exposure: v1alpha1.Exposure(o.exposure), Priority: o.priority, Reservation: v1alpha1.Reservation(o.reservation),
		},
	}
	if (o.network == "") == (o.id < 0) {
		return nil, errors.New("give either --network or --network-id")
	}
	if o.id >= 0 {
		p.Spec.Network.ID = &o.id
	}
	if o.manual {
		p.Spec.AutoAssign = ptr.To(false)
	}
	if p.Spec.Exposure == v1alpha1.ExposureRouter && o.router == "" {
		return nil, errors.New("--exposure Router needs --router, the name of a router in the cloud-config")
	}
	if o.router+o.forward+o.inner != "" {
		p.Spec.Router = &v1alpha1.RouterSpec{Name: o.router, Forward: v1alpha1.Forward(o.forward), InnerPool: o.inner}
	}
	for _, text := range o.ranges {
		r, err := parseRange(text)
		if err != nil {
			return nil, err
		}
		p.Spec.Ranges = append(p.Spec.Ranges, r)
	}
	return p, nil
}

func parseRange(text string) (v1alpha1.AddressRange, error) {
	first, last, two := strings.Cut(text, "-")
	if !two {
		last = first
	}
	a, err1 := netip.ParseAddr(strings.TrimSpace(first))
	b, err2 := netip.ParseAddr(strings.TrimSpace(last))
	if err1 != nil || err2 != nil || a.BitLen() != b.BitLen() || b.Less(a) {
		return v1alpha1.AddressRange{}, fmt.Errorf("--range %q: want FIRST-LAST, two addresses of one family, the smaller one first", text)
	}
	return v1alpha1.AddressRange{Start: a.String(), End: b.String()}, nil
}

func (o create) run(ctx context.Context, w, stderr io.Writer, c inventory.Clients, name string) error {
	p, err := o.pool(name)
	if err != nil {
		return err
	}
	cfg, front, err := opennebula.Open(o.cloudConfig)
	if err != nil {
		return err
	}
	inv, err := inventory.Read(ctx, c)
	if err != nil {
		return err
	}
	if inv.Pool(name) != nil {
		return fmt.Errorf("there is an AddressPool %s already: choose another name, or edit that one", name)
	}
	findings := doctor.NewPool{Pool: p, Inventory: inv, Config: cfg, OpenNebula: front}.Examine(ctx)
	if len(findings) > 0 {
		if err := doctor.Print(stderr, term.Table, findings); err != nil {
			return err
		}
	}
	// The API server has the rules about fields, and fills in defaults.
	if err := submit(ctx, c.OneLB, p, metav1.DryRunAll); err != nil {
		return err
	}
	text, err := Manifest(p)
	if err != nil {
		return err
	}
	if _, err := w.Write(text); err != nil {
		return err
	}
	for _, f := range findings {
		if f.Severity == doctor.Error {
			return errUnfit
		}
	}
	if !o.apply {
		return nil
	}
	if err := submit(ctx, c.OneLB, p); err != nil {
		return err
	}
	if o.wait == 0 {
		_, err := fmt.Fprintf(stderr, "AddressPool %s is made.\n", name)
		return err
	}
	if err := WaitReady(ctx, term.NewProgress(stderr), c.OneLB, name, o.wait, o.every); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stderr, "AddressPool %s is made and ready.\n", name)
	return err
}

// submit creates the pool, or with metav1.DryRunAll has the API server check it.
func submit(ctx context.Context, c client.Interface, p *v1alpha1.AddressPool, dryRun ...string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := c.AddressPools().Create(ctx, p, metav1.CreateOptions{DryRun: dryRun}); err != nil {
		return fmt.Errorf("make AddressPool %s: %w", p.Name, err)
	}
	return nil
}

// Manifest is a pool as a person would write it.
func Manifest(p *v1alpha1.AddressPool) ([]byte, error) {
	return yaml.Marshal(struct {
		APIVersion string                   `json:"apiVersion"`
		Kind       string                   `json:"kind"`
		Metadata   map[string]string        `json:"metadata"`
		Spec       v1alpha1.AddressPoolSpec `json:"spec"`
	}{v1alpha1.GroupVersion.String(), "AddressPool", map[string]string{"name": p.Name}, p.Spec})
}

// WaitReady waits until the pool can give addresses. Its error says why it cannot.
func WaitReady(ctx context.Context, progress *term.Progress, c client.Interface, name string, limit, every time.Duration) error {
	defer progress.Clear()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	why := "nothing is known of it"
	for {
		p, err := c.AddressPools().Get(ctx, name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return fmt.Errorf("there is no AddressPool %s any more", name)
		case err == nil:
			ready, reason, message := inventory.Ready(p)
			if ready && p.Status.ObservedGeneration == p.Generation {
				return nil
			}
			why = strings.TrimPrefix(reason+": "+message, ": ")
		case ctx.Err() == nil:
			why = err.Error()
		}
		progress.Show("Waiting for AddressPool %s: %s", name, why)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("AddressPool %s is not ready after %s: %s", name, limit, why)
		}
	}
}
