package one

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/OpenNebula/one/src/oca/go/src/goca/parameters"

	"github.com/onelb/onelb/ipam"
)

// Find implements ipam.Networks.
func (c *Client) Find(ctx context.Context, q ipam.NetworkQuery) (ipam.Network, error) {
	if q.ID != nil {
		return c.Get(ctx, *q.ID)
	}
	pool, err := c.networkPool(ctx, parameters.PoolWhoAll)
	if err != nil {
		return ipam.Network{}, fmt.Errorf("find virtual network %s: %w", describe(q), err)
	}
	pool = slices.DeleteFunc(pool, func(n poolEntry) bool {
		return n.name != q.Name || q.Owner != "" && n.owner != q.Owner
	})
	switch len(pool) {
	case 0:
		return ipam.Network{}, fmt.Errorf("virtual network %s: %w: none of that name is visible to the OpenNebula user; check the name, and that the user has USE on it",
			describe(q), ipam.ErrNotFound)
	case 1:
		return c.getListed(ctx, pool[0])
	}
	return ipam.Network{}, fmt.Errorf("virtual network %s: %w: choose by ID or owner: %s", describe(q), ipam.ErrAmbiguous, listEntries(pool))
}

func describe(q ipam.NetworkQuery) string {
	if q.Owner == "" {
		return strconv.Quote(q.Name)
	}
	return fmt.Sprintf("%q of owner %q", q.Name, q.Owner)
}

func listEntries(pool []poolEntry) string {
	texts := make([]string, len(pool))
	for i, n := range pool {
		texts[i] = fmt.Sprintf("ID %d owned by %s", n.id, n.owner)
	}
	return strings.Join(texts, ", ")
}

// Get implements ipam.Networks.
func (c *Client) Get(ctx context.Context, id ipam.NetworkID) (ipam.Network, error) {
	body, err := c.callText(ctx, "one.vn.info", int(id), false)
	if errors.Is(err, ipam.ErrNotFound) {
		c.spellings.forget(id)
	}
	if err != nil {
		return ipam.Network{}, fmt.Errorf("read virtual network %d: %w", id, err)
	}
	n, err := parseNetwork([]byte(body))
	if err == nil && n.ID != id {
		err = fmt.Errorf("it describes network %d", n.ID)
	}
	if err != nil {
		return ipam.Network{}, fmt.Errorf("read virtual network %d: %w", id, c.malformed("one.vn.info", err))
	}
	c.spellings.learn(n)
	return n, nil
}

// getListed reads a network that the pool has just listed. oned cannot load a
// network that has more leases than its ranges have addresses, and says that it
// does not exist.
func (c *Client) getListed(ctx context.Context, e poolEntry) (ipam.Network, error) {
	n, err := c.Get(ctx, e.id)
	if errors.Is(err, ipam.ErrNotFound) {
		return n, fmt.Errorf("virtual network %q is listed but cannot be loaded; it was deleted just now, or its record in OpenNebula's database is damaged: %w", e.name, err)
	}
	return n, err
}

// FindReservation implements ipam.Networks.
func (c *Client) FindReservation(ctx context.Context, name string) (ipam.Network, error) {
	pool, err := c.networkPool(ctx, parameters.PoolWhoMine)
	if err != nil {
		return ipam.Network{}, fmt.Errorf("find reservation %q: %w", name, err)
	}
	i := slices.IndexFunc(pool, func(n poolEntry) bool { return n.name == name }) // unique per owner
	if i < 0 {
		return ipam.Network{}, fmt.Errorf("reservation %q: %w: our OpenNebula user owns none of that name", name, ipam.ErrNotFound)
	}
	n, err := c.getListed(ctx, pool[i])
	if err == nil && n.Parent == ipam.NoNetwork {
		return ipam.Network{}, fmt.Errorf("reservation %q: %w: our OpenNebula user owns virtual network %d of that name, which is no reservation; rename it",
			name, ipam.ErrExists, n.ID)
	}
	return n, err
}

// Reservations implements ipam.Inventory.
func (c *Client) Reservations(ctx context.Context) ([]ipam.Reservation, error) {
	body, err := c.callText(ctx, "one.vnpool.info", parameters.PoolWhoMine, -1, -1)
	if err != nil {
		return nil, fmt.Errorf("list our reservations: %w", err)
	}
	list, err := parseReservations([]byte(body))
	if err != nil {
		return nil, fmt.Errorf("list our reservations: %w", c.malformed("one.vnpool.info", err))
	}
	return list, nil
}

func (c *Client) networkPool(ctx context.Context, who int) ([]poolEntry, error) {
	body, err := c.callText(ctx, "one.vnpool.info", who, -1, -1)
	if err != nil {
		return nil, err
	}
	pool, err := parseNetworkPool([]byte(body))
	if err != nil {
		return nil, c.malformed("one.vnpool.info", err)
	}
	return pool, nil
}

