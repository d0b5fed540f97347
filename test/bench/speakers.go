package bench

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/onelb/onelb/loadbalancer/bgp"
)

// SpeakersCommand is the first argument with which the program is the BGP half of
// agents that the lab has no nodes for, and nothing else: see Speakers.
const SpeakersCommand = "speakers"

// manyFirst is the first of the addresses that are announced by many.
var manyFirst = netip.MustParseAddr("10.64.0.1")

// manyAddresses are so many addresses.
func manyAddresses(n int) []netip.Addr {
	out := make([]netip.Addr, 0, n)
	for a := manyFirst; len(out) < n; a = a.Next() {
		out = append(out, a)
	}
	return out
}

// Speakers announces routes to a peer, from each of several addresses, as as many
// agents do, until ctx is done. args are the peer, how many routes, and the addresses
// with commas between.
func Speakers(ctx context.Context, args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("%s: want PEER ROUTES ADDRESSES, got %q", SpeakersCommand, args)
	}
	peer, err := netip.ParseAddr(args[0])
	if err != nil {
		return fmt.Errorf("peer: %w", err)
	}
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return fmt.Errorf("number of routes: %w", err)
	}
	var routes []bgp.Route
	for _, a := range manyAddresses(count) {
		routes = append(routes, bgp.Route{Prefix: netip.PrefixFrom(a, a.BitLen()), Attributes: &bgp.Attributes{}})
	}
	g, ctx := errgroup.WithContext(ctx)
	for text := range strings.SplitSeq(args[2], ",") {
		own, err := netip.ParseAddr(text)
		if err != nil {
			return fmt.Errorf("address: %w", err)
		}
		m, err := bgp.NewMetrics(prometheus.NewRegistry())
		if err != nil {
			return err
		}
		s, err := bgp.New(bgp.Options{Metrics: m})
		if err != nil {
			return err
		}
		s.Set(&bgp.Desired{
			Global: bgp.Global{ASN: nodesASN, RouterID: own, NextHops: [2]netip.Addr{own}},
			Peers: []bgp.Peer{{
				Name: "rack", Address: peer, Port: 179, ASN: routerASN, Source: own, HoldTime: 90 * time.Second, KeepaliveTime: 30 * time.Second,
				ConnectRetryTime: bgpConnectRetry, RestartTime: 120 * time.Second, IPv4: true,
			}},
			Routes: routes,
		})
		g.Go(func() error { return s.Run(ctx) })
	}
	return g.Wait()
}
