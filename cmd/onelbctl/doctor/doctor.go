// Package doctor looks for what is wrong, or about to be, before and after onelb
// is installed: in the cluster, and with a cloud-config in OpenNebula and at the
// routers too. Each finding says what it means and what to do. It changes
// nothing. A check that cannot look, since the user may not read something or a
// network call fails, says so in a finding of its own; one check's trouble never
// hides another's result. The same state gives the same findings in the same order.
package doctor

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/onelb/onelb/loadbalancer/inventory"
	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/provider/config"
)

// Severity of a finding.
type Severity string

// The severities, from worst to best.
const (
	Error   Severity = "error"   // something does not work
	Warning Severity = "warning" // something will not, or may not
	Info    Severity = "info"    // worth knowing
)

var severities = []Severity{Error, Warning, Info}

// Finding is one thing that was found.
type Finding struct {
	// Check is the name of what was looked at; it is stable, for scripts.
	Check    string   `json:"check"`
	Severity Severity `json:"severity"`
	// About is the object.
	About string `json:"about"`
	// Meaning says what is so and what follows.
	Meaning string `json:"meaning"`
	Remedy  string `json:"remedy"`
}

// Patient is what is examined.
type Patient struct {
	Clients inventory.Clients
	// Inventory was read by these clients; Installed: our objects are known there.
	Inventory *inventory.Inventory
	Installed bool
	// ServerTime is what the API server's clock shows.
	ServerTime func(ctx context.Context) (time.Time, error)
	// Config is the cloud-config; nil: OpenNebula and routers are not asked.
	Config *config.Config
	// OpenNebula is asked with its credentials; nil without Config.
	OpenNebula OpenNebula
	// Ask asks the instances of a router; nil without Config.
	Ask func(ctx context.Context, r config.Router) (router.State, error)
}

// check looks at one thing.
type check struct {
	name string
	look func(ctx context.Context, p *Patient) []Finding
	// cloud: it needs the cloud-config; installed: our objects.
	cloud, installed bool
}

func checks() []check {
	return []check{
		{name: "installation", look: installation},
		{name: "cloud-controller-manager", look: manager, installed: true},
		{name: "node-agents", look: agents, installed: true},
		{name: "gossip-secret", look: gossipSecret, installed: true},
		{name: "nodes", look: nodes},
		{name: "kube-proxy", look: kubeProxy},
		{name: "other-load-balancers", look: rivals},
		{name: "clocks", look: clocks},
		{name: "pools", look: pools, installed: true},
		{name: "services", look: services, installed: true},
		{name: "addresses", look: addresses, installed: true},
		{name: "bgp", look: bgp, installed: true},
		{name: "opennebula", look: openNebula, cloud: true},
		{name: "routers", look: routers, cloud: true},
		{name: "router-certificates", look: certificates, cloud: true},
	}
}

// timeout of one check.
const timeout = time.Minute

// Examine makes all checks that can be made, and sorts what they found: the worst first.
func Examine(ctx context.Context, p *Patient) []Finding {
	var out []Finding
	for _, c := range checks() {
		if c.cloud && p.Config == nil || c.installed && !p.Installed {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, timeout)
		out = append(out, c.look(ctx, p)...)
		cancel()
	}
	for _, g := range p.Inventory.Gaps {
		out = append(out, unknown("reading", g.What, g.Why))
	}
	slices.SortStableFunc(out, compare)
	return slices.Compact(out)
}

// compare puts the worst first.
func compare(a, b Finding) int {
	return cmp.Or(cmp.Compare(slices.Index(severities, a.Severity), slices.Index(severities, b.Severity)),
		cmp.Compare(a.Check, b.Check), cmp.Compare(a.About, b.About), cmp.Compare(a.Meaning, b.Meaning))
}

// unknown is what could not be looked at.
func unknown(check, about, why string) Finding {
	return Finding{
		Check: check, Severity: Warning, About: about, Meaning: "could not be looked at: " + why,
		Remedy: "run onelbctl doctor as somebody who may read it, or when it answers again",
	}
}

// Code is the exit code for scripts: 0 nothing is wrong, 2 warnings, 3 errors.
func Code(findings []Finding) int {
	code := 0
	for _, f := range findings {
		switch f.Severity {
		case Error:
			code = max(code, 3)
		case Warning:
			code = max(code, 2)
		case Info:
		}
	}
	return code
}
