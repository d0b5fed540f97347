// Package fake is an in-memory client for the objects of onelb.io, for tests.
// It keeps objects, bumps resource versions, refuses stale updates and answers
// watches; it does not check CEL rules.
package fake

import (
	"encoding/json"
	"fmt"
	"strconv"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/testing"

	"github.com/onelb/onelb/api/client"
	"github.com/onelb/onelb/api/v1alpha1"
)

// Clientset is the fake client. Reactors can be added to the embedded Fake.
type Clientset struct {
	testing.Fake

	tracker testing.ObjectTracker
	mu      sync.Mutex // guards version, and makes check-and-write atomic
	version int64
}

var _ client.Interface = (*Clientset)(nil)

// The watches of client-go's fakes panic when nobody has read the last hundred events,
// as on a machine whose processors are busy.
func init() { watch.DefaultChanSize = 10_000 }

// New makes a fake client that holds the given objects.
func New(objects ...runtime.Object) *Clientset {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		panic(err) // a programming error in the types
	}
	c := &Clientset{
		tracker: testing.NewObjectTracker(scheme, serializer.NewCodecFactory(scheme).UniversalDecoder()),
	}
	for _, o := range objects {
		if err := c.stamp(o, true); err != nil {
			panic(err)
		}
		if err := c.tracker.Add(o); err != nil {
			panic(err)
		}
	}
	c.AddReactor("*", "*", c.react)
	c.AddWatchReactor("*", func(a testing.Action) (bool, watch.Interface, error) {
		var opts metav1.ListOptions
		if watching, ok := a.(testing.WatchActionImpl); ok {
			opts = watching.ListOptions // with the version of the list: what came since is delivered
		}
		w, err := c.tracker.Watch(a.GetResource(), a.GetNamespace(), opts)
		return true, w, err
	})
	return c
}

// IsWatchListSemanticsUnSupported tells informers to list first.
func (c *Clientset) IsWatchListSemanticsUnSupported() bool { return true }

// AddressPools returns the client for pools.
func (c *Clientset) AddressPools() client.AddressPools {
	return gentype.NewFakeClientWithList(&c.Fake, "",
		v1alpha1.GroupVersion.WithResource("addresspools"), v1alpha1.GroupVersion.WithKind("AddressPool"),
		func() *v1alpha1.AddressPool { return &v1alpha1.AddressPool{} },
		func() *v1alpha1.AddressPoolList { return &v1alpha1.AddressPoolList{} },
		func(dst, src *v1alpha1.AddressPoolList) { dst.ListMeta = src.ListMeta },
		func(l *v1alpha1.AddressPoolList) []*v1alpha1.AddressPool { return gentype.ToPointerSlice(l.Items) },
		func(l *v1alpha1.AddressPoolList, items []*v1alpha1.AddressPool) {
			l.Items = gentype.FromPointerSlice(items)
		})
}

// VirtualIPs returns the client for virtual IPs.
func (c *Clientset) VirtualIPs() client.VirtualIPs {
	return gentype.NewFakeClientWithList(&c.Fake, "",
		v1alpha1.GroupVersion.WithResource("virtualips"), v1alpha1.GroupVersion.WithKind("VirtualIP"),
		func() *v1alpha1.VirtualIP { return &v1alpha1.VirtualIP{} },
		func() *v1alpha1.VirtualIPList { return &v1alpha1.VirtualIPList{} },
		func(dst, src *v1alpha1.VirtualIPList) { dst.ListMeta = src.ListMeta },
		func(l *v1alpha1.VirtualIPList) []*v1alpha1.VirtualIP { return gentype.ToPointerSlice(l.Items) },
		func(l *v1alpha1.VirtualIPList, items []*v1alpha1.VirtualIP) {
			l.Items = gentype.FromPointerSlice(items)
		})
}

// BGPConfigurations returns the client for BGP configurations.
func (c *Clientset) BGPConfigurations() client.BGPConfigurations {
	return gentype.NewFakeClientWithList(&c.Fake, "",
		v1alpha1.GroupVersion.WithResource("bgpconfigurations"), v1alpha1.GroupVersion.WithKind("BGPConfiguration"),
		func() *v1alpha1.BGPConfiguration { return &v1alpha1.BGPConfiguration{} },
		func() *v1alpha1.BGPConfigurationList { return &v1alpha1.BGPConfigurationList{} },
		func(dst, src *v1alpha1.BGPConfigurationList) { dst.ListMeta = src.ListMeta },
		func(l *v1alpha1.BGPConfigurationList) []*v1alpha1.BGPConfiguration {
			return gentype.ToPointerSlice(l.Items)
		},
		func(l *v1alpha1.BGPConfigurationList, items []*v1alpha1.BGPConfiguration) {
			l.Items = gentype.FromPointerSlice(items)
		})
}

