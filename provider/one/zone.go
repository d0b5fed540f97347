package one

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"

	"github.com/onelb/onelb/ipam"
)

// Place is where machines run: a host, or a cluster of hosts.
type Place struct {
	Name string
	// Attributes are the single-valued attributes of its template.
	Attributes map[string]string
}

// Cluster reads an OpenNebula cluster. It is ipam.ErrNotFound if our user may not
// see the cluster, which a plain user may not. It may be some minutes old.
func (c *Client) Cluster(ctx context.Context, id int) (Place, error) {
	return c.place(ctx, c.clusters, "cluster", id)
}

// Host reads a host, with the limits of Cluster. A machine tells the name of its
// host by itself.
func (c *Client) Host(ctx context.Context, id int) (Place, error) {
	return c.place(ctx, c.hosts, "host", id)
}

func (c *Client) place(ctx context.Context, from *cached[map[int]Place], kind string, id int) (Place, error) {
	places, err := from.get(ctx)
	if err != nil {
		return Place{}, fmt.Errorf("read %s %d: %w", kind, id, err)
	}
	p, ok := places[id]
	if !ok {
		return Place{}, fmt.Errorf("read %s %d: %w: our OpenNebula user sees no such %s; USE on it is needed", kind, id, ipam.ErrNotFound, kind)
	}
	return p, nil
}

func (c *Client) readClusters(ctx context.Context) (map[int]Place, error) {
	return c.places(ctx, "one.clusterpool.info", "CLUSTER_POOL", "CLUSTER")
}

func (c *Client) readHosts(ctx context.Context) (map[int]Place, error) {
	return c.places(ctx, "one.hostpool.info", "HOST_POOL", "HOST")
}

// ZoneName names the OpenNebula zone that the endpoint belongs to.
func (c *Client) ZoneName(ctx context.Context) (string, error) {
	name, err := c.zone.get(ctx)
	if err != nil {
		return "", fmt.Errorf("name of the OpenNebula zone: %w", err)
	}
	return name, nil
}

func (c *Client) readZone(ctx context.Context) (string, error) {
	zones, err := c.places(ctx, "one.zonepool.info", "ZONE_POOL", "ZONE")
	if err != nil {
		return "", err
	}
	ids := slices.Sorted(maps.Keys(zones))
	switch len(ids) {
	case 0:
		return "", fmt.Errorf("%w: OpenNebula lists no zone", ipam.ErrNotFound)
	case 1:
		return zones[ids[0]].Name, nil
	}
	body, err := c.callText(ctx, "one.system.config")
	if err != nil {
		return "", err
	}
	id, err := parseZoneID([]byte(body))
	if err != nil {
		return "", c.malformed("one.system.config", err)
	}
	if zone, ok := zones[id]; ok {
		return zone.Name, nil
	}
	return "", fmt.Errorf("%w: OpenNebula does not list its own zone %d", ipam.ErrNotFound, id)
}

// places reads a pool that has no filter: all that our user may see.
func (c *Client) places(ctx context.Context, method, pool, element string) (map[int]Place, error) {
	body, err := c.callText(ctx, method)
	if err != nil {
		return nil, err
	}
	places, err := parsePlaces([]byte(body), pool, element)
	if err != nil {
		return nil, c.malformed(method, err)
	}
	return places, nil
}

// versionText is what OpenNebula calls itself: 7.5.80, 6.10.0.1.
var versionText = regexp.MustCompile(`^[0-9]+\.[0-9]+[0-9A-Za-z.~+-]*$`)

// Check asks for the version, which needs no right but valid credentials, and
// returns it. Its errors are made to be shown to who has just configured endpoint
// and credentials.
func (c *Client) Check(ctx context.Context) (string, error) {
	version, err := c.callText(ctx, "one.system.version")
	switch {
	case errors.Is(err, ipam.ErrUnauthenticated):
		return "", fmt.Errorf("OpenNebula refuses our credentials: %w", err)
	case err != nil:
		return "", fmt.Errorf("OpenNebula does not answer: %w", err)
	case !versionText.MatchString(version):
		return "", fmt.Errorf("not an OpenNebula endpoint: %w", c.malformed("one.system.version", fmt.Errorf("version %.40q", version)))
	}
	return version, nil
}
