package one

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strconv"

	"github.com/onelb/onelb/ipam"
)

// Reserve implements ipam.Networks. With a First address it reads the parent
// again and makes sure that the run is inside the range, since oned does not: a
// run past the end makes the parent unreadable for everybody.
func (c *Client) Reserve(ctx context.Context, r ipam.ReserveRequest) (ipam.NetworkID, error) {
	id, err := c.reserve(ctx, r)
	if err != nil {
		return ipam.NoNetwork, fmt.Errorf("reserve %d addresses of virtual network %d for %s: %w", r.Size, r.Parent, target(r), err)
	}
	return id, nil
}

func (c *Client) reserve(ctx context.Context, r ipam.ReserveRequest) (ipam.NetworkID, error) {
	attributes, err := reserveAttributes(r)
	if err != nil {
		return ipam.NoNetwork, err
	}
	if r.First.IsValid() {
		parent, err := c.Get(ctx, r.Parent)
		if err != nil {
			return ipam.NoNetwork, err
		}
		from, err := checkRun(parent, r)
		if err != nil {
			return ipam.NoNetwork, err
		}
		which, err := nameIn(from, r.First)
		if err != nil {
			return ipam.NoNetwork, err
		}
		attributes = append(attributes, which)
	}
	template, err := encodeTemplate(attributes...)
	if err != nil {
		return ipam.NoNetwork, err
	}
	id, err := c.callID(ctx, "one.vn.reserve", int(r.Parent), template)
	return ipam.NetworkID(id), err
}

// reserveAttributes makes the template of a request, but for the First address.
func reserveAttributes(r ipam.ReserveRequest) ([]attribute, error) {
	if r.Size < 1 {
		return nil, errors.New("size must be at least 1")
	}
	if r.Range < 0 {
		return nil, errors.New("the range to reserve from is missing")
	}
	out := []attribute{
		{name: "SIZE", value: strconv.Itoa(r.Size)},
		{name: "AR_ID", value: strconv.Itoa(int(r.Range))},
	}
	switch {
	case r.Into != ipam.NoNetwork:
		out = append(out, attribute{name: "NETWORK_ID", value: strconv.Itoa(int(r.Into))})
	case r.Name == "":
		return nil, errors.New("a new reservation needs a name")
	default:
		out = append(out, attribute{name: "NAME", value: r.Name})
	}
	return out, nil
}

// checkRun makes sure that Size addresses from First lie in the range, and
// returns it.
func checkRun(parent ipam.Network, r ipam.ReserveRequest) (ipam.Range, error) {
	i := slices.IndexFunc(parent.Ranges, func(x ipam.Range) bool { return x.ID == r.Range })
	if i < 0 {
		return ipam.Range{}, fmt.Errorf("range %d: %w", r.Range, ipam.ErrNotFound)
	}
	first := parent.Ranges[i].First4
	if r.First.Unmap().Is6() {
		first = parent.Ranges[i].First6
	}
	offset, ok := distance(first, r.First.Unmap())
	size := parent.Ranges[i].Size
	if !ok || offset >= size || r.Size > size-offset {
		return ipam.Range{}, fmt.Errorf("%d addresses from %s are not all in range %d (%d addresses from %s): %w",
			r.Size, r.First, r.Range, size, first, ipam.ErrNoSpace)
	}
	return parent.Ranges[i], nil
}

// distance is b - a, if both are of one family, b is not before a and the
// difference is an int32: no range of OpenNebula is larger.
func distance(a, b netip.Addr) (int, bool) {
	if !a.IsValid() || !b.IsValid() || a.Is4() != b.Is4() {
		return 0, false
	}
	var d big.Int
	d.Sub(new(big.Int).SetBytes(b.AsSlice()), new(big.Int).SetBytes(a.AsSlice()))
	if d.Sign() < 0 || d.BitLen() > 31 {
		return 0, false
	}
	return int(d.Int64()), true
}

// target says in a message where the addresses were to go.
func target(r ipam.ReserveRequest) string {
	if r.Into != ipam.NoNetwork {
		return fmt.Sprintf("reservation %d", r.Into)
	}
	return fmt.Sprintf("new reservation %q", r.Name)
}
