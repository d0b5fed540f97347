package loadbalancer

import (
	"cmp"
	"fmt"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/onelb/onelb/api/v1alpha1"
)

// byService indexes EndpointSlices by namespace/name of their Service.
const byService = "onelb-service"

// AddSliceIndex adds the index that the controller needs to an informer of
// EndpointSlices. Call it before the informer runs.
func AddSliceIndex(inf cache.SharedIndexInformer) error {
	err := inf.AddIndexers(cache.Indexers{byService: func(obj any) ([]string, error) {
		s, ok := obj.(*discoveryv1.EndpointSlice)
		if !ok || s.Labels[discoveryv1.LabelServiceName] == "" {
			return nil, nil
		}
		return []string{s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName]}, nil
	}})
	if err != nil {
		return fmt.Errorf("index EndpointSlices by Service: %w", err)
	}
	return nil
}

// slices returns the EndpointSlices of a Service, sorted by name.
func (c *Controller) slices(ref v1alpha1.ServiceReference) []*discoveryv1.EndpointSlice {
	objs, err := c.o.EndpointSlices.GetIndexer().ByIndex(byService, ref.Namespace+"/"+ref.Name)
	if err != nil {
		return nil // the index is missing: a programming error that tests see
	}
	out := make([]*discoveryv1.EndpointSlice, 0, len(objs))
	for _, obj := range objs {
		if s, ok := obj.(*discoveryv1.EndpointSlice); ok {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b *discoveryv1.EndpointSlice) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
