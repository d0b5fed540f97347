package loadbalancer

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/loadbalancer/annotation"
	"github.com/onelb/onelb/loadbalancer/appliance"
	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/virtualip"
)

// poolView is what planning needs to know of a pool.
type poolView struct {
	Name       string
	Exposure   v1alpha1.Exposure
	AutoAssign bool
	Priority   int32
	Router     *v1alpha1.RouterSpec
	Interfaces []string
	// NodeSelector and NodePreferences as in the VirtualIP's spec.
	NodeSelector    string
	NodePreferences []v1alpha1.NodeWeight
	// Appliance: its router is a stock appliance.
	Appliance bool
	// Guarded: the pool has guard: alias.
	Guarded bool
	// ShareAcross lets Services of different namespaces share an address.
	ShareAcross bool
	selectors
	// Families that the pool's network has addresses of; nil while unknown.
	Families []ipam.Family
	// Barred says why the Service at hand may get no address of the pool; it
	// keeps one that it has. Set by planWants.
	Barred error
	// Problem says why the pool cannot give addresses; nil if it can.
	Problem error
}

// want is one address that a Service has to have.
type want struct {
	Role   v1alpha1.Role
	Family ipam.Family
	// Address is the one that was asked for; invalid: any.
	Address netip.Addr
	// Prefer is one that the Service shows, if it has none; invalid: none.
	Prefer netip.Addr
	// Share is the key with which the address is shared; empty: it is not.
	Share string
	// Retain is for how long the address is kept when the Service has gone.
	Retain time.Duration
	// AtOnce: an address that would have to be waited for is none.
	AtOnce bool
	// Pools are the ones to try, in this order. The Service keeps an address
	// that is from any of them if Keep says so.
	Pools []*poolView
}

var (
	// errRefused marks what stays wrong until somebody edits the Service or a pool.
	errRefused = errors.New("refused")
	// errRefusedNow marks a refusal that the edit of another object may lift.
	// Nobody calls us then, so such a Service is tried again soon.
	errRefusedNow = fmt.Errorf("%w", errRefused)
	errNoPool     = errors.New("no AddressPool")
)

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %w", errRefused, fmt.Errorf(format, args...))
}

// planWants says which addresses a Service has to have. current are the pools
// of the addresses that it has: they come first, so that a pool that is added
// or that changes its priority moves nobody.
//
// ns are the labels of the Service's namespace.
func planWants(svc *corev1.Service, ns labels.Set, pools []*poolView, current map[ipam.Family]string) ([]want, error) {
	req, err := annotation.Parse(svc.Annotations, svc.Spec.LoadBalancerIP)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRefused, err)
	}
	families, err := serviceFamilies(svc)
	if err != nil {
		return nil, err
	}
	for _, a := range req.Addresses {
		if !slices.Contains(families, familyOf(a)) {
			return nil, refuse("address %s was asked for, but spec.ipFamilies has no %s", a, familyOf(a))
		}
	}
	for _, p := range pools {
		p.Barred = p.admit(svc, ns)
	}
	wants := make([]want, 0, len(families))
	var missing []error
	for _, f := range families {
		w := want{Family: f, Address: addressOf(req.Addresses, f), Share: req.Share, Retain: req.Retain}
		w.Pools, err = candidates(req.Pool, pools, f, current[f], w.Address.IsValid())
		if err != nil {
			missing = append(missing, err)
			continue
		}
		wants = append(wants, w)
	}
	if len(missing) > 0 && (len(wants) == 0 || !mayLackFamily(svc)) {
		return nil, errors.Join(missing...)
	}
	return wants, nil
}

func mayLackFamily(svc *corev1.Service) bool {
	return svc.Spec.IPFamilyPolicy != nil && *svc.Spec.IPFamilyPolicy == corev1.IPFamilyPolicyPreferDualStack
}

