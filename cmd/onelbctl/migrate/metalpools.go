package migrate

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"

	"github.com/onelb/onelb/api/v1alpha1"
)

// maxPoolName is that of AddressPools.
const maxPoolName = 63

// convert makes an AddressPool of an IPAddressPool, all but its network.
func (m *metal) convert(p *metalPool, namespaces []corev1.Namespace) Pool {
	out := Pool{Name: p.Name, AutoAssign: p.Spec.AutoAssign == nil || *p.Spec.AutoAssign}
	out.Spec.AutoAssign = ptr.To(false) // until all Services are there
	out.Spec.AvoidEdgeAddresses = p.Spec.AvoidBuggyIPs
	for _, r := range p.ranges {
		out.Spec.Ranges = append(out.Spec.Ranges, v1alpha1.AddressRange{Start: r.Start.String(), End: r.End.String()})
	}
	if len(p.Name) > maxPoolName {
		out.problem("the name of an AddressPool has at most %d characters: rename the IPAddressPool", maxPoolName)
	}
	m.expose(p, &out)
	m.limit(p, &out, namespaces)
	out.Spec.Priority = m.priority(p)
	return out
}

func (p *Pool) problem(format string, args ...any) {
	p.Problems = append(p.Problems, fmt.Sprintf(format, args...))
}

func (p *Pool) note(format string, args ...any) {
	p.Notes = append(p.Notes, fmt.Sprintf(format, args...))
}

// priority: MetalLB's 0 comes last, onelb's first.
func (m *metal) priority(p *metalPool) int32 {
	most, own := int32(0), int32(0)
	for i := range m.pools {
		if a := m.pools[i].Spec.Allocation; a != nil {
			most = max(most, a.Priority)
		}
	}
	if p.Spec.Allocation != nil {
		own = p.Spec.Allocation.Priority
	}
	switch {
	case most == 0:
		return 0
	case own == 0:
		return most + 1
	}
	return own
}

// limit says who may use the pool.
func (m *metal) limit(p *metalPool, out *Pool, namespaces []corev1.Namespace) {
	a := p.Spec.Allocation
	if a == nil {
		return
	}
	switch {
	case len(a.Namespaces) == 0:
		selector, ok := either(a.NamespaceSelectors)
		if !ok {
			selector = in(corev1.LabelMetadataName, matching(namespaces, a.NamespaceSelectors, nil))
			out.note("serviceAllocation.namespaceSelectors cannot be said in one selector: the namespaces that match now are listed")
		}
		out.Spec.NamespaceSelector = selector
	default:
		out.Spec.NamespaceSelector = in(corev1.LabelMetadataName, matching(namespaces, a.NamespaceSelectors, a.Namespaces))
		if len(a.NamespaceSelectors) > 0 {
			out.note("serviceAllocation has namespaces and namespaceSelectors, of which one has to match: the namespaces that match now are listed")
		}
	}
	selector, ok := either(a.ServiceSelectors)
	if !ok {
		out.AutoAssign = false
		out.note("serviceAllocation.serviceSelectors cannot be said in one selector: the pool gives addresses to Services only that name it, autoAssign stays false")
	}
	out.Spec.ServiceSelector = selector
}

// matching lists namespaces by name and by selector, sorted.
func matching(all []corev1.Namespace, selectors []metav1.LabelSelector, named []string) []string {
	set := map[string]bool{}
	for _, n := range named {
		set[n] = true
	}
	for i := range all {
		if matchesAny(selectors, labels.Merge(labels.Set{corev1.LabelMetadataName: all[i].Name}, all[i].Labels)) {
			set[all[i].Name] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// expose says how the addresses are announced.
func (m *metal) expose(p *metalPool, out *Pool) {
	var l2, bgp []advertisement
	for _, a := range m.l2 {
		if a.selects(p) {
			l2 = append(l2, a)
		}
	}
	for _, a := range m.bgp {
		if a.selects(p) {
			bgp = append(bgp, a)
		}
	}
	out.Spec.Exposure = v1alpha1.ExposureL2
	switch {
	case len(l2) > 0 && len(bgp) > 0:
		out.note("it is advertised by L2 and by BGP; onelb announces a pool in one way, which is L2 here")
		fallthrough
	case len(l2) > 0:
		exposeL2(l2, out)
	case len(bgp) > 0:
		out.Spec.Exposure = v1alpha1.ExposureBGP
		m.exposeBGP(bgp, out)
	default:
		out.note("no advertisement is for it, so MetalLB answers for none of its addresses; nodes will, by ARP and neighbour discovery")
	}
}

func exposeL2(ads []advertisement, out *Pool) {
	spec := &v1alpha1.L2Spec{NodeSelector: nodes(ads, out)}
	everywhere := false
	for _, a := range ads {
		everywhere = everywhere || len(a.Spec.Interfaces) == 0
		for _, name := range a.Spec.Interfaces {
			spec.Interfaces = append(spec.Interfaces, regexp.QuoteMeta(name))
		}
	}
	slices.Sort(spec.Interfaces)
	spec.Interfaces = slices.Compact(spec.Interfaces)
	if everywhere {
		spec.Interfaces = nil
	}
	if spec.NodeSelector != nil || len(spec.Interfaces) > 0 {
		out.Spec.L2 = spec
	}
}

// nodes is the selector of the nodes that any of the advertisements is for; nil: all.
func nodes(ads []advertisement, out *Pool) *metav1.LabelSelector {
	var selectors []metav1.LabelSelector
	for _, a := range ads {
		if len(a.Spec.NodeSelectors) == 0 {
			return nil
		}
		selectors = append(selectors, a.Spec.NodeSelectors...)
	}
	selector, ok := either(selectors)
	if !ok {
		out.problem("the nodeSelectors of its advertisements cannot be said in one selector: give the nodes that are meant a label of their own, and name that in the advertisement")
	}
	return selector
}

func (m *metal) exposeBGP(ads []advertisement, out *Pool) {
	if len(ads) > 1 {
		var names []string
		for _, a := range ads {
			names = append(names, a.Name)
		}
		out.problem("several BGPAdvertisements are for it (%s), and onelb announces a pool in one way: make the AddressPool %s yourself (docs/how-to/bgp.md), it is then taken as it is", strings.Join(names, ", "), out.Name)
		return
	}
	a := ads[0].Spec
	spec := &v1alpha1.BGPSpec{NodeSelector: nodes(ads, out), Peers: slices.Clone(a.Peers)}
	for _, c := range a.Communities {
		if v, named := m.community[c]; named {
			c = v
		}
		if large, ok := strings.CutPrefix(c, "large:"); ok {
			spec.LargeCommunities = append(spec.LargeCommunities, large)
			continue
		}
		spec.Communities = append(spec.Communities, c)
	}
	if a.LocalPref > 0 {
		spec.LocalPreference = ptr.To(a.LocalPref)
	}
	if a.Length != nil && *a.Length != 32 {
		spec.AggregationLength = a.Length
	}
	if a.LengthV6 != nil && *a.LengthV6 != 128 {
		spec.AggregationLengthV6 = a.LengthV6
	}
	out.Spec.BGP = spec
	out.note("its routers are BGPPeers of onelb: MetalLB's are not taken over (docs/how-to/bgp.md)")
	if len(a.Peers) > 0 {
		out.note("it is announced to the peers %s: BGPPeers of onelb need these names", strings.Join(a.Peers, ", "))
	}
}
