package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/api/client"
	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/announcer"
)

const (
	// patience is how long the API server may take before the state on disk
	// decides what is taken.
	patience = 2 * time.Second
	// rebuildInterval makes one rebuild of many changes. While changes go on and on,
	// rebuilds are so far apart that they take a small share of the time: each of them,
	// and what the engine makes of it, looks at all addresses. A single change never
	// waits for longer than rebuildInterval.
	rebuildInterval = 10 * time.Millisecond
	rebuildRest     = 200 * time.Microsecond // for each address
	rebuildMost     = 200 * time.Millisecond
	serviceIndex    = "service"
)

// source watches the API server and hands on what it says.
type source struct {
	vips, nodes, endpoints cache.SharedIndexInformer
	changed                chan struct{}
	cordoned               bool // cordoned nodes count as draining

	mu    sync.Mutex      // guards local
	local map[string]bool // the Services whose EndpointSlices matter, by namespace/name
}

func newSource(kube kube, onelb client.Interface, cordoned bool) (*source, error) {
	s := &source{
		vips:  client.NewVirtualIPInformer(onelb, 0),
		nodes: cache.NewSharedIndexInformer(kube.Nodes(), &corev1.Node{}, 0, cache.Indexers{}),
		endpoints: cache.NewSharedIndexInformer(kube.EndpointSlices(), &discoveryv1.EndpointSlice{}, 0, cache.Indexers{
			serviceIndex: func(obj any) ([]string, error) {
				e, ok := obj.(*discoveryv1.EndpointSlice)
				if !ok {
					return nil, fmt.Errorf("%T is not an EndpointSlice", obj)
				}
				return []string{sliceService(e)}, nil
			}}),
		changed: make(chan struct{}, 1), cordoned: cordoned,
	}
	for informer, trim := range map[cache.SharedIndexInformer]cache.TransformFunc{
		s.vips: trimVirtualIP, s.nodes: trimNode, s.endpoints: trimSlice,
	} {
		if err := informer.SetTransform(trim); err != nil {
			return nil, fmt.Errorf("set up informer: %w", err)
		}
		if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(obj any) { s.heard(nil, obj) },
			UpdateFunc: s.heard,
			DeleteFunc: func(obj any) { s.heard(nil, obj) },
		}); err != nil {
			return nil, fmt.Errorf("set up informer: %w", err)
		}
	}
	return s, nil
}

// heard wakes Run, unless what has changed is of no concern to it: what kubelets and
// the cloud-controller-manager write again and again, and the EndpointSlices of Services
// whose nodes do not matter.
func (s *source) heard(before, obj any) {
	if (before == nil || !same(before, obj)) && (s.matters(before) || s.matters(obj)) {
		s.wake()
	}
}

// matters reports whether translate looks at the object. It leaves out the EndpointSlices
// of most Services.
func (s *source) matters(obj any) bool {
	if e, ok := obj.(*discoveryv1.EndpointSlice); ok {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.local[sliceService(e)]
	}
	return obj != nil
}

// sliceService is the Service of an EndpointSlice, as namespace/name.
func sliceService(e *discoveryv1.EndpointSlice) string {
	return e.Namespace + "/" + e.Labels[discoveryv1.LabelServiceName]
}

func (s *source) wake() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *source) synced() bool {
	return s.vips.HasSynced() && s.nodes.HasSynced() && s.endpoints.HasSynced()
}

// Run watches until ctx is done. It calls give with each state of the cluster,
// and late once if the API server has not answered in time.
func (s *source) Run(ctx context.Context, give func(*announcer.Cluster), late func()) error {
	var watches sync.WaitGroup
	defer watches.Wait()
	for _, i := range []cache.SharedIndexInformer{s.vips, s.nodes, s.endpoints} {
		watches.Go(func() { i.RunWithContext(ctx) })
	}
	logger := klog.FromContext(ctx)
	overdue := time.NewTimer(patience)
	defer overdue.Stop()
	poll := time.NewTicker(rebuildInterval) // until all have synced
	defer poll.Stop()
	for !s.synced() {
		select {
		case <-ctx.Done():
			return nil
		case <-overdue.C:
			logger.Info("The API server does not answer; going on with what it said last")
			late()
		case <-poll.C:
		}
	}
	for {
		c := s.build(logger)
		give(c)
		next := time.Now().Add(restAfter(len(c.Addresses)))
		select {
		case <-ctx.Done():
			return nil
		case <-s.changed:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(max(rebuildInterval, time.Until(next))):
		}
	}
}

// restAfter is how long to leave a rebuild of so many addresses at least to the next one.
func restAfter(addresses int) time.Duration {
	return min(time.Duration(addresses)*rebuildRest, rebuildMost)
}

func (s *source) build(logger klog.Logger) *announcer.Cluster {
	vips := list[*v1alpha1.VirtualIP](s.vips)
	local := localServices(vips)
	s.mu.Lock()
	s.local = local // before the EndpointSlices are read: a later one wakes Run again
	s.mu.Unlock()
	return translate(logger, s.cordoned, list[*corev1.Node](s.nodes), vips, s.slicesOf(logger))
}

func (s *source) slicesOf(logger klog.Logger) slicesOf {
	return func(namespace, service string) []*discoveryv1.EndpointSlice {
		found, err := s.endpoints.GetIndexer().ByIndex(serviceIndex, namespace+"/"+service)
		if err != nil {
			logger.Error(err, "Could not look up EndpointSlices")
		}
		return cast[*discoveryv1.EndpointSlice](found)
	}
}

func list[T any](i cache.SharedIndexInformer) []T { return cast[T](i.GetStore().List()) }

func cast[T any](objects []any) []T {
	out := make([]T, 0, len(objects))
	for _, o := range objects {
		if t, ok := o.(T); ok {
			out = append(out, t)
		}
	}
	return out
}
