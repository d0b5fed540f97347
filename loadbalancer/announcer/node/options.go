package node

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// Options are the flags of the program.
type Options struct {
	// NodeName is the name of the Node that this program runs on. Required.
	NodeName string
	// Kubeconfig file; empty: the pod's service account.
	Kubeconfig string
	// GossipKeyFile holds the key that the agents share; it may appear late.
	GossipKeyFile string
	// GossipPort is used with UDP and TCP on the node's InternalIP.
	GossipPort int
	// StateDir keeps what a restarted agent must know.
	StateDir string
	// MetricsAddress serves /metrics, /healthz and /readyz; empty: off.
	MetricsAddress string
	// AddressLifetime is how long the kernel keeps an address that is not renewed.
	AddressLifetime time.Duration
	// DrainCordoned makes a cordoned node hand its addresses over.
	DrainCordoned bool
	// Even moves addresses, one a minute, to nodes that have at least two fewer.
	Even bool
	// KubeProxyHealth is the host:port of this node's kube-proxy at which it tells
	// its health. Empty: do not ask.
	KubeProxyHealth string
	// DaemonSet that runs this program, as namespace/name. Ended because that is gone,
	// or no longer wants it on this node, the agent hands its addresses over first.
	// Empty: each end counts as the beginning of a restart.
	DaemonSet string
	// BGPPasswordDir holds the passwords of BGP peers, a file for each key.
	BGPPasswordDir string
	// Enter runs a function in the network namespace to work in. Nil: the
	// program's own.
	Enter func(func() error) error
}

// ErrOptions is returned for flags that cannot be used.
var ErrOptions = errors.New("invalid flags")

// Defaults returns the options with their default values.
func Defaults() Options {
	return Options{
		GossipKeyFile:   "/etc/onelb/gossip/key",
		GossipPort:      7947,
		StateDir:        "/var/lib/onelb",
		MetricsAddress:  "127.0.0.1:9911",
		AddressLifetime: 3 * time.Second,
		DrainCordoned:   true,
		Even:            true,
		KubeProxyHealth: "127.0.0.1:10256",
		BGPPasswordDir:  "/etc/onelb/bgp",
	}
}

// AddFlags adds the flags.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.NodeName, "node-name", o.NodeName, "name of the Node that this program runs on (required)")
	fs.StringVar(&o.Kubeconfig, "kubeconfig", o.Kubeconfig, "kubeconfig file; empty: the pod's service account")
	fs.StringVar(&o.GossipKeyFile, "gossip-key-file", o.GossipKeyFile, "file with the 32-byte key that the agents share; it may appear late")
	fs.IntVar(&o.GossipPort, "gossip-port", o.GossipPort, "port for gossip between the agents, UDP and TCP, on the node's InternalIP")
	fs.StringVar(&o.StateDir, "state-dir", o.StateDir, "directory for what a restarted agent must know")
	fs.StringVar(&o.BGPPasswordDir, "bgp-password-dir", o.BGPPasswordDir, "directory with the passwords of BGP peers, a file for each key of the Secret; it may appear late")
	fs.StringVar(&o.MetricsAddress, "metrics-address", o.MetricsAddress, "address of /metrics, /healthz and /readyz; empty: off")
	fs.DurationVar(&o.AddressLifetime, "address-lifetime", o.AddressLifetime, "how long the kernel keeps an address that is not renewed; whole seconds, 1s to 60s")
	fs.BoolVar(&o.DrainCordoned, "drain-cordoned", o.DrainCordoned, "hand over the addresses of a node when it is cordoned, which is how a drain begins; the same on all nodes")
	fs.BoolVar(&o.Even, "even", o.Even, "move addresses, one a minute, to nodes that have at least two fewer; the same on all nodes")
	fs.StringVar(&o.DaemonSet, "daemonset", o.DaemonSet, "namespace/name of the DaemonSet that runs this program: if it is gone when the program is told to end, or its nodeSelector no longer matches this node, the addresses are handed over first; empty: never, since each end counts as the beginning of a restart")
	fs.StringVar(&o.KubeProxyHealth, "kube-proxy-health", o.KubeProxyHealth, "host:port at which this node's kube-proxy tells its health; addresses are handed over while it is unwell; one that has never answered is not there; empty: do not ask")
}

// Validate returns all that is wrong with the options.
func (o *Options) Validate() error {
	var errs []error
	add := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf("%w: "+format, append([]any{ErrOptions}, args...)...))
		}
	}
	add(o.NodeName == "", "--node-name is required")
	add(o.GossipKeyFile == "", "--gossip-key-file is required")
	add(o.GossipPort < 1 || o.GossipPort > 65535, "--gossip-port %d is not a port", o.GossipPort)
	add(o.StateDir == "", "--state-dir is required")
	add(o.AddressLifetime < time.Second || o.AddressLifetime > time.Minute || o.AddressLifetime%time.Second != 0,
		"--address-lifetime %v is not in whole seconds from 1s to 60s", o.AddressLifetime)
	if o.DaemonSet != "" {
		namespace, name, found := strings.Cut(o.DaemonSet, "/")
		add(!found || namespace == "" || name == "" || strings.Contains(name, "/"), "--daemonset %q is not namespace/name", o.DaemonSet)
	}
	if o.KubeProxyHealth != "" {
		_, _, err := net.SplitHostPort(o.KubeProxyHealth)
		add(err != nil, "--kube-proxy-health %q is not host:port", o.KubeProxyHealth)
	}
	return errors.Join(errs...)
}
