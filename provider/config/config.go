// Package config reads the file given by --cloud-config: a small strict YAML.
//
// Guarantees: what is returned is complete and valid, with defaults filled in.
// Nothing is silently ignored: an unknown key, a key given twice, a value of the
// wrong type and a second document are errors. All problems are found in one go,
// each with its line and key. No message shows the value of a key that could
// hold a secret.
//
// Failure: Load and Parse return no configuration at all with an error.
package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// DefaultRequestTimeout is the value of requestTimeout if none is given.
const DefaultRequestTimeout = 10 * time.Second

// maxSize bounds the file. A typical one has 1 KiB.
const maxSize = 1 << 20

// Config is the content of the file.
type Config struct {
	// Endpoint is the URL of OpenNebula's XML-RPC API. Required.
	Endpoint string
	// Credentials say where user and password are. Required.
	Credentials Credentials
	// CAFile is a PEM file to verify an https endpoint with. Empty: the system's.
	CAFile string
	// Cluster is the name of the Kubernetes cluster, a DNS label of at most 40
	// characters. It is the prefix of the names of its reservations. Required.
	Cluster string
	// IdentityFile is the path of a file with the identity under which the
	// cluster's reservations are signed. Empty: the UID of namespace kube-system.
	IdentityFile string
	// OfferedPools makes AddressPools of virtual networks that say so
	// themselves (attribute ONELB_POOL).
	OfferedPools bool
	// RequestTimeout bounds each call to OpenNebula.
	RequestTimeout time.Duration
	// Instances is about the nodes' virtual machines.
	Instances Instances
	// Routers are the virtual routers that onelb may program.
	Routers []Router
}

// Credentials name the source of "user:password": exactly one is set.
type Credentials struct {
	File string // path of a file
	Env  string // name of an environment variable
}

// Instances says how to describe virtual machines as nodes.
type Instances struct {
	// InternalNetworks are virtual networks (names) and prefixes whose addresses
	// are of type InternalIP, the first one's first. Empty: all that are not external.
	InternalNetworks []string
	// ExternalNetworks are those whose addresses are of type ExternalIP.
	ExternalNetworks []string
	// Type is what the nodes' instance type is taken from. Default: size.
	Type Source
	// Zone is what the nodes' zone is taken from. Default: cluster.
	Zone Source
	// Region is the nodes' region. Empty: see RegionFrom.
	Region string
	// RegionFrom is what the region is taken from. Default: zone.
	RegionFrom Source
	// Labels are further labels of nodes and what their values are taken from.
	Labels map[string]Source
}

// Driver says how a router is programmed.
type Driver string

const (
	// DriverAgent: onelb-router runs on its instances. The default.
	DriverAgent Driver = "agent"
	// DriverAppliance: it is a stock appliance, programmed through the context of its instances.
	DriverAppliance Driver = "appliance"
)

// Router is one virtual router, which may have several instances.
type Router struct {
	Name   string // a DNS label, unique
	Driver Driver
	// Of DriverAgent:
	Endpoints []string // host:port of each instance's agent
	CAFile    string   // authority that signed the agents' certificates
	CertFile  string   // our client certificate
	KeyFile   string   // its key
	PodRoutes bool     // the router gets routes to the nodes' pods
	// Of DriverAppliance: OpenNebula's ID of the virtual router.
	VirtualRouter int
}

// Problem is one thing that is wrong.
type Problem struct {
	Line int    // 0 if there is none
	Key  string // such as routers[1].name; empty for the whole file
	Text string
}

// Error implements error.
func (p Problem) Error() string {
	switch {
	case p.Line > 0 && p.Key != "":
		return fmt.Sprintf("line %d: %s: %s", p.Line, p.Key, p.Text)
	case p.Line > 0:
		return fmt.Sprintf("line %d: %s", p.Line, p.Text)
	case p.Key != "":
		return fmt.Sprintf("%s: %s", p.Key, p.Text)
	}
	return p.Text
}

// Problems are all that is wrong with a file, in the order of its lines.
type Problems []Problem

// Error implements error, on one line.
func (p Problems) Error() string {
	texts := make([]string, len(p))
	for i, x := range p {
		texts[i] = x.Error()
	}
	return strings.Join(texts, "; ")
}

// Load reads a file. Its errors name the file.
func Load(path string) (*Config, error) {
	f, err := os.Open(path) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("cloud-config: %w", err)
	}
	defer func() { _ = f.Close() }()
	c, err := Parse(f)
	if err != nil {
		return nil, fmt.Errorf("cloud-config %s: %w", path, err)
	}
	return c, nil
}

// Parse reads a configuration. Its errors, mostly Problems, do not name the file.
func Parse(r io.Reader) (*Config, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxSize {
		return nil, errors.New("larger than 1 MiB: this is no cloud-config")
	}
	return parse(b)
}