func serviceFamilies(svc *corev1.Service) ([]ipam.Family, error) {
	if len(svc.Spec.IPFamilies) == 0 {
		return []ipam.Family{ipam.IPv4}, nil // only an API server without dual-stack leaves it empty
	}
	out := make([]ipam.Family, 0, 2)
	for _, f := range svc.Spec.IPFamilies {
		switch f {
		case corev1.IPv4Protocol:
			out = append(out, ipam.IPv4)
		case corev1.IPv6Protocol:
			out = append(out, ipam.IPv6)
		case corev1.IPFamilyUnknown:
			return nil, refuse("spec.ipFamilies has an unknown family")
		default:
			return nil, refuse("spec.ipFamilies has %q, which onelb does not know", f)
		}
	}
	return out, nil
}

// candidates lists the pools that may give an address of a family, best first.
// A pool with a problem is left out, unless it is the only one that fits: then
// its problem is the error. So is one that is barred to the Service. None of
// that counts for the pool that the Service has its address from: it keeps it.
func candidates(named string, pools []*poolView, f ipam.Family, current string, wanted bool) ([]*poolView, error) {
	all := pools
	if named != "" {
		i := slices.IndexFunc(pools, func(p *poolView) bool { return p.Name == named })
		if i < 0 {
			return nil, fmt.Errorf("%w is called %q, as annotation %s says: create it, or name one of: %s",
				errNoPool, named, annotation.Pool.Name, poolNames(pools))
		}
		pools = []*poolView{pools[i]}
		if p := pools[0]; p.Barred != nil && named != current {
			return nil, fmt.Errorf("%w; name another pool with annotation %s, or ask the pool's owner", p.Barred, annotation.Pool.Name)
		}
	} else {
		pools = slices.DeleteFunc(slices.Clone(pools), func(p *poolView) bool {
			return !p.AutoAssign && p.Name != current && !wanted
		})
	}
	if len(pools) == 0 {
		return nil, fmt.Errorf("%w has autoAssign: create one, or name one with annotation %s", errNoPool, annotation.Pool.Name)
	}
	sorted := slices.Clone(pools)
	slices.SortStableFunc(sorted, func(a, b *poolView) int {
		return cmp.Or(
			compareBool(b.Name == current, a.Name == current),
			cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Name, b.Name))
	})
	var usable []*poolView
	var problems []error
	for _, p := range sorted {
		switch {
		case p.Barred != nil && p.Name != current:
			problems = append(problems, p.Barred)
		case p.Problem != nil && p.Name != current:
			problems = append(problems, fmt.Errorf("AddressPool %s: %w", p.Name, p.Problem))
		case p.Appliance && f != ipam.IPv4 && p.Name != current:
			problems = append(problems, fmt.Errorf("%w: AddressPool %s: %w", errRefusedNow, p.Name, appliance.ErrFamily))
		case p.lacks(f) && p.Name != current:
			problems = append(problems, fmt.Errorf("AddressPool %s has no %s addresses", p.Name, f))
		case p.innerOf(all).lacks(f) && p.Name != current:
			problems = append(problems, fmt.Errorf("AddressPool %s has innerPool %s, which has no %s addresses", p.Name, p.Router.InnerPool, f))
		default:
			usable = append(usable, p)
		}
	}
	if len(usable) == 0 && len(problems) == 1 && errors.Is(problems[0], errRefused) {
		return nil, problems[0]
	}
	if len(usable) == 0 {
		return nil, fmt.Errorf("no pool can give an %s address: %w", f, errors.Join(problems...))
	}
	return usable, nil
}

// lacks: the pool, which may be nil, is known to have no addresses of the family.
func (p *poolView) lacks(f ipam.Family) bool {
	return p != nil && p.Families != nil && !slices.Contains(p.Families, f)
}

