package migrate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/cmd/onelbctl/pool"
	"github.com/onelb/onelb/cmd/onelbctl/term"
	"github.com/onelb/onelb/loadbalancer/inventory"
	"github.com/onelb/onelb/loadbalancer/path"
)

var (
	// ErrBlocked: the plan has problems that a person has to solve.
	ErrBlocked = errors.New("not everything can be moved")
	// ErrWaits: the predecessor still writes Services, or onelb does not serve them yet.
	ErrWaits = errors.New("no Service was touched")
)

// callTimeout is for one call.
const callTimeout = 30 * time.Second

// runner applies a plan.
type runner struct {
	clients  inventory.Clients
	out      io.Writer
	progress *term.Progress
	// timeout is for one Service, or pool; every is between two looks.
	timeout, every time.Duration
	// only are the Services to move, by namespace/name; empty: all.
	only []string
}

func (r *runner) say(format string, args ...any) error {
	r.progress.Clear()
	_, err := fmt.Fprintf(r.out, format+"\n", args...)
	return err
}

// apply makes the pools, then moves one Service after the other. before is called
// when nothing was changed yet; nil: there is nothing to do.
func (r *runner) apply(ctx context.Context, p Plan, before func(ctx context.Context) error) error {
	defer r.progress.Clear()
	if len(p.Problems) > 0 {
		return fmt.Errorf("%w: %s", ErrBlocked, strings.Join(p.Problems, "; "))
	}
	if before != nil {
		if err := before(ctx); err != nil {
			return err
		}
	}
	if err := r.pools(ctx, p); err != nil {
		return err
	}
	open, blocked := p.Left()
	if open > 0 {
		if err := r.gate(ctx, p); err != nil {
			return err
		}
	}
	if err := r.services(ctx, p); err != nil {
		return err
	}
	if blocked > 0 {
		return fmt.Errorf("%w: %d Services stay where they are, for what is said at them", ErrBlocked, blocked)
	}
	if len(r.only) > 0 {
		return nil
	}
	return r.finish(ctx, p)
}

// pools makes those that are not there, and waits for those that Services need.
func (r *runner) pools(ctx context.Context, p Plan) error {
	for _, x := range p.Pools {
		if len(x.Problems) > 0 {
			continue
		}
		if !x.There {
			if err := r.makePool(ctx, x); err != nil {
				return err
			}
		}
		if err := pool.WaitReady(ctx, r.progress, r.clients.OneLB, x.Name, r.timeout, r.every); err != nil {
			return err
		}
	}
	return nil
}

func (r *runner) makePool(ctx context.Context, x Pool) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	p := &v1alpha1.AddressPool{ObjectMeta: metav1.ObjectMeta{Name: x.Name}, Spec: x.Spec}
	if x.AutoAssign {
		p.Annotations = map[string]string{Migrating: "true"}
	}
	_, err := r.clients.OneLB.AddressPools().Create(ctx, p, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil // an earlier run was interrupted
	}
	if err != nil {
		return fmt.Errorf("make AddressPool %s: %w", x.Name, err)
	}
	return r.say("AddressPool %s is made.", x.Name)
}

// gate: nobody else writes the Services, and onelb does.
func (r *runner) gate(ctx context.Context, p Plan) error {
	if len(p.Running) > 0 {
		return fmt.Errorf("%w: %s still writes them; end this, and apply again: %s", ErrWaits, p.From, strings.Join(p.Running, ", "))
	}
	inv, err := inventory.Read(ctx, r.clients)
	if err != nil {
		return err
	}
	if !inv.DefaultClass() {
		return fmt.Errorf("%w: the cloud-controller-manager runs with --default-class=false and leaves Services without loadBalancerClass alone; start it without that flag, and apply again", ErrWaits)
	}
	return nil
}

func (r *runner) services(ctx context.Context, p Plan) error {
	open, _ := p.Left()
	moved := 0
	for _, s := range p.Services {
		if len(r.only) > 0 && !slices.Contains(r.only, s.Key()) {
			continue
		}
		if x := p.pool(s.Pool); len(s.Problems) > 0 || x != nil && len(x.Problems) > 0 {
			continue
		}
		answers := len(p.Answering) == 0
		if s.Done && !answers {
			continue
		}
		if !s.Done {
			r.progress.Show("Service %d of %d: %s", moved+1, open, s.Key())
			if err := r.annotate(ctx, s); err != nil {
				return err
			}
		}
		if err := r.published(ctx, s, answers); err != nil {
			return err
		}
		if s.Done {
			continue
		}
		moved++
		text := "gets its address from onelb"
		if len(s.Addresses) > 0 {
			text = "keeps " + texts(s.Addresses)
		}
		if err := r.say("Service %s %s (%d of %d).", s.Key(), text, moved, open); err != nil {
			return err
		}
	}
	return nil
}

