package crash

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/test/onesim"
)

// state is what is stored in Kubernetes and in OpenNebula.
type state struct {
	services []corev1.Service
	changed  map[string]bool // Services that changed while the rest was read
	vips     []v1alpha1.VirtualIP
	byAddr   map[netip.Addr]*v1alpha1.VirtualIP
	pools    map[string]*v1alpha1.AddressPool
	networks []onesim.VNetSnapshot
	reserved map[netip.Addr]int  // address → our reservation
	held     map[netip.Addr]int  // address on hold for us, or by mistake → network
	direct   map[netip.Addr]bool // VirtualIPs without reservation
}

// violation is a broken promise.
type violation struct {
	count func(*Report) *int
	text  string
}

func duplicates(r *Report) *int { return &r.Duplicates }
func foreign(r *Report) *int    { return &r.Foreign }
func leaks(r *Report) *int      { return &r.Leaks }
func unserved(r *Report) *int   { return &r.Unserved }

// read reads the state. OpenNebula comes first and last the Services once more: what
// was the same before and after the VirtualIPs were read held at one moment.
func (w *world) read(ctx context.Context) (*state, error) {
	s := &state{
		changed: map[string]bool{}, byAddr: map[netip.Addr]*v1alpha1.VirtualIP{}, pools: map[string]*v1alpha1.AddressPool{},
		reserved: map[netip.Addr]int{}, held: map[netip.Addr]int{}, direct: map[netip.Addr]bool{},
	}
	services := w.plane.kube.CoreV1().Services(metav1.NamespaceDefault)
	before, err := services.List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	s.networks = w.sim.Snapshot().Networks
	vips, err := w.onelb.VirtualIPs().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	pools, err := w.onelb.AddressPools().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	after, err := services.List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, svc := range after.Items {
		if svc.Name == "kubernetes" {
			continue
		}
		s.services = append(s.services, svc)
		s.changed[svc.Name] = !slices.ContainsFunc(before.Items, func(o corev1.Service) bool {
			return o.UID == svc.UID && o.ResourceVersion == svc.ResourceVersion
		})
	}
	s.vips = vips.Items
	for i := range s.vips {
		a, err := netip.ParseAddr(s.vips[i].Spec.Address)
		if err != nil {
			return nil, fmt.Errorf("VirtualIP %s: %w", s.vips[i].Name, err)
		}
		s.byAddr[a], s.direct[a] = &s.vips[i], s.vips[i].Spec.Direct != nil
	}
	for i := range pools.Items {
		s.pools[pools.Items[i].Name] = &pools.Items[i]
	}
	return s, nil
}

func wantsAddress(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.DeletionTimestamp.IsZero()
}

func addressesOf(s *corev1.Service) []netip.Addr {
	var out []netip.Addr
	for _, i := range s.Status.LoadBalancer.Ingress {
		if a, err := netip.ParseAddr(i.IP); err == nil {
			out = append(out, a)
		}
	}
	return out
}

func named(v *v1alpha1.VirtualIP, s *corev1.Service) bool {
	return slices.ContainsFunc(v.Spec.Services, func(r v1alpha1.ServiceReference) bool { return r.UID == s.UID })
}

// safety is what has to hold at every moment, also between a crash and the
// restart: no address twice, none published that is not ours.
func (w *world) safety(s *state) []violation {
	out := w.networkSafety(s)
	if len(s.byAddr) != len(s.vips) {
		out = append(out, violation{duplicates, fmt.Sprintf("%d VirtualIPs for %d addresses", len(s.vips), len(s.byAddr))})
	}
	for _, v := range s.vips {
		if len(v.Spec.Services) > 1 {
			out = append(out, violation{duplicates, fmt.Sprintf("%s has several Services: %v", v.Name, v.Spec.Services)})
		}
	}
	publisher := map[netip.Addr]string{}
	for i := range s.services {
		svc := &s.services[i]
		if !wantsAddress(svc) || s.changed[svc.Name] {
			continue // what a Service that goes shows is of no effect: nobody holds it
		}
		for _, a := range addressesOf(svc) {
			if other, ok := publisher[a]; ok {
				out = append(out, violation{duplicates, fmt.Sprintf("%s is in the status of %s and %s", a, other, svc.Name)})
			}
			publisher[a] = svc.Name
			v := s.byAddr[a]
			switch {
			case v != nil && len(v.Spec.Services) > 0 && !named(v, svc):
				out = append(out, violation{foreign, fmt.Sprintf("%s publishes %s, which %s has", svc.Name, a, v.Spec.Services[0].Name)})
			case w.strangers[a]:
				out = append(out, violation{foreign, fmt.Sprintf("%s publishes %s, which is a stranger's", svc.Name, a)})
			case s.reserved[a] == 0 && !s.direct[a]:
				out = append(out, violation{foreign, fmt.Sprintf("%s publishes %s, which is not in our reservations", svc.Name, a)})
			}
		}
	}
	return out
}

