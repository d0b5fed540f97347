// Package instances implements cloudprovider.InstancesV2: it tells the node
// controllers which virtual machine a Node is, whether that still exists, and
// its addresses, size and place.
//
// Guarantees. A Node's machine is only said not to exist after a fresh read by
// ID that says DONE, since the node controller then deletes the Node. "No such
// machine" is believed only of a front-end that lists other machines of this
// cluster: the endpoint of another OpenNebula, or an empty database, knows none of
// them. Wrong credentials, missing rights, an unreachable OpenNebula, an
// ambiguous name and a machine that is merely not listed are errors. Results
// have a stable order. One list of all machines, read by one call at a time and
// kept for a few seconds, serves any number of Nodes.
//
// Failure: errors name the Node or machine and say what an operator can do;
// InstanceMetadata never returns nil without one.
package instances

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	cloudprovider "k8s.io/cloud-provider"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/provider/config"
	"github.com/onelb/onelb/provider/one"
	"github.com/onelb/onelb/provider/providerid"
)

// OpenNebula is what this package asks. *one.Client implements it.
type OpenNebula interface {
	// VMs lists the visible machines but DONE ones. It may be a few seconds
	// old, and a machine that is missing may still exist.
	VMs(ctx context.Context) ([]one.VM, error)
	// VM reads one machine, fresh: ipam.ErrNotFound if there is none.
	VM(ctx context.Context, id int) (one.VM, error)
	// Cluster is ipam.ErrNotFound if our user may not see the cluster.
	Cluster(ctx context.Context, id int) (one.Place, error)
	// Host is ipam.ErrNotFound if our user may not see the host.
	Host(ctx context.Context, id int) (one.Place, error)
	// ZoneName names the OpenNebula zone.
	ZoneName(ctx context.Context) (string, error)
}

// Options configures Instances.
type Options struct {
	OpenNebula OpenNebula
	// Nodes are the settings of the cloud-config. Sources that are not given
	// are the defaults of config.Instances.
	Nodes config.Instances
}

// Instances implements cloudprovider.InstancesV2.
type Instances struct {
	one                    OpenNebula
	roles                  roles
	size, zone, regionFrom config.Source
	region                 string
	labels                 map[string]config.Source

	mu    sync.Mutex   // guards known
	known map[int]bool // IDs of machines that were listed and are a Node's
}

var _ cloudprovider.InstancesV2 = (*Instances)(nil)

// New makes Instances. It makes no calls.
func New(o Options) (*Instances, error) {
	if o.OpenNebula == nil {
		return nil, errors.New("instances: no OpenNebula client")
	}
	n := o.Nodes
	return &Instances{
		one: o.OpenNebula, roles: newRoles(n.InternalNetworks, n.ExternalNetworks),
		size: orDefault(n.Type, config.SourceSize), zone: orDefault(n.Zone, config.SourceCluster),
		region: n.Region, regionFrom: regionSource(n), labels: n.Labels, known: map[int]bool{},
	}, nil
}

func orDefault(s config.Source, kind config.SourceKind) config.Source {
	if s.Kind == "" {
		s.Kind = kind
	}
	return s
}

// regionSource asks for nothing where the region is given.
func regionSource(n config.Instances) config.Source {
	if n.Region != "" {
		return config.Source{Kind: config.SourceNone}
	}
	return orDefault(n.RegionFrom, config.SourceZone)
}

// InstanceExists implements cloudprovider.InstancesV2.
func (i *Instances) InstanceExists(ctx context.Context, node *corev1.Node) (bool, error) {
	_, err := i.find(ctx, node)
	if errors.Is(err, cloudprovider.InstanceNotFound) {
		return false, nil
	}
	return err == nil, err
}

// InstanceShutdown implements cloudprovider.InstancesV2. StateRules says what it
// makes of which state; a state of a later OpenNebula is an error.
func (i *Instances) InstanceShutdown(ctx context.Context, node *corev1.Node) (bool, error) {
	vm, err := i.find(ctx, node)
	if err != nil {
		return false, err
	}
	rule, known := ruleOf(vm)
	switch {
	case !known:
		return false, fmt.Errorf("node %s: VM %d is in state %s, which this release does not know", node.Name, vm.ID, vm.State)
	case !rule.Exists:
		return false, fmt.Errorf("node %s: VM %d is %s: %w", node.Name, vm.ID, rule.State, cloudprovider.InstanceNotFound)
	}
	return rule.Shutdown, nil
}