// FreeRange implements ipam.Networks.
func (c *Client) FreeRange(ctx context.Context, id ipam.NetworkID, r ipam.RangeID) error {
	if _, err := c.callID(ctx, "one.vn.free_ar", int(id), int(r)); err != nil {
		return fmt.Errorf("free range %d of reservation %d: %w", r, id, err)
	}
	return nil
}

// DeleteReservation implements ipam.Networks. It reads the network first: with the
// rights of an administrator one.vn.delete would delete any network without leases.
func (c *Client) DeleteReservation(ctx context.Context, id ipam.NetworkID) error {
	n, err := c.Get(ctx, id)
	switch {
	case errors.Is(err, ipam.ErrNotFound):
		return nil
	case err != nil:
		return fmt.Errorf("delete reservation %d: %w", id, err)
	case n.Parent == ipam.NoNetwork:
		return fmt.Errorf("delete reservation %d: virtual network %q of %s is no reservation", id, n.Name, n.Owner)
	case n.State == "LOCK_DELETE":
		return nil
	case n.State == "LOCK_CREATE":
		return fmt.Errorf("delete reservation %d: %w: it is being made", id, ipam.ErrNotReady)
	}
	if _, err := c.callID(ctx, "one.vn.delete", int(id)); err != nil && !errors.Is(err, ipam.ErrNotFound) {
		return fmt.Errorf("delete reservation %d: %w", id, err)
	}
	return nil
}

// Annotate implements ipam.Networks.
func (c *Client) Annotate(ctx context.Context, id ipam.NetworkID, attributes map[string]string) error {
	if len(attributes) == 0 {
		return nil
	}
	template, err := encodeTemplate(singles(attributes)...)
	if err != nil {
		return fmt.Errorf("annotate virtual network %d: %w", id, err)
	}
	// Merge, never Replace: for a plain user that drops GATEWAY, NETWORK_MASK,
	// DNS and SECURITY_GROUPS of the network.
	if _, err := c.callID(ctx, "one.vn.update", int(id), template, int(parameters.Merge)); err != nil {
		return fmt.Errorf("annotate virtual network %d: %w", id, err)
	}
	return nil
}

// AnnotateRange implements ipam.Networks. one.vn.update_ar keeps type, addresses,
// size and leases of the range, and replaces everything else.
func (c *Client) AnnotateRange(ctx context.Context, id ipam.NetworkID, r ipam.RangeID, attributes map[string]string) error {
	attributes, err := c.withPrefixes(ctx, id, r, attributes)
	if err != nil {
		return fmt.Errorf("annotate range %d of virtual network %d: %w", r, id, err)
	}
	members := append([]attribute{{name: "AR_ID", value: strconv.Itoa(int(r))}}, singles(attributes)...)
	template, err := encodeTemplate(attribute{name: "AR", members: members})
	if err != nil {
		return fmt.Errorf("annotate range %d of virtual network %d: %w", r, id, err)
	}
	if _, err := c.callID(ctx, "one.vn.update_ar", int(id), template); err != nil {
		return fmt.Errorf("annotate range %d of virtual network %d: %w", r, id, err)
	}
	return nil
}

// Hold implements ipam.Networks.
func (c *Client) Hold(ctx context.Context, id ipam.NetworkID, a netip.Addr) error {
	return c.lease(ctx, "hold", id, a)
}

// Release implements ipam.Networks.
func (c *Client) Release(ctx context.Context, id ipam.NetworkID, a netip.Addr) error {
	return c.lease(ctx, "release", id, a)
}

func (c *Client) lease(ctx context.Context, verb string, id ipam.NetworkID, a netip.Addr) error {
	members, err := c.leaseOf(ctx, id, a)
	if err != nil {
		return fmt.Errorf("%s %q in virtual network %d: %w", verb, a, id, err)
	}
	template, err := encodeTemplate(attribute{name: "LEASES", members: members})
	if err != nil {
		return fmt.Errorf("%s %s in virtual network %d: %w", verb, a, id, err)
	}
	if _, err := c.callID(ctx, "one.vn."+verb, int(id), template); err != nil {
		return fmt.Errorf("%s %s in virtual network %d: %w", verb, a, id, err)
	}
	return nil
}

// addressAttribute is IP=... or IP6=.... oned takes release of nonsense for
// success, so nonsense must not get there.
func addressAttribute(a netip.Addr) (attribute, error) {
	a = a.Unmap()
	switch {
	case !a.IsValid() || a.Zone() != "":
		return attribute{}, errors.New("that is no address of a virtual network")
	case a.Is4():
		return attribute{name: "IP", value: a.String()}, nil
	}
	return attribute{name: "IP6", value: a.String()}, nil
}
