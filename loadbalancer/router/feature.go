package router

import (
	"fmt"
	"slices"
)

// Feature names something that a router's agent can do and that one of another
// release may not. Agents tell what they can do in each status. The values are
// part of the wire format.
type Feature string

// What frontends and documents may need beyond the first form of the protocol. Who
// adds a field to the protocol adds a feature, and the place in Needs that asks for it.
const (
	// FeatureAffinity: clients keep their backend.
	FeatureAffinity Feature = "session-affinity"
	// FeatureConnectionLimit: a frontend takes so many connections at a time.
	FeatureConnectionLimit Feature = "connection-limit"
	// FeatureRoutes: the router takes routes to pods.
	FeatureRoutes Feature = "pod-routes"
	// FeatureRouted: an address is routed to its holder, nothing is translated.
	FeatureRouted Feature = "forward-route"
)

// Features returns what the agent of this build can do, sorted.
func Features() []Feature {
	return []Feature{FeatureConnectionLimit, FeatureRouted, FeatureRoutes, FeatureAffinity}
}

// Needs returns the features without which an agent cannot honour the frontend.
func (f Frontend) Needs() []Feature {
	var needs []Feature
	if f.Affinity > 0 {
		needs = append(needs, FeatureAffinity)
	}
	if f.MaxConnections > 0 {
		needs = append(needs, FeatureConnectionLimit)
	}
	if f.Routed {
		needs = append(needs, FeatureRouted)
	}
	return needs
}

// Lacks says which instance does not have one of these features; nil if each that
// can be reached has all. The error is ErrTooOld.
func (s State) Lacks(needs ...Feature) error {
	for _, i := range s.Instances {
		if !i.Reachable {
			continue
		}
		for _, f := range needs {
			if !slices.Contains(i.Features, f) {
				return fmt.Errorf("router %s (%s): %w: onelb-router %s there does not have the feature %s: update it; routers come before the cloud-controller-manager",
					s.Router, i.Endpoint, ErrTooOld, versionText(i.Version), f)
			}
		}
	}
	return nil
}

func versionText(v string) string {
	if v == "" {
		return "of unknown version"
	}
	return v
}
