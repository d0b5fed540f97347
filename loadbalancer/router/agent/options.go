package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/health"
	"github.com/onelb/onelb/loadbalancer/router/nft"
	"github.com/onelb/onelb/loadbalancer/router/returnpath"
)

// Options configure an Agent.
type Options struct {
	// Name is the router's name, for messages.
	Name string
	// Listener takes the clients' connections; the agent closes it.
	Listener net.Listener
	// CertFile and KeyFile are the server's, ClientCAFile signs the clients'
	// certificates; PEM, read again at each connection.
	CertFile, KeyFile, ClientCAFile string
	// StateDir keeps the documents; it is made if it does not exist.
	StateDir string
	// Version is reported to clients.
	Version string
	// Registerer takes the metrics; nil means none.
	Registerer prometheus.Registerer
	// Health configures the checks; Changed is the agent's own.
	Health health.Options
	// Replies configures how it is found out whether backends reply past the router;
	// Changed is the agent's own.
	Replies returnpath.Options
	// Table, Addresses and Flows are the kernel.
	Table     Table
	Addresses Addresses
	Flows     Flows
	Routes    Routes
	// PodNetworks are what clusters may have routes in; empty: nothing.
	PodNetworks []netip.Prefix
	// Role says whether this instance carries the traffic; nil means that it always
	// does.
	Role Role
	// Peers are host:port of the router's other instances, whose connections are
	// copied while they carry the traffic.
	Peers []string
	// System says what is wrong with the machine's settings, for the operator;
	// nil means that nothing is looked at.
	System func() error
}

// Table is the kernel's nftables content, as *nft.Kernel has it.
type Table interface {
	Apply(ctx context.Context, p *nft.Plan) error
	Repair(ctx context.Context) (changed bool, err error)
	// Firewalls is an error if other tables drop this traffic.
	Firewalls(ctx context.Context, traffic []nft.Traffic) error
	// Close ends the use of the kernel; the content stays.
	Close() error
}

// Addresses holds the public addresses on interfaces.
type Addresses interface {
	// Run announces until the context ends and calls changed when an interface
	// changed. Addresses stay when it ends.
	Run(ctx context.Context, changed func()) error
	// Refresh reads the interfaces anew.
	Refresh() error
	// Where returns the name of the interface that has to hold an address.
	Where(a netip.Addr) (string, error)
	// Interfaces returns what Refresh found, but for the loopback.
	Interfaces() []Interface
	// Hold makes exactly these addresses be held.
	Hold(ctx context.Context, addresses []netip.Addr) error
	// Route makes exactly these be answered for outside and passed on inside.
	Route(ctx context.Context, routed []Routed) error
}

// Routed is a public address that somebody holds on an inner network.
type Routed struct {
	Address netip.Addr
	// Through is the name of the inner interface.
	Through string
}

// Interface is a network interface of the router.
type Interface struct {
	Name     string
	Index    int
	Networks []netip.Prefix
}

// Routes are the machine's routes.
type Routes interface {
	// Set makes exactly these be the routes of clusters. It touches no other.
	Set(ctx context.Context, routes []router.Route) error
	// List returns the destinations of all routes, whoever made them, but for the
	// default ones; sorted, not all of them when there are very many.
	List() ([]netip.Prefix, error)
}

// Flows are the kernel's tracked connections.
type Flows interface {
	// Forget deletes the UDP connections that stale returns true for.
	Forget(ctx context.Context, stale func(Flow) bool) (int, error)
}

// Flow is a translated UDP connection.
type Flow struct {
	// Frontend is where the client sent to.
	Frontend router.Key
	// Backend is where the packets go.
	Backend netip.AddrPort
}

func (o Options) validate() error {
	var errs []error
	if !router.ValidCluster(o.Name) {
		errs = append(errs, fmt.Errorf("router name %q is not a DNS label", o.Name))
	}
	if o.Listener == nil || o.Table == nil || o.Addresses == nil || o.Flows == nil || o.Routes == nil {
		errs = append(errs, errors.New("listener, table, addresses, flows and routes are required"))
	}
	for _, f := range []struct{ what, path string }{
		{"server certificate", o.CertFile}, {"server key", o.KeyFile}, {"client CA", o.ClientCAFile}, {"state directory", o.StateDir},
	} {
		if f.path == "" {
			errs = append(errs, fmt.Errorf("no %s given", f.what))
		}
	}
	for _, p := range o.Peers {
		if _, _, err := net.SplitHostPort(p); err != nil {
			errs = append(errs, fmt.Errorf("peer %q: %w", p, err))
		}
	}
	return errors.Join(errs...)
}
