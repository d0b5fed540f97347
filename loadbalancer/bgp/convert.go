package bgp

import (
	"net/netip"
	"slices"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

const (
	// deferral bounds how long a restarted speaker waits for what its peers have to
	// say before it announces. It accepts nothing, so there is nothing to wait for.
	deferral = time.Second
	// resetHold is how long a session that BFD has ended stays down.
	resetHold = time.Second
)

// peerConfig is the peer as GoBGP wants it. restarting: this speaker was there
// before, and the peer may still have its routes.
func peerConfig(p Peer, restarting bool) *api.Peer {
	c := &api.Peer{
		Conf: &api.PeerConf{
			NeighborAddress: p.Address.String(), PeerAsn: p.ASN, LocalAsn: p.LocalASN, AuthPassword: p.Password, Description: p.Name,
		},
		Transport: &api.Transport{RemotePort: uint32(p.Port), BindInterface: p.VRF},
		Timers: &api.Timers{Config: &api.TimersConfig{
			HoldTime: seconds(p.HoldTime), KeepaliveInterval: seconds(p.KeepaliveTime), ConnectRetry: seconds(p.ConnectRetryTime),
			IdleHoldTimeAfterReset: seconds(resetHold),
		}},
	}
	if p.Source.IsValid() {
		c.Transport.LocalAddress = p.Source.String()
	}
	if p.Multihop > 0 {
		c.EbgpMultihop = &api.EbgpMultihop{Enabled: true, MultihopTtl: uint32(p.Multihop)}
	}
	if p.RestartTime > 0 {
		c.GracefulRestart = &api.GracefulRestart{
			Enabled: true, RestartTime: uint32(seconds(p.RestartTime)), DeferralTime: uint32(seconds(deferral)), LocalRestarting: restarting,
		}
	}
	for _, f := range families(p) {
		c.AfiSafis = append(c.AfiSafis, &api.AfiSafi{
			Config:            &api.AfiSafiConfig{Family: f, Enabled: true},
			MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: p.RestartTime > 0}},
		})
	}
	return c
}

func seconds(d time.Duration) uint64 { return uint64(d / time.Second) }

var (
	ipv4 = &api.Family{Afi: api.Family_AFI_IP, Safi: api.Family_SAFI_UNICAST}
	ipv6 = &api.Family{Afi: api.Family_AFI_IP6, Safi: api.Family_SAFI_UNICAST}
)

func families(p Peer) (out []*api.Family) {
	if p.IPv4 {
		out = append(out, ipv4)
	}
	if p.IPv6 {
		out = append(out, ipv6)
	}
	return out
}

// path is the route as GoBGP wants it. mark tells the policy which peers get it; 0: all do.
func path(r Route, hops [2]netip.Addr, mark uint32) (*apiutil.Path, error) {
	nlri, err := bgp.NewIPAddrPrefix(r.Prefix)
	if err != nil {
		return nil, err
	}
	p := &apiutil.Path{Family: bgp.RF_IPv4_UC, Nlri: nlri, Age: time.Now().Unix()}
	hop := netip.IPv4Unspecified()
	if r.Prefix.Addr().Is6() {
		p.Family, hop = bgp.RF_IPv6_UC, netip.IPv6Unspecified()
	}
	for _, h := range hops {
		if h.IsValid() && h.Is4() == hop.Is4() {
			hop = h
		}
	}
	p.Attrs = []bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(0)}
	if hop.Is4() {
		attr, err := bgp.NewPathAttributeNextHop(hop)
		if err != nil {
			return nil, err
		}
		p.Attrs = append(p.Attrs, attr)
	} else {
		attr, err := bgp.NewPathAttributeMpReachNLRI(p.Family, []bgp.PathNLRI{{NLRI: nlri}}, hop)
		if err != nil {
			return nil, err
		}
		p.Attrs = append(p.Attrs, attr)
	}
	p.Attrs = append(p.Attrs, attributes(r.Attributes, mark)...)
	return p, nil
}

func attributes(a *Attributes, mark uint32) (out []bgp.PathAttributeInterface) {
	communities, preference := a.Communities, a.LocalPreference
	if a.Leaving {
		communities, preference = append(slices.Clone(communities), gracefulShutdown), new(uint32)
	}
	if a.MED != nil {
		out = append(out, bgp.NewPathAttributeMultiExitDisc(*a.MED))
	}
	if preference != nil {
		out = append(out, bgp.NewPathAttributeLocalPref(*preference))
	}
	if len(communities) > 0 {
		out = append(out, bgp.NewPathAttributeCommunities(slices.Clone(communities)))
	}
	var large []*bgp.LargeCommunity
	for _, c := range a.LargeCommunities {
		large = append(large, bgp.NewLargeCommunity(c[0], c[1], c[2]))
	}
	if mark > 0 {
		large = append(large, bgp.NewLargeCommunity(markerASN, 0, mark))
	}
	if len(large) > 0 {
		out = append(out, bgp.NewPathAttributeLargeCommunities(large))
	}
	return out
}

// withdrawal takes a prefix back.
func withdrawal(prefix netip.Prefix) (*apiutil.Path, error) {
	nlri, err := bgp.NewIPAddrPrefix(prefix)
	if err != nil {
		return nil, err
	}
	family := bgp.RF_IPv4_UC
	if prefix.Addr().Is6() {
		family = bgp.RF_IPv6_UC
	}
	return &apiutil.Path{Family: family, Nlri: nlri, Withdrawal: true}, nil
}