// innerOf finds the pool of the addresses behind a router with forward VIP; nil:
// none is needed, or there is none of that name.
func (p *poolView) innerOf(pools []*poolView) *poolView {
	if p.Exposure != v1alpha1.ExposureRouter || p.Router.Forward != v1alpha1.ForwardVIP {
		return nil
	}
	if i := slices.IndexFunc(pools, func(o *poolView) bool { return o.Name == p.Router.InnerPool }); i >= 0 {
		return pools[i]
	}
	return nil
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func poolNames(pools []*poolView) string {
	if len(pools) == 0 {
		return "(there is none)"
	}
	names := make([]string, len(pools))
	for i, p := range pools {
		names[i] = p.Name
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func familyOf(a netip.Addr) ipam.Family {
	if a.Is4() {
		return ipam.IPv4
	}
	return ipam.IPv6
}

func addressOf(addrs []netip.Addr, f ipam.Family) netip.Addr {
	for _, a := range addrs {
		if familyOf(a) == f {
			return a
		}
	}
	return netip.Addr{}
}

// detailFor is the spec of a VirtualIP from a pool for a Service.
func detailFor(svc *corev1.Service, w want, p *poolView, inner bool) virtualip.Detail {
	d := virtualip.Detail{
		Role: v1alpha1.RoleL2, TrafficPolicy: v1alpha1.TrafficPolicyCluster, Interfaces: p.Interfaces,
		NodeSelector: p.NodeSelector, NodePreferences: p.NodePreferences, Guarded: p.Guarded,
		Share: w.Share, Ports: sharedPorts(svc, w.Share), Retain: w.Retain,
	}
	if svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		d.TrafficPolicy = v1alpha1.TrafficPolicyLocal
	}
	switch {
	case inner:
		d.Role = v1alpha1.RoleInner
	case p.Exposure == v1alpha1.ExposureRouter:
		d.Role = v1alpha1.RoleRouter
		d.Router = &v1alpha1.VirtualIPRouter{Name: p.Router.Name, Forward: p.Router.Forward}
	case p.Exposure == v1alpha1.ExposureBGP:
		d.Role = v1alpha1.RoleBGP
	}
	return d
}

// refusal says why the Service may get no new address of a pool that planWants
// has looked at; nil if it may.
func (p *poolView) refusal(svc *corev1.Service) error {
	return cmp.Or(p.Barred, checkServable(svc, p))
}

// checkServable refuses what a pool cannot serve.
func checkServable(svc *corev1.Service, p *poolView) error {
	if p.Guarded && svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		return refuse("AddressPool %s has guard: alias, with which a few nodes that were chosen ahead of time hold an address, wherever the Service's pods are: set externalTrafficPolicy to Cluster, or use a pool without guard", p.Name)
	}
	if _, limited := svc.Annotations[annotation.ConnectionLimit.Name]; limited && p.Exposure != v1alpha1.ExposureRouter {
		return refuse("annotation %s needs a router to count connections, and AddressPool %s has exposure %s: leave the annotation out, or use a pool with exposure Router",
			annotation.ConnectionLimit.Name, p.Name, p.Exposure)
	}
	if p.Appliance {
		if err := appliance.Unservable(svc); err != nil {
			return refuse("AddressPool %s is behind a stock appliance: %w", p.Name, err)
		}
	}
	if n := len(svc.Spec.LoadBalancerSourceRanges); p.Exposure == v1alpha1.ExposureRouter && n > router.MaxSourceRanges {
		return refuse("spec.loadBalancerSourceRanges has %d networks, and a router takes %d at most: join some of them", n, router.MaxSourceRanges)
	}
	if p.Exposure != v1alpha1.ExposureRouter || p.Router.Forward != v1alpha1.ForwardNodePort {
		return nil
	}
	for _, port := range svc.Spec.Ports {
		if port.NodePort == 0 {
			return refuse("port %s has no NodePort, which AddressPool %s needs (forward: NodePort): set spec.allocateLoadBalancerNodePorts to true, or use a pool with forward: VIP, Pod or Route",
				portName(port), p.Name)
		}
	}
	return nil
}

func portName(p corev1.ServicePort) string {
	return fmt.Sprintf("%d/%s", p.Port, p.Protocol)
}
