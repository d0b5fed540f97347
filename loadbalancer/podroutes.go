package loadbalancer

import (
	"context"
	"fmt"
	"net/netip"
)

// PodRoute is a route that routers have to the pods of a node.
type PodRoute struct {
	Node        string
	Destination netip.Prefix
	Gateway     netip.Addr
}

// PodRoutes returns, once all routers that are to have routes run them, the
// routes to the nodes' pods. They follow the Nodes by themselves, as documents do.
// It blocks until ctx ends if a router cannot be reached.
func (c *Controller) PodRoutes(ctx context.Context) ([]PodRoute, error) {
	if err := c.waitReady(ctx); err != nil {
		return nil, err
	}
	for _, name := range c.o.PodRoutes {
		rs := c.routers[name]
		if rs == nil {
			return nil, fmt.Errorf("router %q is not in the cloud-config file", name)
		}
		if _, err := rs.Sync(ctx); err != nil {
			return nil, err
		}
	}
	routes, _ := podRoutes(c.nodes()) // what is wrong with a node is told with each document
	out := make([]PodRoute, 0, len(routes))
	for _, r := range routes {
		out = append(out, PodRoute{Node: r.node, Destination: r.Destination, Gateway: r.Gateway})
	}
	return out, nil
}
