package router

import (
	"context"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/onelb/onelb/loadbalancer/router/wire"
)

// State is what a Client knows about a router.
type State struct {
	Router string
	// Generation is the desired one; 0 before the first Set.
	Generation uint64
	Instances  []InstanceState
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
	// Master is whether it carries the traffic.
	Master bool
	// Members counts checked backends, Healthy those that pass.
	Members int
	Healthy int
	// Down lists unhealthy backends, not all of them when there are very many.
	Down []DownMember
	// Problems are what the agent complains about, and what is wrong with our
	// certificates.
	Problems []string
	// Version is the agent's.
	Version string
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
		Master:    i.reachable && i.status.GetMaster(),
		Members:   int(i.status.GetMembers()), Healthy: int(i.status.GetHealthy()),
		Problems: slices.Clone(i.status.GetProblems()), Version: i.status.GetVersion(),
		CertificateExpires: i.expiry,
	}
	if i.renewal != nil {
		s.Problems = append(s.Problems, i.renewal.Error())
	}
	if s.Err == nil && i.rejected != nil {
		s.Err = i.rejected
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