// BGPPeers returns the client for BGP peers.
func (c *Clientset) BGPPeers() client.BGPPeers {
	return gentype.NewFakeClientWithList(&c.Fake, "",
		v1alpha1.GroupVersion.WithResource("bgppeers"), v1alpha1.GroupVersion.WithKind("BGPPeer"),
		func() *v1alpha1.BGPPeer { return &v1alpha1.BGPPeer{} },
		func() *v1alpha1.BGPPeerList { return &v1alpha1.BGPPeerList{} },
		func(dst, src *v1alpha1.BGPPeerList) { dst.ListMeta = src.ListMeta },
		func(l *v1alpha1.BGPPeerList) []*v1alpha1.BGPPeer { return gentype.ToPointerSlice(l.Items) },
		func(l *v1alpha1.BGPPeerList, items []*v1alpha1.BGPPeer) { l.Items = gentype.FromPointerSlice(items) })
}

// BGPNodes returns the client for the BGP state of nodes.
func (c *Clientset) BGPNodes() client.BGPNodes {
	return gentype.NewFakeClientWithList(&c.Fake, "",
		v1alpha1.GroupVersion.WithResource("bgpnodes"), v1alpha1.GroupVersion.WithKind("BGPNode"),
		func() *v1alpha1.BGPNode { return &v1alpha1.BGPNode{} },
		func() *v1alpha1.BGPNodeList { return &v1alpha1.BGPNodeList{} },
		func(dst, src *v1alpha1.BGPNodeList) { dst.ListMeta = src.ListMeta },
		func(l *v1alpha1.BGPNodeList) []*v1alpha1.BGPNode { return gentype.ToPointerSlice(l.Items) },
		func(l *v1alpha1.BGPNodeList, items []*v1alpha1.BGPNode) { l.Items = gentype.FromPointerSlice(items) })
}

// react does what the API server does and the tracker does not: versions,
// conflicts, finalizers.
func (c *Clientset) react(a testing.Action) (bool, runtime.Object, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch a := a.(type) {
	case testing.CreateActionImpl:
		a.Object = a.Object.DeepCopyObject() // the caller's object stays as it was
		if err := c.stamp(a.Object, true); err != nil {
			return true, nil, err
		}
		return testing.ObjectReaction(c.tracker)(a)
	case testing.UpdateActionImpl:
		a.Object = a.Object.DeepCopyObject()
		if done, err := c.checkVersion(a); done || err != nil {
			return true, a.Object, err
		}
		return testing.ObjectReaction(c.tracker)(a)
	case testing.DeleteActionImpl:
		return c.delete(a)
	case testing.PatchActionImpl:
		if err := c.checkPatch(a); err != nil {
			return true, nil, err
		}
		handled, obj, err := testing.ObjectReaction(unwritten{c.tracker})(a)
		if err != nil || obj == nil {
			return handled, obj, err
		}
		if err := c.checkPatched(a, obj); err != nil {
			return true, nil, err
		}
		return true, obj, c.finish(a.GetResource(), obj)
	default:
		return testing.ObjectReaction(c.tracker)(a)
	}
}

// unwritten lets a patch be put together and not be stored: a watch would tell of the
// new content with the old version.
type unwritten struct{ testing.ObjectTracker }

func (unwritten) Patch(schema.GroupVersionResource, runtime.Object, string, ...metav1.PatchOptions) error {
	return nil
}

func (c *Clientset) stamp(o runtime.Object, created bool) error {
	m, err := meta.Accessor(o)
	if err != nil {
		return fmt.Errorf("fake object: %w", err)
	}
	c.version++
	m.SetResourceVersion(strconv.FormatInt(c.version, 10))
	if created {
		if m.GetUID() == "" {
			m.SetUID(types.UID(fmt.Sprintf("uid-%d", c.version)))
		}
		if t := m.GetCreationTimestamp(); t.IsZero() {
			m.SetCreationTimestamp(metav1.Now())
		}
	}
	return nil
}

