package provider

import (
	"context"
	"errors"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/loadbalancer/offer"
	"github.com/onelb/onelb/provider/one"
)

// offers is what OpenNebula's networks say about pools.
type offers struct{ one *one.Client }

// Networks implements offer.Source. Reservations inherit what their network
// says, and ours are signed with the same attributes: they are left out.
func (o offers) Networks(ctx context.Context) ([]offer.Network, error) {
	all, err := o.one.Networks(ctx)
	if err != nil {
		return nil, err
	}
	var out []offer.Network
	for _, n := range all {
		if n.Parent != ipam.NoNetwork || n.Attributes[ipam.AttributeClusterUID] != "" {
			continue
		}
		out = append(out, offer.Network{ID: int32(n.ID), Name: n.Name, Owner: n.Owner, Attributes: n.Attributes}) //nolint:gosec // OpenNebula's IDs are 32 bits
	}
	return out, nil
}

// Report implements offer.Source.
func (o offers) Report(ctx context.Context, network int32, attribute, text string) error {
	err := o.one.Annotate(ctx, ipam.NetworkID(network), map[string]string{attribute: text})
	if errors.Is(err, ipam.ErrDenied) || errors.Is(err, ipam.ErrNotFound) {
		return nil // USE is all that we need, and all that most users have
	}
	return err
}
