package loadbalancer

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"unique"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"github.com/onelb/onelb/api/v1alpha1"
)

// byService indexes EndpointSlices by namespace/name of their Service.
const byService = "onelb-service"

// endpoints is what stays in memory of an EndpointSlice: every Service has one,
// and whole ones would be a quarter of all memory with thousands of Services.
type endpoints struct {
	metav1.ObjectMeta // name, namespace and resource version, which an informer needs
	service           string
	list              []endpoint
	ports             []endpointPort // that all of them have
}

// endpoint is one that has a node and gets traffic.
type endpoint struct {
	node    unique.Handle[string]
	pod     types.UID  // empty: it is no pod
	address netip.Addr // invalid: it has a name only
	ready   bool       // else it serves while it ends
}

type endpointPort struct {
	name     unique.Handle[string]
	protocol corev1.Protocol
	number   uint16
}

// KeepEndpoints makes an informer of EndpointSlices keep only what the controller
// reads, and find it by Service. Nobody else can use the informer then. Call it
// before the informer runs.
func KeepEndpoints(inf cache.SharedIndexInformer) error {
	if err := inf.SetTransform(func(obj any) (any, error) {
		if s, ok := obj.(*discoveryv1.EndpointSlice); ok {
			return endpointsOf(s), nil
		}
		return obj, nil // of an object that is gone
	}); err != nil {
		return fmt.Errorf("keep less of EndpointSlices: %w", err)
	}
	err := inf.AddIndexers(cache.Indexers{byService: func(obj any) ([]string, error) {
		e, ok := obj.(*endpoints)
		if !ok || e.service == "" {
			return nil, nil
		}
		return []string{e.Namespace + "/" + e.service}, nil
	}})
	if err != nil {
		return fmt.Errorf("index EndpointSlices by Service: %w", err)
	}
	return nil
}

func endpointsOf(s *discoveryv1.EndpointSlice) *endpoints {
	e := &endpoints{
		ObjectMeta: metav1.ObjectMeta{Name: s.Name, Namespace: s.Namespace, UID: s.UID, ResourceVersion: s.ResourceVersion},
		service:    s.Labels[discoveryv1.LabelServiceName],
		list:       make([]endpoint, 0, len(s.Endpoints)),
	}
	for _, from := range s.Endpoints {
		c := from.Conditions
		ready := c.Ready == nil || *c.Ready
		if from.NodeName == nil || !ready && (c.Serving == nil || !*c.Serving) {
			continue
		}
		to := endpoint{node: unique.Make(*from.NodeName), ready: ready}
		if from.TargetRef != nil {
			to.pod = from.TargetRef.UID
		}
		if len(from.Addresses) > 0 && s.AddressType != discoveryv1.AddressTypeFQDN {
			to.address, _ = netip.ParseAddr(from.Addresses[0]) //nolint:errcheck // an invalid one shows as such
		}
		e.list = append(e.list, to)
	}
	for _, p := range s.Ports {
		if p.Port != nil { // else any port, which no Service with a selector has
			e.ports = append(e.ports, endpointPort{
				name: unique.Make(ptr.Deref(p.Name, "")), protocol: protocolOf(ptr.Deref(p.Protocol, "")), number: uint16(*p.Port), //nolint:gosec // 1..65535 by the API
			})
		}
	}
	return e
}

// protocolOf is one of the constants, so that nobody keeps a copy of the text.
func protocolOf(p corev1.Protocol) corev1.Protocol {
	switch p {
	case corev1.ProtocolUDP:
		return corev1.ProtocolUDP
	case corev1.ProtocolSCTP:
		return corev1.ProtocolSCTP
	default:
		return corev1.ProtocolTCP
	}
}

// endpoints returns what the EndpointSlices of a Service have, sorted by name.
func (c *Controller) endpoints(ref v1alpha1.ServiceReference) []*endpoints {
	objs, err := c.o.EndpointSlices.GetIndexer().ByIndex(byService, ref.Namespace+"/"+ref.Name)
	if err != nil {
		return nil // the index is missing: a programming error that tests see
	}
	out := make([]*endpoints, 0, len(objs))
	for _, obj := range objs {
		if e, ok := obj.(*endpoints); ok {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b *endpoints) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// EndpointCount is how many endpoints a Service has in one family.
type EndpointCount struct {
	Ready, Total int // Total: with those that serve while they end
	// Nodes counts the ready ones by node.
	Nodes map[string]int
}

// CountEndpoints counts each address of a Service once. Those without a node are
// not known here.
func (c *Controller) CountEndpoints(namespace, name string, ipv6 bool) EndpointCount {
	out := EndpointCount{Nodes: map[string]int{}}
	seen := map[netip.Addr]bool{}
	for _, s := range c.endpoints(v1alpha1.ServiceReference{Namespace: namespace, Name: name}) {
		for _, e := range s.list {
			if !e.address.IsValid() || e.address.Is6() != ipv6 || seen[e.address] {
				continue
			}
			seen[e.address] = true
			out.Total++
			if e.ready {
				out.Ready++
				out.Nodes[e.node.Value()]++
			}
		}
	}
	return out
}
