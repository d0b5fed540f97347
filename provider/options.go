package provider

import (
	"fmt"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/cloud-provider/options"

	"github.com/onelb/onelb/loadbalancer"
)

// Options are the provider's own flags.
type Options struct {
	// DefaultClass: Services without a loadBalancerClass are ours.
	DefaultClass bool
	// Orphans says what to do about what nobody wants.
	Orphans Orphans
	// PagePort is where the web page is; 0: there is none.
	PagePort int
	// ClusterCIDR is the library's --cluster-cidr; empty: not given. See Complete.
	ClusterCIDR string
	serving     serving
}

// Orphans is what to do about holds and reservations in OpenNebula that nobody
// wants. It is a flag's value.
type Orphans string

const (
	// OrphansRelease gives them back; so does the zero value.
	OrphansRelease Orphans = "release"
	// OrphansReport only makes events.
	OrphansReport Orphans = "report"
)

// String implements pflag.Value.
func (o *Orphans) String() string { return string(*o) }

// Type implements pflag.Value.
func (o *Orphans) Type() string { return "release|report" }

// Set implements pflag.Value.
func (o *Orphans) Set(s string) error {
	if v := Orphans(s); v == OrphansRelease || v == OrphansReport {
		*o = v
		return nil
	}
	return fmt.Errorf("neither %s nor %s", OrphansRelease, OrphansReport)
}

// AddFlags adds the provider's flags, with their defaults.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	o.Orphans = OrphansRelease
	fs.Var(&o.Orphans, "orphans",
		"What to do about holds in our reservations that no VirtualIP is for, and about reservations of this cluster that no AddressPool "+
			"wants, after ten minutes: release, or report, which only makes events.")
	fs.IntVar(&o.PagePort, "page-port", 0,
		"Port of the web page that shows pools, addresses and who holds them, on the address of the secure port and with its "+
			"certificate. Whoever may get the URL /onelb/* (ClusterRole onelb:page) sees it. 0: there is no page.")
	fs.BoolVar(&o.DefaultClass, "default-class", true,
		"Serve Services of type LoadBalancer without a loadBalancerClass. With false, only those with loadBalancerClass "+
			loadbalancer.Class+" are served; others that have addresses keep them until they are deleted.")
}

// Timing is the pace at which the provider compares and repairs; zero values
// are the defaults of ipam.Options and loadbalancer.Options. Tests that live
// through years of an address in minutes set it; an operator has no need to.
type Timing struct {
	Compare     time.Duration // ipam.Options.Interval
	OrphanGrace time.Duration
	Fence       time.Duration
	Adopt       time.Duration
	FormerGrace time.Duration
	OwnersDelay time.Duration
	Sweep       time.Duration // loadbalancer.Options.SweepInterval
	Offers      time.Duration // offer.Options.Interval
	Retry       time.Duration // loadbalancer.Options.RetryAfter
	Replace     time.Duration // guard.Options.ReplaceAfter
	Poll        time.Duration // guard.Options.Poll
	Gather      time.Duration // appliance.Options.Gather
	Recheck     time.Duration // appliance.Options.Recheck
}

// SetTiming replaces the default pace. Call it before Initialize.
func (c *Cloud) SetTiming(t Timing) { c.timing = t }

// SetDefaults sets what differs from the library's defaults. Flags still win.
func SetDefaults(o *options.CloudControllerManagerOptions) {
	o.KubeCloudShared.CloudProvider.Name = Name
	// One Service at a time makes the last of a burst wait for all others. Ours
	// are serialised by Service where it matters, and each waits for the API server
	// most of the time: at 10 ms for a write these serve 1,000 Services in a second.
	o.ServiceController.ConcurrentServiceSyncs = 32
	// A Service costs the busiest of our clients two writes and two events. With
	// the library's 20 a second a burst of 1,000 would last minutes; with these
	// limits all 4,000 calls go out as fast as they are answered, and it is the API
	// server (its priority and fairness) that says what is too much.
	o.Generic.ClientConnection.QPS = 2000
	o.Generic.ClientConnection.Burst = 4000
	// What a Node costs is writes to the API server: OpenNebula is asked for all
	// machines at once. One at a time, a cluster that starts would wait for its last.
	o.NodeController.ConcurrentNodeSyncs = 8
	o.NodeLifecycleController.ConcurrentNodeLifecycleSyncs = 4
	o.Generic.LeaderElection.ResourceNamespace = Namespace
}