// networkSafety looks at OpenNebula alone, and fills in reserved and held.
func (w *world) networkSafety(s *state) []violation {
	var out []violation
	untouched := 0
	for _, n := range s.networks {
		if n.Broken {
			out = append(out, violation{leaks, fmt.Sprintf("network %s is corrupt", n.Name)})
		}
		for _, r := range n.Ranges {
			for _, a := range addressesIn(r) {
				if n.Parent < 0 {
					break
				}
				if other, ok := s.reserved[a]; ok {
					out = append(out, violation{duplicates, fmt.Sprintf("%s is in reservations %d and %d", a, other, n.ID)})
				}
				s.reserved[a] = n.ID
			}
			for _, a := range holdsIn(r) {
				if n.ID == w.open && w.strangers[a] {
					untouched++
					continue
				}
				if other, ok := s.held[a]; ok {
					out = append(out, violation{duplicates, fmt.Sprintf("%s is on hold in %d and %d", a, other, n.ID)})
				}
				s.held[a] = n.ID
			}
		}
	}
	if untouched != len(w.strangers) {
		out = append(out, violation{foreign, fmt.Sprintf("strangers have %d of %d holds left", untouched, len(w.strangers))})
	}
	return out
}

func holdsIn(r onesim.RangeSnapshot) []netip.Addr {
	var out []netip.Addr
	for _, l := range r.Leases {
		for _, a := range []netip.Addr{l.IP, l.IP6} {
			if l.Owner == "hold" && a.IsValid() {
				out = append(out, a)
			}
		}
	}
	return out
}

func addressesIn(r onesim.RangeSnapshot) []netip.Addr {
	var out []netip.Addr
	for _, a := range []netip.Addr{r.First, r.First6} {
		for i := 0; i < r.Size && a.IsValid(); i++ {
			out = append(out, a)
			a = a.Next()
		}
	}
	return out
}

// served is what holds as soon as the CCM has done its work for the Services:
// each has exactly the addresses that name it, one for each family.
func (w *world) served(s *state) []violation {
	var out []violation
	bad := func(svc *corev1.Service, format string, args ...any) {
		out = append(out, violation{unserved, svc.Name + " " + fmt.Sprintf(format, args...)})
	}
	for i := range s.services {
		svc := &s.services[i]
		addrs := addressesOf(svc)
		if !wantsAddress(svc) {
			switch {
			case !svc.DeletionTimestamp.IsZero():
				bad(svc, "is still being deleted, finalizers %v", svc.Finalizers)
			case len(addrs) > 0:
				bad(svc, "is no load balancer and still shows %v", addrs)
			}
			continue
		}
		var families []corev1.IPFamily
		for _, a := range addrs {
			f := corev1.IPv4Protocol
			if a.Is6() {
				f = corev1.IPv6Protocol
			}
			families = append(families, f)
			v := s.byAddr[a]
			switch {
			case v == nil || !named(v, svc):
				bad(svc, "shows %s, whose VirtualIP does not name it", a)
			case svc.Annotations[poolAnnotation] != "" && svc.Annotations[poolAnnotation] != v.Spec.Pool:
				bad(svc, "shows %s of pool %s instead of %s", a, v.Spec.Pool, svc.Annotations[poolAnnotation])
			}
		}
		if !slices.Equal(families, svc.Spec.IPFamilies) {
			bad(svc, "shows %v and wants %v", addrs, svc.Spec.IPFamilies)
		}
	}
	for _, v := range s.vips {
		for _, ref := range v.Spec.Services {
			i := slices.IndexFunc(s.services, func(svc corev1.Service) bool { return svc.UID == ref.UID })
			if i < 0 || !slices.Contains(addressesOf(&s.services[i]), netip.MustParseAddr(v.Spec.Address)) {
				out = append(out, violation{leaks, fmt.Sprintf("%s is given to %s, which does not show it", v.Name, ref.Name)})
			}
		}
	}
	return out
}

