// Package adopt gives the reservations of a cluster that is gone for good to the
// one that was built in its place: it replaces the identity with which they are
// signed. The addresses in them, and for whom they are, stay as they are.
//
// Guarantees: only reservations of our OpenNebula user that are signed with the
// name of this cluster are touched, one call each, and none while the other
// cluster is seen alive. Applying a plan twice does nothing the second time.
//
// Failure: what was adopted before an error stays adopted; make a plan again.
package adopt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/provider/one"
)

// Silence is for how long a cluster must not have shown itself in OpenNebula
// before it counts as gone: three of the intervals in which a living one does.
const Silence = 3 * ipam.DefaultInterval

var (
	// ErrAlive: the other cluster has shown itself a short while ago.
	ErrAlive = errors.New("the other cluster is alive")
	// ErrChanged: a reservation is not what it was when the plan was made.
	ErrChanged = errors.New("reservation has changed")
)

// Networks is what is needed of OpenNebula.
type Networks interface {
	// OwnNetworks lists what belongs to our user.
	OwnNetworks(ctx context.Context) ([]one.Listed, error)
	// Get reads one network.
	Get(ctx context.Context, id ipam.NetworkID) (ipam.Network, error)
	// Annotate sets attributes of a network and leaves the others.
	Annotate(ctx context.Context, id ipam.NetworkID, attributes map[string]string) error
}

// Step is one reservation that is to be adopted.
type Step struct {
	ID   ipam.NetworkID
	Name string
	Pool string
	// From is the identity that it is signed with.
	From string
	// Alive is when that cluster last showed itself; zero: never.
	Alive time.Time
	// Held is the number of addresses on hold, Owned of those with owners on record.
	Held, Owned int
}

// Plan is what is to be done.
type Plan struct {
	Cluster, Identity string
	Steps             []Step // sorted by ID
	// Ours is how many reservations are this cluster's already.
	Ours int
}

// New makes a plan for the cluster of a name with an identity. With ErrAlive the
// plan is returned too, to be shown.
func New(ctx context.Context, n Networks, cluster, identity string) (Plan, error) {
	plan := Plan{Cluster: cluster, Identity: identity}
	if cluster == "" || identity == "" {
		return plan, errors.New("adopt: the cluster needs a name and an identity")
	}
	all, err := n.OwnNetworks(ctx)
	if err != nil {
		return plan, err
	}
	var errs []error
	for _, l := range all {
		uid := l.Attributes[ipam.AttributeClusterUID]
		switch {
		case l.Parent == ipam.NoNetwork || l.Attributes[ipam.AttributeCluster] != cluster || uid == "":
		case uid == identity:
			plan.Ours++
		default:
			step, err := look(ctx, n, l.ID)
			if err != nil {
				return plan, err
			}
			plan.Steps = append(plan.Steps, step)
			errs = append(errs, step.lives(time.Now()))
		}
	}
	return plan, errors.Join(errs...)
}

// look reads a reservation as it is now.
func look(ctx context.Context, n Networks, id ipam.NetworkID) (Step, error) {
	net, err := n.Get(ctx, id)
	if err != nil {
		return Step{}, fmt.Errorf("reservation %d: %w", id, err)
	}
	s := Step{ID: id, Name: net.Name, Pool: net.Attributes[ipam.AttributePool], From: net.Attributes[ipam.AttributeClusterUID], Alive: ipam.AliveAt(net)}
	for _, r := range net.Ranges {
		titles := ipam.ParseTitles(r.Attributes[ipam.AttributeOwners])
		for _, l := range r.Leases {
			if !l.Held {
				continue
			}
			s.Held++
			if len(titles[l.IP4].Owners)+len(titles[l.IP6].Owners) > 0 {
				s.Owned++
			}
		}
	}
	return s, nil
}

func (s Step) lives(now time.Time) error {
	if s.Alive.IsZero() || now.Sub(s.Alive) >= Silence {
		return nil
	}
	return fmt.Errorf("reservation %q (%d): the cluster with identity %s was seen at %s, less than %s ago (attribute %s); stop its cloud-controller-manager, and wait: %w",
		s.Name, s.ID, s.From, s.Alive.Format(time.RFC3339), Silence, ipam.AttributeAlive, ErrAlive)
}

// Apply signs the reservations of the plan with the new identity. Each is looked
// at once more before: it must be as it was, and its cluster silent.
func (p Plan) Apply(ctx context.Context, n Networks) error {
	for _, s := range p.Steps {
		now, err := look(ctx, n, s.ID)
		if err != nil {
			return err
		}
		if now.From == p.Identity {
			continue
		}
		if now.From != s.From || now.Name != s.Name || now.Pool != s.Pool {
			return fmt.Errorf("reservation %q (%d) is signed with %s for pool %q now: %w", now.Name, s.ID, now.From, now.Pool, ErrChanged)
		}
		if err := now.lives(time.Now()); err != nil {
			return err
		}
		if err := n.Annotate(ctx, s.ID, map[string]string{ipam.AttributeClusterUID: p.Identity}); err != nil {
			return fmt.Errorf("adopt reservation %q (%d): %w", s.Name, s.ID, err)
		}
	}
	return nil
}

// Print writes the plan for people.
func (p Plan) Print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Cluster %s has identity %s; %d of its reservations are signed with it.\n", p.Cluster, p.Identity, p.Ours)
	if len(p.Steps) == 0 {
		fmt.Fprintf(&b, "No reservation of that name is signed with another one: nothing to adopt.\n")
		_, err := io.WriteString(w, b.String())
		return err
	}
	fmt.Fprintf(&b, "To be adopted:\n")
	t := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "ID\tRESERVATION\tPOOL\tSIGNED WITH\tLAST SEEN\tON HOLD\tWITH OWNER")
	steps := slices.Clone(p.Steps)
	slices.SortFunc(steps, func(a, b Step) int { return int(a.ID - b.ID) })
	for _, s := range steps {
		alive := "never"
		if !s.Alive.IsZero() {
			alive = s.Alive.Format(time.RFC3339)
		}
		_, _ = fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%d\t%d\n", s.ID, s.Name, s.Pool, s.From, alive, s.Held, s.Owned)
	}
	_ = t.Flush() // into memory
	_, err := io.WriteString(w, b.String())
	return err
}
