package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// ErrOptions is returned for options that no lab can be made from.
var ErrOptions = errors.New("invalid lab options")

// Limits that follow from the addresses of the lab and from interface names.
const (
	maxNodes   = 80 // 10.20.0.11 to 10.20.0.90
	maxRouters = 8
	maxName    = 20
)

// ProxyMode is the mode kube-proxy runs in.
type ProxyMode string

// The modes of kube-proxy. IPVS needs a kernel with ip_vs, ip_set and dummy
// interfaces; test/vm has one.
const (
	NFTables ProxyMode = "nftables"
	IPTables ProxyMode = "iptables"
	IPVS     ProxyMode = "ipvs"
)

// Options say what to build. The zero value is a lab named "lab" with three
// nodes and one router, with OpenNebula and Kubernetes and without onelb's own programs.
type Options struct {
	// Name distinguishes labs on one machine: lower-case letters, digits and dashes.
	Name string
	// Nodes is the number of Kubernetes nodes.
	Nodes int
	// Routers is the number of instances of the virtual router.
	Routers int
	// ProxyMode is kube-proxy's mode; NFTables by default.
	ProxyMode ProxyMode
	// NodeLifecycle runs the controllers that mark a node whose kubelet is silent
	// as not ready, after about 7 s, and evict its pods.
	NodeLifecycle bool
	// Programs also applies the manifests and starts the cloud-controller-manager,
	// the node agents and the router agents.
	Programs bool
	// AddressLifetime is how long a node's kernel keeps an address without its agent;
	// 3 s by default, since tests wait for it. The agents' own default is 10 s.
	AddressLifetime time.Duration
	// Slowness is how many times slower than an ordinary machine this one is: the lab
	// waits longer and looks less often. 1 by default.
	Slowness int
	// Race builds onelb's programs with the race detector.
	Race bool
	// Dir holds logs, certificates, kubeconfigs and etcd's data. It is emptied at
	// start. Default: /run/onelb-lab/<name>.
	Dir string
	// KeepDir leaves Dir in place at Close.
	KeepDir bool
	// Progress gets lines for people; nil discards them.
	Progress io.Writer
}

var (
	validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)
	// hostInName finds the name of a host inside that of a lab: with it, the
	// namespaces of one lab could be taken for those of another.
	hostInName = regexp.MustCompile(`-(switch|control|internet|lan|router|node|pod)(-|$)`)
)

// complete fills in defaults and checks the result.
func (o Options) complete() (Options, error) {
	if o.Name == "" {
		o.Name = "lab"
	}
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	if o.Routers == 0 {
		o.Routers = 1
	}
	if o.ProxyMode == "" {
		o.ProxyMode = NFTables
	}
	if o.AddressLifetime == 0 {
		o.AddressLifetime = 3 * time.Second
	}
	if o.Slowness == 0 {
		o.Slowness = 1
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	if o.Dir == "" {
		o.Dir = filepath.Join(runDir, o.Name)
	}
	var errs []error
	if !validName.MatchString(o.Name) || len(o.Name) > maxName {
		errs = append(errs, fmt.Errorf("name %q: want at most %d of a-z, 0-9 and dashes", o.Name, maxName))
	}
	if hostInName.MatchString(o.Name) {
		errs = append(errs, fmt.Errorf("name %q: contains the name of a host", o.Name))
	}
	if o.Nodes < 1 || o.Nodes > maxNodes {
		errs = append(errs, fmt.Errorf("%d nodes: want 1 to %d", o.Nodes, maxNodes))
	}
	if o.Routers < 1 || o.Routers > maxRouters {
		errs = append(errs, fmt.Errorf("%d routers: want 1 to %d", o.Routers, maxRouters))
	}
	if o.ProxyMode != NFTables && o.ProxyMode != IPTables && o.ProxyMode != IPVS {
		errs = append(errs, fmt.Errorf("proxy mode %q: want %s, %s or %s", o.ProxyMode, NFTables, IPTables, IPVS))
	}
	if o.Slowness < 0 {
		errs = append(errs, fmt.Errorf("slowness %d: want 1 or more", o.Slowness))
	}
	if !filepath.IsAbs(o.Dir) {
		errs = append(errs, fmt.Errorf("directory %q: want an absolute path", o.Dir))
	}
	if os.Geteuid() != 0 {
		errs = append(errs, errors.New("network namespaces need root"))
	}
	if len(errs) > 0 {
		return Options{}, fmt.Errorf("%w: %w", ErrOptions, errors.Join(errs...))
	}
	return o, nil
}