// settled is what holds when quarantine and sweeps are over: records, holds and
// reservations are the same set, and nothing belongs to nobody.
func (w *world) settled(s *state) []violation {
	out := w.served(s)
	leak := func(format string, args ...any) { out = append(out, violation{leaks, fmt.Sprintf(format, args...)}) }
	slots := map[netip.Addr]netip.Addr{} // of a pair, each half → the other
	for _, n := range s.networks {
		if n.Parent < 0 {
			continue
		}
		pool, ours := strings.CutPrefix(n.Name, clusterName+"-")
		switch {
		case !ours || s.pools[pool] == nil:
			leak("reservation %s (%d) is of no pool", n.Name, n.ID)
		case n.Attributes[ipam.AttributeClusterUID] != w.uid || n.Attributes[ipam.AttributePool] != pool:
			leak("reservation %s (%d) is not signed: %v", n.Name, n.ID, n.Attributes)
		}
		for _, r := range n.Ranges {
			if r.First.IsValid() && r.First6.IsValid() {
				a, b := r.First, r.First6
				for range r.Size {
					slots[a], slots[b] = b, a
					a, b = a.Next(), b.Next()
				}
			}
			for _, l := range r.Leases {
				if l.Owner != "hold" {
					leak("%s in reservation %s is used by %s", l.IP, n.Name, l.Owner)
				}
			}
		}
	}
	for _, v := range s.vips {
		a := netip.MustParseAddr(v.Spec.Address)
		_, held := s.held[a]
		switch {
		case v.Status.Phase == v1alpha1.PhaseQuarantined && s.pools[v.Spec.Pool] == nil:
			// With its pool the length of its quarantine was forgotten: it has the default's.
		case v.Spec.Direct != nil && v.Spec.Direct.State == v1alpha1.DirectAhead && held:
			// Kept ahead for the next Service.
		case len(v.Spec.Services) == 0:
			leak("%s (%s) is of no Service", v.Name, v.Status.Phase)
		case s.reserved[a] == 0 && !s.direct[a]:
			leak("%s is in use and not reserved", v.Name)
		case !held:
			leak("%s is in use and not on hold", v.Name)
		case !slices.ContainsFunc(v.Status.Conditions, func(c metav1.Condition) bool {
			return c.Type == v1alpha1.VirtualIPOnHold && c.Status == metav1.ConditionTrue
		}):
			leak("%s is on hold and its status does not say so", v.Name)
		}
	}
	for a, n := range s.held {
		if s.byAddr[a] == nil && (!slots[a].IsValid() || s.byAddr[slots[a]] == nil) {
			leak("%s is on hold in %d without record", a, n)
		}
	}
	return append(out, w.parents(s)...)
}

// settledBy is settled, with a person who decides about what is set aside: the
// holds of strangers are known, so what is on hold beside them is ours.
func (w *world) settledBy(ctx context.Context) func(*state) []violation {
	return func(s *state) []violation {
		for _, v := range s.vips {
			if v.Spec.Direct == nil || v.Spec.Direct.State != v1alpha1.DirectSetAside {
				continue
			}
			a, err := netip.MustParseAddr(v.Spec.Address), error(nil)
			if w.strangers[a] {
				err = w.onelb.VirtualIPs().Delete(ctx, v.Name, metav1.DeleteOptions{})
			} else if s.held[a] == w.open {
				w.report.SetAside++
				err = w.sim.Release(w.open, a)
			}
			if err != nil {
				klog.ErrorS(err, "Crash test: a person cannot decide", "virtualIP", v.Name)
			}
		}
		return w.settled(s)
	}
}

// parents compares what the networks say they lent with the reservations.
func (w *world) parents(s *state) []violation {
	var out []violation
	for _, n := range s.networks {
		if n.Parent >= 0 {
			continue
		}
		for _, r := range n.Ranges {
			for _, l := range r.Leases {
				for _, a := range []netip.Addr{l.IP, l.IP6} {
					if n.ID == w.open && l.Owner == "hold" {
						continue // looked at already
					}
					if a.IsValid() && fmt.Sprintf("VNET %d", s.reserved[a]) != l.Owner {
						out = append(out, violation{leaks, fmt.Sprintf("%s of %s is lent to %s, and in reservation %d", a, n.Name, l.Owner, s.reserved[a])})
					}
				}
			}
		}
	}
	return out
}
