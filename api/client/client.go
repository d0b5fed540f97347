// Package client is the typed client and the informers for the objects of
// onelb.io. Clients are safe for concurrent use; informers are shared the way
// client-go's are.
package client

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/onelb/onelb/api/v1alpha1"
)

// AddressPools reads pools and writes their status.
type AddressPools interface {
	Create(ctx context.Context, obj *v1alpha1.AddressPool, opts metav1.CreateOptions) (*v1alpha1.AddressPool, error)
	Update(ctx context.Context, obj *v1alpha1.AddressPool, opts metav1.UpdateOptions) (*v1alpha1.AddressPool, error)
	UpdateStatus(ctx context.Context, obj *v1alpha1.AddressPool, opts metav1.UpdateOptions) (*v1alpha1.AddressPool, error)
	Delete(ctx context.Context, name string, opts metav1.DeleteOptions) error
	Get(ctx context.Context, name string, opts metav1.GetOptions) (*v1alpha1.AddressPool, error)
	List(ctx context.Context, opts metav1.ListOptions) (*v1alpha1.AddressPoolList, error)
	Watch(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error)
	Patch(ctx context.Context, name string, pt types.PatchType, data []byte, opts metav1.PatchOptions, subresources ...string) (*v1alpha1.AddressPool, error)
}

// VirtualIPs reads and writes virtual IPs.
type VirtualIPs interface {
	Create(ctx context.Context, obj *v1alpha1.VirtualIP, opts metav1.CreateOptions) (*v1alpha1.VirtualIP, error)
	Update(ctx context.Context, obj *v1alpha1.VirtualIP, opts metav1.UpdateOptions) (*v1alpha1.VirtualIP, error)
	UpdateStatus(ctx context.Context, obj *v1alpha1.VirtualIP, opts metav1.UpdateOptions) (*v1alpha1.VirtualIP, error)
	Delete(ctx context.Context, name string, opts metav1.DeleteOptions) error
	Get(ctx context.Context, name string, opts metav1.GetOptions) (*v1alpha1.VirtualIP, error)
	List(ctx context.Context, opts metav1.ListOptions) (*v1alpha1.VirtualIPList, error)
	Watch(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error)
	Patch(ctx context.Context, name string, pt types.PatchType, data []byte, opts metav1.PatchOptions, subresources ...string) (*v1alpha1.VirtualIP, error)
}

// BGPConfigurations reads what all BGP sessions have in common.
type BGPConfigurations interface {
	Create(ctx context.Context, obj *v1alpha1.BGPConfiguration, opts metav1.CreateOptions) (*v1alpha1.BGPConfiguration, error)
	List(ctx context.Context, opts metav1.ListOptions) (*v1alpha1.BGPConfigurationList, error)
	Watch(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error)
}

// BGPPeers reads peers.
type BGPPeers interface {
	Create(ctx context.Context, obj *v1alpha1.BGPPeer, opts metav1.CreateOptions) (*v1alpha1.BGPPeer, error)
	List(ctx context.Context, opts metav1.ListOptions) (*v1alpha1.BGPPeerList, error)
	Watch(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error)
}

// BGPNodes reads and writes how it stands with nodes' sessions.
type BGPNodes interface {
	List(ctx context.Context, opts metav1.ListOptions) (*v1alpha1.BGPNodeList, error)
	Watch(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error)
	Create(ctx context.Context, obj *v1alpha1.BGPNode, opts metav1.CreateOptions) (*v1alpha1.BGPNode, error)
	Patch(ctx context.Context, name string, pt types.PatchType, data []byte, opts metav1.PatchOptions, subresources ...string) (*v1alpha1.BGPNode, error)
}

// Interface is the client of the group; Clientset and fake.Clientset have it.
type Interface interface {
	AddressPools() AddressPools
	VirtualIPs() VirtualIPs
	BGPConfigurations() BGPConfigurations
	BGPPeers() BGPPeers
	BGPNodes() BGPNodes
}

// Clientset talks to the API server.
type Clientset struct {
	pools *gentype.ClientWithList[*v1alpha1.AddressPool, *v1alpha1.AddressPoolList]
	vips  *gentype.ClientWithList[*v1alpha1.VirtualIP, *v1alpha1.VirtualIPList]

	bgpConfigurations *gentype.ClientWithList[*v1alpha1.BGPConfiguration, *v1alpha1.BGPConfigurationList]
	bgpPeers          *gentype.ClientWithList[*v1alpha1.BGPPeer, *v1alpha1.BGPPeerList]
	bgpNodes          *gentype.ClientWithList[*v1alpha1.BGPNode, *v1alpha1.BGPNodeList]
}

var _ Interface = (*Clientset)(nil)

