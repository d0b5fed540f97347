package bgp

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/server"
)

// markerASN begins the large communities that tell the export policy which peers
// get a route. They never leave this process: the policy takes them off. No
// autonomous system has this number (RFC 7300).
const markerASN = math.MaxUint32

const (
	exportPolicy = "export"
	importPolicy = "import"
)

// groups numbers the sets of peers that routes are for. A number is never used
// for another set.
type groups map[string]uint32

// of is the number of a set of peers, sorted; 0: all of them.
func (g groups) of(peers []string) uint32 {
	if len(peers) == 0 {
		return 0
	}
	key := strings.Join(peers, "/")
	if g[key] == 0 {
		g[key] = uint32(len(g) + 1)
	}
	return g[key]
}

// rules is what the export policy depends on.
type rules struct {
	// own are the addresses of the peers, by family: on routes of the session's
	// family the next hop is this end of the session. To link-local peers, which come
	// last, it is on all routes.
	own [3][]string
	// barred are the addresses of the peers that do not get the routes of a group.
	barred map[uint32][]string
}

func rulesFor(peers []Peer, g groups) rules {
	r := rules{barred: map[uint32][]string{}}
	for _, p := range peers {
		f := 0
		switch {
		case p.Address.Zone() != "":
			f = 2
		case p.Address.Is6():
			f = 1
		}
		cidr := netip.PrefixFrom(p.Address, p.Address.BitLen()).String()
		r.own[f] = append(r.own[f], cidr)
		for key, n := range g {
			if !slices.Contains(strings.Split(key, "/"), p.Name) {
				r.barred[n] = append(r.barred[n], cidr)
			}
		}
	}
	for _, list := range append(r.own[:], values(r.barred)...) {
		slices.Sort(list)
	}
	return r
}

func values(m map[uint32][]string) (out [][]string) {
	for _, v := range m {
		out = append(out, v)
	}
	return out
}

func (r rules) equal(o rules) bool { return reflect.DeepEqual(r, o) }

// request is the whole policy.
func (r rules) request() *api.SetPoliciesRequest {
	req := &api.SetPoliciesRequest{}
	policy := &api.Policy{Name: exportPolicy}
	for n := uint32(1); len(r.barred) > 0 && n <= maxKey(r.barred); n++ {
		if len(r.barred[n]) == 0 {
			continue
		}
		req.DefinedSets = append(req.DefinedSets, neighbors(fmt.Sprintf("barred-%d", n), r.barred[n]),
			largeCommunity(fmt.Sprintf("group-%d", n), fmt.Sprintf("^%d:0:%d$", uint32(markerASN), n)))
		policy.Statements = append(policy.Statements, &api.Statement{
			Name: fmt.Sprintf("bar-%d", n),
			Conditions: &api.Conditions{
				NeighborSet:       &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: fmt.Sprintf("barred-%d", n)},
				LargeCommunitySet: &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: fmt.Sprintf("group-%d", n)},
			},
			Actions: &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_REJECT},
		})
	}
	for f, families := range [][]*api.Family{{ipv4}, {ipv6}, {ipv4, ipv6}} {
		if len(r.own[f]) == 0 {
			continue
		}
		name := fmt.Sprintf("own-%d", f)
		req.DefinedSets = append(req.DefinedSets, neighbors(name, r.own[f]))
		policy.Statements = append(policy.Statements, &api.Statement{
			Name: name,
			Conditions: &api.Conditions{
				NeighborSet: &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: name}, AfiSafiIn: families,
			},
			Actions: &api.Actions{Nexthop: &api.NexthopAction{Self: true}},
		})
	}
	policy.Statements = append(policy.Statements, &api.Statement{
		Name:       "unmark",
		Conditions: &api.Conditions{},
		Actions: &api.Actions{LargeCommunity: &api.CommunityAction{
			Type: api.CommunityAction_TYPE_REMOVE, Communities: []string{fmt.Sprintf("^%d:0:", uint32(markerASN))},
		}},
	})
	req.Policies = []*api.Policy{policy, ownOnly}
	return req
}

// ownOnly takes our own routes in, which come by the same way as those of peers;
// the default is to refuse.
var ownOnly = &api.Policy{Name: importPolicy, Statements: []*api.Statement{{
	Name:       "own",
	Conditions: &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_LOCAL},
	Actions:    &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_ACCEPT},
}}}

func maxKey(m map[uint32][]string) (most uint32) {
	for n := range m {
		most = max(most, n)
	}
	return most
}

func neighbors(name string, list []string) *api.DefinedSet {
	return &api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_NEIGHBOR, Name: name, List: list}
}

func largeCommunity(name, pattern string) *api.DefinedSet {
	return &api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_LARGE_COMMUNITY, Name: name, List: []string{pattern}}
}

// setPolicies replaces the policy at once.
func setPolicies(ctx context.Context, s *server.BgpServer, r rules, first bool) error {
	if err := s.SetPolicies(ctx, r.request()); err != nil {
		return fmt.Errorf("set export policy: %w", err)
	}
	if !first {
		return nil
	}
	for _, a := range []*api.PolicyAssignment{
		{
			Name: "global", Direction: api.PolicyDirection_POLICY_DIRECTION_IMPORT, DefaultAction: api.RouteAction_ROUTE_ACTION_REJECT,
			Policies: []*api.Policy{{Name: importPolicy}},
		},
		{
			Name: "global", Direction: api.PolicyDirection_POLICY_DIRECTION_EXPORT, DefaultAction: api.RouteAction_ROUTE_ACTION_ACCEPT,
			Policies: []*api.Policy{{Name: exportPolicy}},
		},
	} {
		if err := s.SetPolicyAssignment(ctx, &api.SetPolicyAssignmentRequest{Assignment: a}); err != nil {
			return fmt.Errorf("assign policy: %w", err)
		}
	}
	return nil
}