// annotate has the Service ask for what it has, if it is still as it was planned.
func (r *runner) annotate(ctx context.Context, s Service) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	services := r.clients.Kube.CoreV1().Services(s.Namespace)
	svc, err := services.Get(ctx, s.Name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("Service %s: %w", s.Key(), err)
	}
	for _, a := range s.Addresses {
		if svc.UID != s.UID || !slices.Contains(shown(svc), a) {
			return fmt.Errorf("Service %s has changed since the plan was made (it shows %s): apply again", s.Key(), texts(shown(svc)))
		}
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": s.UID, "annotations": s.Annotations}})
	if err != nil {
		return err
	}
	if _, err := services.Patch(ctx, s.Name, types.MergePatchType, body, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("annotate Service %s: %w", s.Key(), err)
	}
	return nil
}

// published waits until onelb shows what the Service keeps and, with answers, until
// somebody answers for it.
func (r *runner) published(ctx context.Context, s Service, answers bool) error {
	if len(s.Addresses) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	tick := time.NewTicker(r.every)
	defer tick.Stop()
	var why error
	for {
		err := r.look(ctx, s, answers)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || why == nil { // one that says "deadline exceeded" tells nothing
			why = err
			r.progress.Show("Service %s: %v", s.Key(), err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("Service %s keeps its address, but is not published by onelb after %s: %w%s", s.Key(), r.timeout, errors.Join(why), r.reasons(s))
		}
	}
}

func (r *runner) look(ctx context.Context, s Service, answers bool) error {
	svc, err := r.clients.Kube.CoreV1().Services(s.Namespace).Get(ctx, s.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, a := range s.Addresses {
		if !slices.Contains(shown(svc), a) {
			return fmt.Errorf("its status does not show %s", a)
		}
		if err := r.lookAt(ctx, svc, a, answers); err != nil {
			return err
		}
	}
	return nil
}

func (r *runner) lookAt(ctx context.Context, svc *corev1.Service, a netip.Addr, answers bool) error {
	v, err := r.clients.OneLB.VirtualIPs().Get(ctx, v1alpha1.VirtualIPName(a), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("%s has no VirtualIP", a)
	}
	if err != nil {
		return err
	}
	switch {
	case !slices.ContainsFunc(v.Spec.Services, func(x v1alpha1.ServiceReference) bool { return x.UID == svc.UID }):
		return fmt.Errorf("VirtualIP %s is not the Service's", a)
	case v.Spec.Role == v1alpha1.RoleRouter && v.Status.Router == nil:
		return fmt.Errorf("the router has not acknowledged %s", a)
	case !answers || svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal: // nobody may, without a local pod
		return nil
	case v.Spec.Role == v1alpha1.RoleL2 && v.Status.Holder == nil:
		return fmt.Errorf("no node answers for %s yet", a)
	case v.Spec.Role == v1alpha1.RoleBGP && len(v.Status.Announcers) == 0:
		return fmt.Errorf("no node announces %s yet", a)
	}
	return nil
}

// reasons is what the plan of the cloud-controller-manager says of a Service.
func (r *runner) reasons(s Service) string {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	inv, err := inventory.Read(ctx, r.clients)
	if err != nil {
		return ""
	}
	svc := inv.Service(s.Namespace, s.Name)
	if svc == nil {
		return ""
	}
	var out strings.Builder
	for _, reason := range path.Pending(inv, svc) {
		out.WriteString("; " + reason.Why)
	}
	return out.String() + "; onelbctl explain service " + s.Key() + " shows its events"
}

// open lets a pool that was made here give addresses to everybody, once.
func (r *runner) open(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	pools := r.clients.OneLB.AddressPools()
	p, err := pools.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read AddressPool %s: %w", name, err)
	}
	if !migrating(p) {
		return nil // somebody has made it since the plan
	}
	body, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": p.UID, "annotations": map[string]any{Migrating: nil}},
		"spec":     map[string]any{"autoAssign": true},
	})
	if err != nil {
		return err
	}
	if _, err := pools.Patch(ctx, name, types.MergePatchType, body, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("set autoAssign of AddressPool %s: %w", name, err)
	}
	return nil
}

// finish lets the pools give addresses to everybody, and says what is left for a person.
func (r *runner) finish(ctx context.Context, p Plan) error {
	for _, x := range p.Pools {
		if len(x.Problems) > 0 || !x.AutoAssign {
			continue
		}
		if err := r.open(ctx, x.Name); err != nil {
			return err
		}
	}
	if len(p.Answering) > 0 {
		return r.say("All Services are onelb's. Others still answer for their addresses, and onelb's nodes take them over within seconds of their end: %s. Then apply again, to see that somebody answers for each.", strings.Join(p.Answering, ", "))
	}
	if err := r.say("All Services are onelb's, and somebody answers for each address. What is left:"); err != nil {
		return err
	}
	for _, text := range p.Afterwards {
		if err := r.say("  %s", text); err != nil {
			return err
		}
	}
	return nil
}
