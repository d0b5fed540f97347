package one

import (
	"context"
	"fmt"

	"github.com/OpenNebula/one/src/oca/go/src/goca/parameters"

	"github.com/onelb/onelb/ipam"
)

// Listed is a virtual network as a list tells it: without ranges and leases.
type Listed struct {
	ID     ipam.NetworkID
	Name   string
	Owner  string         // name of the OpenNebula user
	Parent ipam.NetworkID // ipam.NoNetwork unless it is a reservation
	// Attributes are the single-valued ones of the template.
	Attributes map[string]string
}

// Networks lists all virtual networks that our user may use, sorted by ID. It is
// one call.
func (c *Client) Networks(ctx context.Context) ([]Listed, error) {
	return c.list(ctx, parameters.PoolWhoAll)
}

// OwnNetworks lists those that belong to our user, reservations among them.
func (c *Client) OwnNetworks(ctx context.Context) ([]Listed, error) {
	return c.list(ctx, parameters.PoolWhoMine)
}

func (c *Client) list(ctx context.Context, who int) ([]Listed, error) {
	pool, err := c.networkPool(ctx, who)
	if err != nil {
		return nil, fmt.Errorf("list virtual networks: %w", err)
	}
	out := make([]Listed, 0, len(pool))
	for _, e := range pool {
		out = append(out, Listed{ID: e.id, Name: e.name, Owner: e.owner, Parent: e.parent, Attributes: e.attributes})
	}
	return out, nil
}