// InstanceMetadata implements cloudprovider.InstancesV2.
func (i *Instances) InstanceMetadata(ctx context.Context, node *corev1.Node) (*cloudprovider.InstanceMetadata, error) {
	vm, err := i.find(ctx, node)
	if err != nil {
		return nil, err
	}
	wanted, err := providedIPs(node)
	if err != nil {
		return nil, err
	}
	addresses := i.roles.addresses(vm)
	if len(missing(wanted, addresses)) > 0 {
		// The list may be older than the NIC.
		if vm, err = i.read(ctx, node, vm.ID); err != nil {
			return nil, err
		}
		addresses = i.roles.addresses(vm)
	}
	if absent := missing(wanted, addresses); len(absent) > 0 {
		return nil, i.roles.explain(node, vm, absent)
	}
	t, err := i.traits(ctx, node, vm)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", node.Name, err)
	}
	return &cloudprovider.InstanceMetadata{
		ProviderID:       providerid.Format(vm.ID),
		InstanceType:     t.size,
		NodeAddresses:    nodeAddresses(addresses, hostname(node)),
		Zone:             t.zone,
		Region:           t.region,
		AdditionalLabels: t.labels,
	}, nil
}

// find returns the machine of a Node. The error is InstanceNotFound only if the
// Node has a provider ID and OpenNebula has just said that there is no such
// machine any more.
func (i *Instances) find(ctx context.Context, node *corev1.Node) (one.VM, error) {
	if node.Spec.ProviderID == "" {
		return i.search(ctx, node)
	}
	id, err := providerid.Parse(node.Spec.ProviderID)
	if err != nil {
		return one.VM{}, fmt.Errorf("node %s: %w", node.Name, err)
	}
	vms, err := i.one.VMs(ctx)
	if err != nil {
		return one.VM{}, fmt.Errorf("node %s: %w", node.Name, err)
	}
	at := slices.IndexFunc(vms, func(vm one.VM) bool { return vm.ID == id })
	if at >= 0 && vms[at].Err == nil && vms[at].State != one.VMDone {
		i.remember(node, vms[at])
		return vms[at], nil
	}
	vm, err := i.read(ctx, node, id)
	if errors.Is(err, errNoSuchVM) {
		return one.VM{}, i.doubt(node, vms, id, err)
	}
	return vm, err
}

// errNoSuchVM: the front-end knows no such machine, which is no proof yet.
var errNoSuchVM = errors.New("OpenNebula has no such VM")

// remember that the front-end knows a machine of this cluster. One that merely has
// the ID, on another front-end, has another UUID.
func (i *Instances) remember(node *corev1.Node, vm one.VM) {
	if id, err := identify(node); err != nil || id.contradicts(vm) {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.known[vm.ID] = true
}

// doubt turns "no such machine" into InstanceNotFound if the front-end is the
// right one. OpenNebula keeps machines that were terminated, until an operator
// purges them from its database; so more often than a purge it means that the
// endpoint is another's, or that the database was lost or is an old one.
func (i *Instances) doubt(node *corev1.Node, vms []one.VM, id int, cause error) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	others := slices.ContainsFunc(vms, func(vm one.VM) bool { return vm.ID != id && i.known[vm.ID] })
	listed := slices.ContainsFunc(vms, func(vm one.VM) bool { return vm.ID == id })
	switch {
	case listed:
		return fmt.Errorf("%w, but lists it: its record is damaged; delete the Node by hand if the machine is gone", cause)
	case !others:
		return fmt.Errorf("%w, nor any other machine of this cluster that was seen since this program has started: is this the right OpenNebula endpoint? Delete the Node by hand if the machine is gone", cause)
	}
	delete(i.known, id)
	return fmt.Errorf("%w (%w)", cause, cloudprovider.InstanceNotFound)
}

// read asks for one machine by ID.
func (i *Instances) read(ctx context.Context, node *corev1.Node, id int) (one.VM, error) {
	vm, err := i.one.VM(ctx, id)
	switch {
	case errors.Is(err, ipam.ErrNotFound):
		return one.VM{}, fmt.Errorf("node %s: VM %d: %w", node.Name, id, errNoSuchVM)
	case err != nil:
		return one.VM{}, fmt.Errorf("node %s: %w", node.Name, err)
	case vm.State == one.VMDone:
		return one.VM{}, fmt.Errorf("node %s: %w: VM %d is DONE", node.Name, cloudprovider.InstanceNotFound, id)
	}
	return vm, nil
}
