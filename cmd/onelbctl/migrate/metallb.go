package migrate

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/onelb/onelb/ipam"
)

// metal is what MetalLB's objects say. Its Go types are not used: they would bring
// its dependencies.
type metal struct {
	pools     []metalPool
	l2, bgp   []advertisement
	community map[string]string // value by name
}

type metalPool struct {
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Addresses     []string `json:"addresses"`
		AutoAssign    *bool    `json:"autoAssign"`
		AvoidBuggyIPs bool     `json:"avoidBuggyIPs"`
		Allocation    *struct {
			Priority           int32                  `json:"priority"`
			Namespaces         []string               `json:"namespaces"`
			NamespaceSelectors []metav1.LabelSelector `json:"namespaceSelectors"`
			ServiceSelectors   []metav1.LabelSelector `json:"serviceSelectors"`
		} `json:"serviceAllocation"`
	} `json:"spec"`

	ranges []ipam.AddressRange
}

// advertisement is an L2Advertisement or a BGPAdvertisement.
type advertisement struct {
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Pools         []string               `json:"ipAddressPools"`
		PoolSelectors []metav1.LabelSelector `json:"ipAddressPoolSelectors"`
		NodeSelectors []metav1.LabelSelector `json:"nodeSelectors"`
		Interfaces    []string               `json:"interfaces"`
		Peers         []string               `json:"peers"`
		Communities   []string               `json:"communities"`
		LocalPref     int64                  `json:"localPref"`
		Length        *int32                 `json:"aggregationLength"`
		LengthV6      *int32                 `json:"aggregationLengthV6"`
	} `json:"spec"`
}

type communities struct {
	Spec struct {
		Communities []struct {
			Name  string `json:"name"`
			Value string `json:"value"`
		} `json:"communities"`
	} `json:"spec"`
}

const metalGroup = "metallb.io"

// readMetal reads MetalLB's objects of all namespaces.
func readMetal(ctx context.Context, c dynamic.Interface) (metal, error) {
	out := metal{community: map[string]string{}}
	pools, err := list[metalPool](ctx, c, "ipaddresspools")
	if apierrors.IsNotFound(err) {
		return out, fmt.Errorf("this cluster has no MetalLB: the API server knows no %s/v1beta1 IPAddressPools", metalGroup)
	}
	if err != nil {
		return out, fmt.Errorf("read IPAddressPools: %w", err)
	}
	out.pools = pools
	for i := range out.pools {
		p := &out.pools[i]
		for _, text := range p.Spec.Addresses {
			r, err := parseMetalRange(text)
			if err != nil {
				return out, fmt.Errorf("IPAddressPool %s: %w", p.Name, err)
			}
			p.ranges = append(p.ranges, r)
		}
	}
	if out.l2, err = list[advertisement](ctx, c, "l2advertisements"); err != nil && !apierrors.IsNotFound(err) {
		return out, fmt.Errorf("read L2Advertisements: %w", err)
	}
	if out.bgp, err = list[advertisement](ctx, c, "bgpadvertisements"); err != nil && !apierrors.IsNotFound(err) {
		return out, fmt.Errorf("read BGPAdvertisements: %w", err)
	}
	named, err := list[communities](ctx, c, "communities")
	if err != nil && !apierrors.IsNotFound(err) {
		return out, fmt.Errorf("read Communities: %w", err)
	}
	for _, n := range named {
		for _, x := range n.Spec.Communities {
			out.community[x.Name] = x.Value
		}
	}
	return out, nil
}

// list reads all objects of a resource, in the API server's order, which is by name.
func list[T any](ctx context.Context, c dynamic.Interface, resource string) ([]T, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	l, err := c.Resource(schema.GroupVersionResource{Group: metalGroup, Version: "v1beta1", Resource: resource}).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	out := make([]T, len(l.Items))
	for i := range l.Items {
		text, err := l.Items[i].MarshalJSON()
		if err == nil {
			err = json.Unmarshal(text, &out[i])
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", l.Items[i].GetName(), err)
		}
	}
	return out, nil
}

// parseMetalRange reads a prefix or FIRST-LAST.
func parseMetalRange(text string) (ipam.AddressRange, error) {
	bad := fmt.Errorf("%q is neither a prefix such as 10.0.0.0/28 nor FIRST-LAST", text)
	if first, last, ok := strings.Cut(text, "-"); ok {
		a, err1 := netip.ParseAddr(strings.TrimSpace(first))
		b, err2 := netip.ParseAddr(strings.TrimSpace(last))
		if err1 != nil || err2 != nil || a.BitLen() != b.BitLen() || b.Less(a) {
			return ipam.AddressRange{}, bad
		}
		return ipam.AddressRange{Start: a, End: b}, nil
	}
	p, err := netip.ParsePrefix(strings.TrimSpace(text))
	if err != nil {
		return ipam.AddressRange{}, bad
	}
	p = p.Masked()
	last := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(last)*8; bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	end, _ := netip.AddrFromSlice(last)
	return ipam.AddressRange{Start: p.Addr(), End: end}, nil
}

// poolOf is the pool that has an address, or nil.
func (m *metal) poolOf(a netip.Addr) *metalPool {
	for i := range m.pools {
		if slices.ContainsFunc(m.pools[i].ranges, func(r ipam.AddressRange) bool {
			return r.Start.BitLen() == a.BitLen() && !a.Less(r.Start) && !r.End.Less(a)
		}) {
			return &m.pools[i]
		}
	}
	return nil
}

// selects reports whether an advertisement is for a pool.
func (a advertisement) selects(p *metalPool) bool {
	if len(a.Spec.Pools) == 0 && len(a.Spec.PoolSelectors) == 0 {
		return true
	}
	return slices.Contains(a.Spec.Pools, p.Name) || matchesAny(a.Spec.PoolSelectors, p.Labels)
}

var (
	metalController = regexp.MustCompile(`(^|/)metallb/controller(:|@|$)|metallb-controller`)
	metalSpeaker    = regexp.MustCompile(`(^|/)metallb/speaker(:|@|$)|metallb-speaker`)
)
