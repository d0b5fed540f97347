package loadbalancer

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/loadbalancer/annotation"
)

// Ours reports whether the Service's class says that it is ours to serve.
// defaultClass: Services without a class are.
func Ours(svc *corev1.Service, defaultClass bool) bool {
	if class := svc.Spec.LoadBalancerClass; class != nil {
		return *class == Class
	}
	return defaultClass
}

// Inquiry asks what a Service would get, from what the API server shows.
type Inquiry struct {
	Service *corev1.Service
	// NamespaceLabels are those of the Service's namespace; nil: unknown.
	NamespaceLabels labels.Set
	Pools           []v1alpha1.AddressPool
	VirtualIPs      []v1alpha1.VirtualIP
}

// Verdict answers an Inquiry.
type Verdict struct {
	// Choices are the families that the Service has to have.
	Choices []Choice
	// Err says why the Service cannot have all of them; nil if it can.
	Err error
}

// Choice says where one address may come from.
type Choice struct {
	Family ipam.Family
	// Address is the one that the Service asks for; invalid: any.
	Address netip.Addr
	// Pools are the candidates, in the order in which they are tried.
	Pools []Candidate
}

// Candidate is a pool that may give an address, unless Err says why it does not.
type Candidate struct {
	Pool string
	// Current: the Service has its address of this pool.
	Current bool
	Counts  ipam.Counts
	Err     error
}

// Judge plans for a Service as the Controller does, by the same code, with the
// pools' status as it is published. What only the Controller knows (former
// addresses that OpenNebula remembers, pools that it has not published yet) is
// not in it.
func Judge(q Inquiry) Verdict {
	views := make([]*poolView, 0, len(q.Pools))
	counted := map[string]ipam.PoolStatus{}
	for i := range q.Pools {
		v, st := publishedView(&q.Pools[i])
		views, counted[v.Name] = append(views, v), st
	}
	slices.SortFunc(views, func(a, b *poolView) int { return compareStrings(a.Name, b.Name) })
	current := q.current()
	wants, err := planWants(q.Service, q.NamespaceLabels, views, current)
	if err != nil {
		return Verdict{Err: err}
	}
	var out Verdict
	var errs []error
	for _, w := range wants {
		c := Choice{Family: w.Family, Address: w.Address}
		var problems []error
		for _, p := range w.Pools {
			k := Candidate{Pool: p.Name, Current: p.Name == current[w.Family], Counts: counted[p.Name].Counts(w.Family)}
			k.Err = q.problem(w, p, views, k)
			problems = append(problems, k.Err)
			c.Pools = append(c.Pools, k)
		}
		if !slices.Contains(problems, nil) {
			errs = append(errs, problems...)
		}
		out.Choices = append(out.Choices, c)
	}
	out.Err = errors.Join(errs...)
	return out
}

// problem says why a pool would not give, or keep, an address.
func (q Inquiry) problem(w want, p *poolView, views []*poolView, k Candidate) error {
	if inner := p.innerOf(views); inner != nil || p.Exposure == v1alpha1.ExposureRouter && p.Router.Forward == v1alpha1.ForwardVIP {
		if _, err := checkInner(p, inner, inner != nil); err != nil {
			return err
		}
	}
	if k.Current {
		return checkServable(q.Service, p)
	}
	if err := p.refusal(q.Service); err != nil {
		return err
	}
	if i := q.taken(w.Address); i >= 0 {
		if v := q.VirtualIPs[i]; v.Spec.Share == "" || v.Spec.Share != w.Share {
			return fmt.Errorf("%s: %w by %s; choose another one, or give both Services annotation %s with the same value",
				w.Address, ipam.ErrTaken, names(v.Spec.Services), annotation.Share.Name)
		}
	}
	joins := slices.ContainsFunc(q.VirtualIPs, func(v v1alpha1.VirtualIP) bool {
		return w.Share != "" && v.Spec.Share == w.Share && v.Spec.Pool == p.Name
	})
	if k.Counts.Total > 0 && k.Counts.Free <= 0 && !w.Address.IsValid() && !joins {
		return fmt.Errorf("AddressPool %s: %w: all %d %s addresses are in use; release some, widen the ranges of the pool or add an address range to the network",
			p.Name, ipam.ErrNoSpace, k.Counts.Total, w.Family)
	}
	return nil
}

// taken is the place of the VirtualIP of an address that others have, or -1.
func (q Inquiry) taken(a netip.Addr) int {
	return slices.IndexFunc(q.VirtualIPs, func(v v1alpha1.VirtualIP) bool {
		return a.IsValid() && v.Spec.Address == a.String() && len(v.Spec.Services) > 0 && !q.owns(&v)
	})
}

func (q Inquiry) owns(v *v1alpha1.VirtualIP) bool {
	if r := v.Spec.Retain; r != nil && r.Namespace == q.Service.Namespace && r.Name == q.Service.Name {
		return true
	}
	return slices.ContainsFunc(v.Spec.Services, func(r v1alpha1.ServiceReference) bool { return r.UID == q.Service.UID })
}

// current maps each family to the pool of the published address that the
// Service has or that is retained for it, as currentPools does for records.
func (q Inquiry) current() map[ipam.Family]string {
	var records []ipam.Record
	for i := range q.VirtualIPs {
		v := &q.VirtualIPs[i]
		a, err := netip.ParseAddr(v.Spec.Address)
		if err != nil || !q.owns(v) || v.Spec.Role == v1alpha1.RoleInner {
			continue
		}
		records = append(records, ipam.Record{Address: a, Pool: v.Spec.Pool})
	}
	return currentPools(records)
}

// publishedView is the view of a pool whose status the API server shows.
func publishedView(pool *v1alpha1.AddressPool) (*poolView, ipam.PoolStatus) {
	v, err := viewOf(pool)
	v.Problem = err
	v.Appliance = v.Router != nil && apimeta.IsStatusConditionTrue(pool.Status.Conditions, v1alpha1.PoolStockAppliance)
	ready := apimeta.FindStatusCondition(pool.Status.Conditions, v1alpha1.PoolReady)
	if ready == nil {
		return v.with(ipam.PoolStatus{}, false), ipam.PoolStatus{}
	}
	if ready.Reason == ipam.ReasonInvalid && v.Problem == nil {
		v.Problem = errors.New(ready.Message) // as poolStatus publishes it
	}
	st := ipam.PoolStatus{
		Name: pool.Name, Ready: ready.Status == metav1.ConditionTrue, Reason: ready.Reason, Message: ready.Message,
		IPv4: publishedCounts(pool.Status.IPv4), IPv6: publishedCounts(pool.Status.IPv6),
	}
	return v.with(st, true), st
}

func publishedCounts(c *v1alpha1.AddressCounts) ipam.Counts {
	if c == nil {
		return ipam.Counts{}
	}
	return ipam.Counts{
		Total: int(c.Total), Reserved: int(c.Reserved), Used: int(c.Used), Free: int(c.Free), Held: int(c.Held), Ahead: int(c.Ahead), SetAside: int(c.SetAside),
	}
}
