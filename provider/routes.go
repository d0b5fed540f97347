package provider

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"k8s.io/apimachinery/pkg/types"
	cloudprovider "k8s.io/cloud-provider"
)

// routesWithin bounds one call of the route controller.
const routesWithin = 30 * time.Second

// routes implements cloudprovider.Routes on the routers' documents. Routes follow
// the Nodes by themselves: the calls only wait until the routers have what they
// are to have, and say what that is.
type routes struct{ balancer *lateBalancer }

var _ cloudprovider.Routes = routes{}

// Routes is supported if a router is to have routes to pods and the cluster's pod
// networks are known (--cluster-cidr), without which the library's controller does
// not start.
func (c *Cloud) Routes() (cloudprovider.Routes, bool) {
	for _, r := range c.config.Routers {
		if r.PodRoutes && c.options.ClusterCIDR != "" {
			return routes{c.balancer}, true
		}
	}
	return nil, false
}

// ListRoutes implements cloudprovider.Routes.
func (r routes) ListRoutes(ctx context.Context, _ string) ([]*cloudprovider.Route, error) {
	ctx, cancel := context.WithTimeout(ctx, routesWithin)
	defer cancel()
	b, err := r.balancer.get(ctx)
	if err != nil {
		return nil, err
	}
	have, err := b.PodRoutes(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]*cloudprovider.Route, 0, len(have))
	for _, h := range have {
		out = append(out, &cloudprovider.Route{
			Name: h.Destination.String(), TargetNode: types.NodeName(h.Node), DestinationCIDR: h.Destination.String(),
		})
	}
	return out, nil
}

// CreateRoute implements cloudprovider.Routes: it waits for the route.
func (r routes) CreateRoute(ctx context.Context, cluster, _ string, want *cloudprovider.Route) error {
	to, err := netip.ParsePrefix(want.DestinationCIDR)
	if err != nil {
		return fmt.Errorf("route to node %s: %w", want.TargetNode, err)
	}
	have, err := r.ListRoutes(ctx, cluster)
	if err != nil {
		return err
	}
	for _, h := range have {
		if h.DestinationCIDR == to.Masked().String() && h.TargetNode == want.TargetNode {
			return nil
		}
	}
	return fmt.Errorf("no route to %s of node %s: it needs that network in spec.podCIDRs, which no other node has, and an InternalIP of its family", to, want.TargetNode)
}

// DeleteRoute implements cloudprovider.Routes: the route has gone with its Node.
func (r routes) DeleteRoute(ctx context.Context, cluster string, _ *cloudprovider.Route) error {
	_, err := r.ListRoutes(ctx, cluster)
	return err
}