// New makes a client from a connection's configuration, which it copies.
func New(cfg *rest.Config) (*Clientset, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("register onelb.io types: %w", err)
	}
	metav1.AddToGroupVersion(scheme, metav1.SchemeGroupVersion)
	codec := runtime.NewParameterCodec(scheme)

	c := rest.CopyConfig(cfg)
	c.GroupVersion = &v1alpha1.GroupVersion
	c.APIPath = "/apis"
	c.ContentType = runtime.ContentTypeJSON // custom resources have no protobuf
	c.AcceptContentTypes = runtime.ContentTypeJSON
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	rc, err := rest.RESTClientFor(c)
	if err != nil {
		return nil, fmt.Errorf("client for %s: %w", v1alpha1.GroupVersion, err)
	}
	return &Clientset{
		pools: gentype.NewClientWithList(
			"addresspools", rc, codec, "",
			func() *v1alpha1.AddressPool { return &v1alpha1.AddressPool{} },
			func() *v1alpha1.AddressPoolList { return &v1alpha1.AddressPoolList{} }),
		vips: gentype.NewClientWithList(
			"virtualips", rc, codec, "",
			func() *v1alpha1.VirtualIP { return &v1alpha1.VirtualIP{} },
			func() *v1alpha1.VirtualIPList { return &v1alpha1.VirtualIPList{} }),
		bgpConfigurations: gentype.NewClientWithList(
			"bgpconfigurations", rc, codec, "",
			func() *v1alpha1.BGPConfiguration { return &v1alpha1.BGPConfiguration{} },
			func() *v1alpha1.BGPConfigurationList { return &v1alpha1.BGPConfigurationList{} }),
		bgpPeers: gentype.NewClientWithList(
			"bgppeers", rc, codec, "",
			func() *v1alpha1.BGPPeer { return &v1alpha1.BGPPeer{} },
			func() *v1alpha1.BGPPeerList { return &v1alpha1.BGPPeerList{} }),
		bgpNodes: gentype.NewClientWithList(
			"bgpnodes", rc, codec, "",
			func() *v1alpha1.BGPNode { return &v1alpha1.BGPNode{} },
			func() *v1alpha1.BGPNodeList { return &v1alpha1.BGPNodeList{} }),
	}, nil
}

// AddressPools returns the client for pools.
func (c *Clientset) AddressPools() AddressPools { return c.pools }

// VirtualIPs returns the client for virtual IPs.
func (c *Clientset) VirtualIPs() VirtualIPs { return c.vips }

// BGPConfigurations returns the client for BGP configurations.
func (c *Clientset) BGPConfigurations() BGPConfigurations { return c.bgpConfigurations }

// BGPPeers returns the client for BGP peers.
func (c *Clientset) BGPPeers() BGPPeers { return c.bgpPeers }

// BGPNodes returns the client for the BGP state of nodes.
func (c *Clientset) BGPNodes() BGPNodes { return c.bgpNodes }

// NewBGPConfigurationInformer makes an informer of all BGP configurations. The caller runs it.
func NewBGPConfigurationInformer(c Interface, resync time.Duration) cache.SharedIndexInformer {
	return cache.NewSharedIndexInformer(
		listWatch(c, c.BGPConfigurations().List, c.BGPConfigurations().Watch),
		&v1alpha1.BGPConfiguration{}, resync, cache.Indexers{})
}

// NewBGPPeerInformer makes an informer of all BGP peers. The caller runs it.
func NewBGPPeerInformer(c Interface, resync time.Duration) cache.SharedIndexInformer {
	return cache.NewSharedIndexInformer(
		listWatch(c, c.BGPPeers().List, c.BGPPeers().Watch),
		&v1alpha1.BGPPeer{}, resync, cache.Indexers{})
}

// NewBGPNodeInformer makes an informer of the BGP state of all nodes. The caller runs it.
func NewBGPNodeInformer(c Interface, resync time.Duration) cache.SharedIndexInformer {
	return cache.NewSharedIndexInformer(
		listWatch(c, c.BGPNodes().List, c.BGPNodes().Watch),
		&v1alpha1.BGPNode{}, resync, cache.Indexers{})
}

// NewAddressPoolInformer makes an informer of all pools. The caller runs it.
func NewAddressPoolInformer(c Interface, resync time.Duration) cache.SharedIndexInformer {
	return cache.NewSharedIndexInformer(
		listWatch(c, c.AddressPools().List, c.AddressPools().Watch),
		&v1alpha1.AddressPool{}, resync, cache.Indexers{})
}

// NewVirtualIPInformer makes an informer of all virtual IPs. The caller runs it.
func NewVirtualIPInformer(c Interface, resync time.Duration) cache.SharedIndexInformer {
	return cache.NewSharedIndexInformer(
		listWatch(c, c.VirtualIPs().List, c.VirtualIPs().Watch),
		&v1alpha1.VirtualIP{}, resync, cache.Indexers{})
}

func listWatch[L runtime.Object](
	c Interface,
	list func(context.Context, metav1.ListOptions) (L, error),
	watchAll func(context.Context, metav1.ListOptions) (watch.Interface, error),
) cache.ListerWatcher {
	return cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return list(ctx, o)
		},
		WatchFuncWithContext: watchAll,
	}, c)
}
