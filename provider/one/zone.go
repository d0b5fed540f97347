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

// ClusterName names an OpenNebula cluster. It is ipam.ErrNotFound if our user may
// not see the cluster, which a plain user may not.
func (c *Client) ClusterName(ctx context.Context, id int) (string, error) {
	names, err := c.clusters.get(ctx)
	if err != nil {
		return "", fmt.Errorf("name of cluster %d: %w", id, err)
	}
	name, ok := names[id]
	if !ok {
		return "", fmt.Errorf("name of cluster %d: %w: our OpenNebula user sees no such cluster; USE on it is needed", id, ipam.ErrNotFound)
	}
	return name, nil
}

func (c *Client) readClusters(ctx context.Context) (map[int]string, error) {
	return c.names(ctx, "one.clusterpool.info", "CLUSTER_POOL", "CLUSTER")
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
	zones, err := c.names(ctx, "one.zonepool.info", "ZONE_POOL", "ZONE")
	if err != nil {
		return "", err
	}
	ids := slices.Sorted(maps.Keys(zones))
	switch len(ids) {
	case 0:
		return "", fmt.Errorf("%w: OpenNebula lists no zone", ipam.ErrNotFound)
	case 1:
		return zones[ids[0]], nil
	}
	body, err := c.callText(ctx, "one.system.config")
	if err != nil {
		return "", err
	}
	id, err := parseZoneID([]byte(body))
	if err != nil {
		return "", c.malformed("one.system.config", err)
	}
	if name, ok := zones[id]; ok {
		return name, nil
	}
	return "", fmt.Errorf("%w: OpenNebula does not list its own zone %d", ipam.ErrNotFound, id)
}

// names reads a pool that has no filter: all that our user may see.
func (c *Client) names(ctx context.Context, method, pool, element string) (map[int]string, error) {
	body, err := c.callText(ctx, method)
	if err != nil {
		return nil, err
	}
	names, err := parseNames([]byte(body), pool, element)
	if err != nil {
		return nil, c.malformed(method, err)
	}
	return names, nil
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
