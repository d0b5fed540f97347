package migrate

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer"
	"github.com/onelb/onelb/loadbalancer/annotation"
	"github.com/onelb/onelb/loadbalancer/inventory"
)

// MetalLB's annotations, without their prefixes.
const (
	metalPoolKey   = "address-pool"
	metalIPsKey    = "loadBalancerIPs"
	metalShareKey  = "allow-shared-ip"
	metalGivenFrom = "ip-allocated-from-pool" // MetalLB's own note
)

var metalPrefixes = []string{"metallb.io/", "metallb.universe.tf/"} // the second is the older one

// metalAnnotations returns what a Service says to MetalLB, and the keys that nobody knows.
func metalAnnotations(svc *corev1.Service) (values map[string]string, unknown []string) {
	values = map[string]string{}
	known := []string{metalPoolKey, metalIPsKey, metalShareKey, metalGivenFrom}
	for _, prefix := range slices.Backward(metalPrefixes) {
		for key, value := range svc.Annotations {
			name, ours := strings.CutPrefix(key, prefix)
			switch {
			case !ours:
			case slices.Contains(known, name):
				values[name] = value
			default:
				unknown = append(unknown, key)
			}
		}
	}
	slices.Sort(unknown)
	return values, unknown
}

// services plans for all Services that MetalLB serves. class is the one that it
// serves; empty: those without.
func (m *metal) services(inv *inventory.Inventory, class string) []Service {
	var out []Service
	users := sharers(inv)
	for i := range inv.Services {
		svc := &inv.Services[i]
		if c := svc.Spec.LoadBalancerClass; svc.DeletionTimestamp != nil || c == nil && class != "" || c != nil && (*c != class || *c == loadbalancer.Class) {
			continue // another's, or onelb's
		}
		out = append(out, m.service(inv, svc, users))
	}
	return out
}

// sharers are the Services that show an address, by address.
func sharers(inv *inventory.Inventory) map[netip.Addr][]*corev1.Service {
	out := map[netip.Addr][]*corev1.Service{}
	for i := range inv.Services {
		for _, a := range shown(&inv.Services[i]) {
			out[a] = append(out[a], &inv.Services[i])
		}
	}
	return out
}

func (m *metal) service(inv *inventory.Inventory, svc *corev1.Service, users map[netip.Addr][]*corev1.Service) Service {
	s := Service{Namespace: svc.Namespace, Name: svc.Name, UID: svc.UID}
	owned := inv.Owned(svc)
	said, unknown := metalAnnotations(svc)
	for _, key := range unknown {
		s.Notes = append(s.Notes, fmt.Sprintf("annotation %s has no counterpart", key))
	}
	from := map[string]bool{}
	for _, a := range shown(svc) {
		if slices.ContainsFunc(owned, func(v *v1alpha1.VirtualIP) bool {
			return v.Spec.Address == a.String() && v.Spec.Role == v1alpha1.RoleInner
		}) {
			continue // onelb's own, behind a published one
		}
		s.Addresses = append(s.Addresses, a)
		if p := m.poolOf(a); p != nil {
			from[p.Name] = true
		} else {
			s.Problems = append(s.Problems, fmt.Sprintf("%s is in no IPAddressPool: somebody else has given it", a))
		}
	}
	named := said[metalPoolKey]
	share, why := shareKey(said[metalShareKey])
	if why != "" {
		s.Notes = append(s.Notes, why)
	}
	s.Pool = named
	if len(from) == 1 {
		s.Pool = cmp.Or(named, slices.Collect(maps.Keys(from))[0])
	}
	if svc.Spec.LoadBalancerClass != nil {
		s.Problems = append(s.Problems, fmt.Sprintf("its loadBalancerClass %q cannot be changed: make the Service again without, or with %s, and with annotation %s: %s", *svc.Spec.LoadBalancerClass, loadbalancer.Class, annotation.Address.Name, texts(s.Addresses)))
	}
	pin(&s, share)
	if named == "" {
		delete(s.Annotations, annotation.Pool.Name) // its address says where it comes from
	}
	if len(s.Addresses) == 0 {
		s.Notes = append(s.Notes, "it has no address yet")
		if ips := said[metalIPsKey]; ips != "" {
			s.Annotations[annotation.Address.Name] = ips
			asked, bad := asks(ips)
			s.Problems = append(s.Problems, bad...)
			s.Problems = append(s.Problems, clashes(svc, said[metalShareKey], asked, users)...)
		}
	}
	s.Problems = append(s.Problems, clashes(svc, said[metalShareKey], s.Addresses, users)...)
	s.settle(inv, svc)
	return s
}

// asks reads the addresses that a Service asks MetalLB for.
func asks(text string) (addresses []netip.Addr, problems []string) {
	for part := range strings.SplitSeq(text, ",") {
		a, err := netip.ParseAddr(strings.TrimSpace(part))
		if err != nil {
			problems = append(problems, fmt.Sprintf("its annotation %s%s says %q, which is no address", metalPrefixes[0], metalIPsKey, part))
			continue
		}
		addresses = append(addresses, a.Unmap())
	}
	return addresses, problems
}

// clashes finds other Services that show an address which this one has, or asks
// for, and do not share it: whoever comes to onelb first would take it from them.
func clashes(svc *corev1.Service, key string, addresses []netip.Addr, users map[netip.Addr][]*corev1.Service) []string {
	var out []string
	for _, a := range addresses {
		for _, o := range users[a] {
			said, _ := metalAnnotations(o)
			if o.UID != svc.UID && (key == "" || said[metalShareKey] != key) {
				out = append(out, fmt.Sprintf("Service %s/%s shows %s too, and the two have no common %s%s", o.Namespace, o.Name, a, metalPrefixes[0], metalShareKey))
			}
		}
	}
	return out
}

// shareKey turns MetalLB's key, any text, into one of onelb's.
func shareKey(text string) (key, why string) {
	if text == "" || len(validation.IsValidLabelValue(text)) == 0 {
		return text, ""
	}
	sum := sha256.Sum256([]byte(text))
	key = "metallb-" + hex.EncodeToString(sum[:8])
	return key, fmt.Sprintf("its sharing key %q is none that onelb takes, and becomes %s", text, key)
}

// across reports whether Services of several namespaces share an address of the pool.
func across(services []Service, pool string) bool {
	first := map[netip.Addr]string{}
	for _, s := range services {
		if s.Pool != pool || s.Annotations[annotation.Share.Name] == "" {
			continue
		}
		for _, a := range s.Addresses {
			if ns, seen := first[a]; seen && ns != s.Namespace {
				return true
			}
			first[a] = s.Namespace
		}
	}
	return false
}