// checkPatch refuses a patch that names another object's UID, or another
// version of the object.
func (c *Clientset) checkPatch(a testing.PatchActionImpl) error {
	var patch struct {
		Metadata struct {
			UID     types.UID `json:"uid"`
			Version string    `json:"resourceVersion"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(a.GetPatch(), &patch); err != nil || patch.Metadata.UID == "" && patch.Metadata.Version == "" {
		return nil //nolint:nilerr // not a merge patch of metadata: nothing to check
	}
	o, err := c.tracker.Get(a.GetResource(), "", a.GetName())
	if err != nil {
		return err
	}
	m, err := meta.Accessor(o)
	if err != nil {
		return fmt.Errorf("fake object: %w", err)
	}
	if v := patch.Metadata.Version; v != "" && v != m.GetResourceVersion() {
		return apierrors.NewConflict(a.GetResource().GroupResource(), a.GetName(), fmt.Errorf("have %s, want %s", m.GetResourceVersion(), v))
	}
	if patch.Metadata.UID != "" && m.GetUID() != patch.Metadata.UID {
		return apierrors.NewConflict(a.GetResource().GroupResource(), a.GetName(), fmt.Errorf("have UID %s, want %s", m.GetUID(), patch.Metadata.UID))
	}
	return nil
}

// checkPatched refuses a patch that has set another version than the object's.
func (c *Clientset) checkPatched(a testing.PatchActionImpl, patched runtime.Object) error {
	o, err := c.tracker.Get(a.GetResource(), "", a.GetName())
	if err != nil {
		return err
	}
	m, err := meta.Accessor(o)
	if err != nil {
		return fmt.Errorf("fake object: %w", err)
	}
	p, err := meta.Accessor(patched)
	if err != nil {
		return fmt.Errorf("fake object: %w", err)
	}
	if v := p.GetResourceVersion(); v != m.GetResourceVersion() {
		return apierrors.NewConflict(a.GetResource().GroupResource(), a.GetName(), fmt.Errorf("have %s, want %s", m.GetResourceVersion(), v))
	}
	return nil
}

// finish stores a changed object, or removes it when it waited for its last
// finalizer to go.
func (c *Clientset) finish(gvr schema.GroupVersionResource, o runtime.Object) error {
	m, err := meta.Accessor(o)
	if err != nil {
		return fmt.Errorf("fake object: %w", err)
	}
	if m.GetDeletionTimestamp() != nil && len(m.GetFinalizers()) == 0 {
		return c.tracker.Delete(gvr, "", m.GetName())
	}
	if err := c.stamp(o, false); err != nil {
		return err
	}
	return c.tracker.Update(gvr, o, "")
}

// checkVersion refuses a stale update and keeps the part of the object that
// the update is not about: the status, or everything but the status. It
// reports whether it has removed the object.
func (c *Clientset) checkVersion(a testing.UpdateActionImpl) (bool, error) {
	m, err := meta.Accessor(a.Object)
	if err != nil {
		return false, fmt.Errorf("fake object: %w", err)
	}
	old, err := c.tracker.Get(a.GetResource(), "", m.GetName())
	if err != nil {
		return false, err
	}
	om, err := meta.Accessor(old)
	if err != nil {
		return false, fmt.Errorf("fake object: %w", err)
	}
	if rv := m.GetResourceVersion(); rv != "" && rv != om.GetResourceVersion() {
		return false, apierrors.NewConflict(a.GetResource().GroupResource(), m.GetName(), fmt.Errorf("have %s, want %s", rv, om.GetResourceVersion()))
	}
	keepOtherPart(a.Object, old, a.GetSubresource())
	if om.GetDeletionTimestamp() != nil && len(m.GetFinalizers()) == 0 {
		return true, c.tracker.Delete(a.GetResource(), "", m.GetName())
	}
	return false, c.stamp(a.Object, false)
}

func keepOtherPart(o, old runtime.Object, subresource string) {
	switch n := o.(type) {
	case *v1alpha1.VirtualIP:
		if subresource == "status" {
			n.Spec = old.(*v1alpha1.VirtualIP).Spec
		} else {
			n.Status = old.(*v1alpha1.VirtualIP).Status
		}
	case *v1alpha1.AddressPool:
		if subresource == "status" {
			n.Spec = old.(*v1alpha1.AddressPool).Spec
		} else {
			n.Status = old.(*v1alpha1.AddressPool).Status
		}
	}
}

func (c *Clientset) delete(a testing.DeleteActionImpl) (bool, runtime.Object, error) {
	o, err := c.tracker.Get(a.GetResource(), "", a.GetName())
	if err != nil {
		return true, nil, err
	}
	m, err := meta.Accessor(o)
	if err != nil {
		return true, nil, fmt.Errorf("fake object: %w", err)
	}
	if p := a.GetDeleteOptions().Preconditions; p != nil && p.ResourceVersion != nil && *p.ResourceVersion != m.GetResourceVersion() {
		return true, nil, apierrors.NewConflict(a.GetResource().GroupResource(), a.GetName(), fmt.Errorf("have %s, want %s", *p.ResourceVersion, m.GetResourceVersion()))
	}
	if len(m.GetFinalizers()) == 0 {
		return true, nil, c.tracker.Delete(a.GetResource(), "", a.GetName())
	}
	if m.GetDeletionTimestamp() == nil {
		now := metav1.Now()
		m.SetDeletionTimestamp(&now)
		if err := c.stamp(o, false); err != nil {
			return true, nil, err
		}
		return true, nil, c.tracker.Update(a.GetResource(), o, "")
	}
	return true, nil, nil
}
