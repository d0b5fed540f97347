package router

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/onelb/onelb/loadbalancer/router/wire"
)

// State is what a Client knows about a router.
type State struct {
	Router string
	// Generation is the desired one; 0 before the first Set.
	Generation uint64
	// Stock: on its instances there is no agent, so nobody tells which of them is master.
	Stock     bool
	Instances []InstanceState
}

// InstanceState is one instance of a router, in the order of the endpoints.
type InstanceState struct {
	Endpoint  string
	Reachable bool
	// Err says why it is not reachable, or what it refused.
	Err error
	// Generation is the one it reports, Current whether that is the desired one.
	Generation uint64
	Current    bool
	// Confirmed is the last generation of this client's own that it is known to
	// run; 0 while there is none.
	Confirmed uint64
	// Master is whether it carries the traffic. WasMaster is that of its last word,
	// also when it cannot be reached: its kernel goes on without the agent. Of a stock
	// router's instance that cannot be reached it is true, since nobody knows.
	Master, WasMaster bool
	// Members counts checked backends, Healthy those that pass.
	Members int
	Healthy int
	// Down lists unhealthy backends, not all of them when there are very many.
	Down []DownMember
	// Problems are what the agent complains about, and what is wrong with our
	// certificates.
	Problems []string
	// Version is the agent's; empty while it was never heard.
	Version string
	// Features are what it can do.
	Features []Feature
	// Routes are the networks that it has routes to, but for the default ones.
	Routes []netip.Prefix
	// CertificateExpires is the end of our own certificate, the zero time before the
	// first connection.
	CertificateExpires time.Time
}

// DownMember is a backend that fails its check.
type DownMember struct {
	Address netip.Addr
	Check   Check
	Node    string
	Message string
}

// State returns a copy of what is known now.
func (c *Client) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := State{Router: c.opts.Router}
	if c.desired != nil {
		s.Generation = c.desired.generation
	}
	for _, inst := range c.instances {
		s.Instances = append(s.Instances, inst.state(s.Generation))
	}
	return s
}

func (i *instance) state(desired uint64) InstanceState {
	s := InstanceState{
		Endpoint: i.endpoint, Reachable: i.reachable, Err: i.err,
		Generation: i.status.GetGeneration(), Current: desired != 0 && i.confirmed == desired,
		Confirmed: i.confirmed,
		Master:    i.reachable && i.status.GetMaster(), WasMaster: i.status.GetMaster(),
		Members: int(i.status.GetMembers()), Healthy: int(i.status.GetHealthy()),
		Problems: slices.Clone(i.status.GetProblems()), Version: i.status.GetVersion(),
		CertificateExpires: i.expiry,
	}
	if i.renewal != nil {
		s.Problems = append(s.Problems, i.renewal.Error())
	}
	if s.Err == nil && i.rejected != nil {
		s.Err = i.rejected
	}
	for _, f := range i.status.GetFeatures() {
		s.Features = append(s.Features, Feature(f))
	}
	for _, d := range i.status.GetDown() {
		s.Down = append(s.Down, downFromWire(d))
	}
	for _, w := range i.status.GetRoutes() {
		if p, err := PrefixFromWire(w); err == nil { // else it routes nothing that is ours
			s.Routes = append(s.Routes, p)
		}
	}
	return s
}

// MasterProblem says what is wrong with who carries the traffic, and the way out; empty
// while exactly one instance does, none can be reached, or nobody tells.
func (s State) MasterProblem() (meaning, wayOut string) {
	if s.Stock {
		return "", ""
	}
	var masters, away, lost []string
	for _, i := range s.Instances {
		switch {
		case i.Master:
			masters = append(masters, i.Endpoint)
		case !i.Reachable && i.WasMaster:
			lost = append(lost, i.Endpoint)
		case !i.Reachable:
			away = append(away, i.Endpoint)
		}
	}
	switch {
	case len(masters) == 1 || len(lost)+len(away) == len(s.Instances):
		return "", ""
	case len(masters) > 1:
		return fmt.Sprintf("%d instances are master (%s): they do not hear each other's VRRP and all answer for its public addresses", len(masters), strings.Join(masters, ", ")),
			"see that VRRP (protocol 112) passes between the instances, and that all have the same virtual router ID and --floating-addresses"
	case len(lost) > 0:
		return fmt.Sprintf("no other instance has become master since %s, which was, does not answer: if the machine runs, its kernel goes on with what it has, but changes do not reach it and no address is given back", strings.Join(lost, ", ")),
			"start onelb-router there, or have that machine let go of everything, see docs/how-to/router.md"
	case len(away) > 0:
		return fmt.Sprintf("no instance is master as far as can be told: %s does not answer. If it is, its kernel goes on with what it has, but changes do not reach it", strings.Join(away, ", ")),
			"start onelb-router there, or have that machine let go of everything, see docs/how-to/router.md"
	}
	return "no instance is master: nobody answers for its public addresses", "see keepalived on the instances: one has to have the floating addresses of the virtual router"
}

func downFromWire(d *wire.Down) DownMember {
	address, _ := netip.AddrFromSlice(d.GetAddress()) // an invalid one shows as such
	return DownMember{
		Address: address, Node: d.GetNode(), Message: d.GetMessage(),
		Check: Check{Port: uint16(min(d.GetPort(), 65535)), Path: d.GetPath()}, //nolint:gosec // bounded
	}
}

// notify calls OnState after changes that can be seen in the state.
func (c *Client) notify(ctx context.Context) {
	var last State
	for {
		c.mu.Lock()
		changed := c.changed
		c.mu.Unlock()
		if s := c.State(); !reflect.DeepEqual(s, last) {
			c.opts.OnState(s)
			last = s
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
