package node

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/api/client"
	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/announcer"
)

// network is what the API server says about BGP, reduced to what concerns this node.
// It is kept on disk for the times when nobody says anything. It is never changed
// after it has been handed over.
type network struct {
	Config *v1alpha1.BGPConfigurationSpec `json:"config,omitempty"`
	// Own are the node's addresses, the preferred one of each family first.
	Own []netip.Addr `json:"own,omitempty"`
	// UID of the Node.
	UID string `json:"uid,omitempty"`
	// Peers that this node has, sorted by name.
	Peers []neighbor `json:"peers,omitempty"`
	// Pools with exposure BGP, by name.
	Pools map[string]v1alpha1.BGPSpec `json:"pools,omitempty"`
	// Addresses of those pools, sorted.
	Addresses []pooled `json:"addresses,omitempty"`
}

// neighbor is a BGPPeer.
type neighbor struct {
	Name string               `json:"name"`
	UID  string               `json:"uid"`
	Spec v1alpha1.BGPPeerSpec `json:"spec"`
}

// pooled is an address and the pool it is from.
type pooled struct {
	announcer.Address

	Pool string `json:"pool"`
}

// bgpSource watches what is about BGP. The agent does without: an API server that has
// no such types yet costs nothing but BGP.
type bgpSource struct {
	src                          *source
	node                         string
	configs, peers, pools, nodes cache.SharedIndexInformer
}

func newBGPSource(src *source, onelb client.Interface, node string, changed func()) (*bgpSource, error) {
	s := &bgpSource{
		src: src, node: node,
		configs: client.NewBGPConfigurationInformer(onelb, 0), peers: client.NewBGPPeerInformer(onelb, 0),
		pools: client.NewAddressPoolInformer(onelb, 0), nodes: client.NewBGPNodeInformer(onelb, 0),
	}
	for _, i := range s.informers() {
		if err := i.SetTransform(trimBGP); err != nil {
			return nil, err
		}
		if _, err := i.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { changed() }, UpdateFunc: func(any, any) { changed() }, DeleteFunc: func(any) { changed() },
		}); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *bgpSource) informers() []cache.SharedIndexInformer {
	return []cache.SharedIndexInformer{s.configs, s.peers, s.pools, s.nodes}
}

// Run watches until ctx is done.
func (s *bgpSource) Run(ctx context.Context) error {
	var watches sync.WaitGroup
	for _, i := range s.informers() {
		watches.Go(func() { i.RunWithContext(ctx) })
	}
	watches.Wait()
	return nil
}

func (s *bgpSource) synced() bool {
	return s.src.synced() && !slices.ContainsFunc(s.informers(), func(i cache.SharedIndexInformer) bool { return !i.HasSynced() })
}

// build reduces what is known. On a node that never had a peer the addresses do not
// matter, and are left out.
func (s *bgpSource) build(logger klog.Logger) *network {
	n := &network{Pools: map[string]v1alpha1.BGPSpec{}}
	for _, c := range list[*v1alpha1.BGPConfiguration](s.configs) {
		if c.Name == v1alpha1.BGPConfigurationName {
			n.Config = &c.Spec
		}
	}
	obj, found, err := s.src.nodes.GetStore().GetByKey(s.node)
	self, ok := obj.(*corev1.Node)
	if n.Config == nil || !found || !ok || err != nil {
		return n
	}
	n.UID, n.Own = string(self.UID), translateNode(self, false).Addresses
	for _, p := range list[*v1alpha1.BGPPeer](s.peers) {
		if selects(logger, p, self.Labels) {
			n.Peers = append(n.Peers, neighbor{p.Name, string(p.UID), p.Spec})
		}
	}
	slices.SortFunc(n.Peers, func(a, b neighbor) int { return cmp.Compare(a.Name, b.Name) })
	if _, spoke, err := s.nodes.GetStore().GetByKey(s.node); err != nil || !spoke && len(n.Peers) == 0 {
		return n
	}
	for _, p := range list[*v1alpha1.AddressPool](s.pools) {
		if p.Spec.Exposure != v1alpha1.ExposureBGP {
			continue
		}
		n.Pools[p.Name] = v1alpha1.BGPSpec{}
		if p.Spec.BGP != nil {
			n.Pools[p.Name] = *p.Spec.BGP
		}
	}
	n.Addresses = translatePooled(logger, list[*corev1.Node](s.src.nodes), list[*v1alpha1.VirtualIP](s.src.vips), s.src.slicesOf(logger))
	return n
}

func selects(logger klog.Logger, p *v1alpha1.BGPPeer, node map[string]string) bool {
	if p.Spec.NodeSelector == nil {
		return true
	}
	s, err := metav1.LabelSelectorAsSelector(p.Spec.NodeSelector)
	if err != nil {
		logger.Error(err, "Unusable node selector", "bgpPeer", p.Name)
		return false
	}
	return s.Matches(labels.Set(node))
}

// trimBGP keeps what is looked at.
func trimBGP(obj any) (any, error) {
	switch o := obj.(type) {
	case *v1alpha1.AddressPool:
		o.ManagedFields, o.Annotations, o.Status = nil, nil, v1alpha1.AddressPoolStatus{}
	case *v1alpha1.BGPPeer:
		o.ManagedFields, o.Annotations = nil, nil
	case *v1alpha1.BGPNode:
		o.ManagedFields = nil
	}
	return obj, nil
}
