package instances

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	cloudproviderapi "k8s.io/cloud-provider/api"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/provider/config"
	"github.com/onelb/onelb/provider/one"
)

// errNoAttribute: what a value is to be taken from is not there.
var errNoAttribute = errors.New("there is no such attribute")

// traits are what becomes labels of the Node.
type traits struct {
	size, zone, region string
	labels             map[string]string
}

// traits of a machine. The node controller writes them once, when it initialises
// the Node; so what cannot be had then is an error, and later it does not matter.
func (i *Instances) traits(ctx context.Context, node *corev1.Node, vm one.VM) (traits, error) {
	var t traits
	var errs []error
	for _, x := range []struct {
		key  string
		from config.Source
		to   *string
	}{{"typeFrom", i.size, &t.size}, {"zoneFrom", i.zone, &t.zone}, {"regionFrom", i.regionFrom, &t.region}} {
		value, err := i.value(ctx, vm, x.from)
		if err != nil {
			errs = append(errs, fmt.Errorf("instances.%s %s of the cloud-config: %w", x.key, x.from, err))
		}
		*x.to = value
	}
	if i.region != "" {
		t.region = labelValue(i.region)
	}
	for name, from := range i.labels {
		value, err := i.value(ctx, vm, from)
		switch {
		case errors.Is(err, errNoAttribute): // a label that not all machines have
		case err != nil:
			errs = append(errs, fmt.Errorf("instances.labels %s: %s of the cloud-config: %w", name, from, err))
		case value != "":
			if t.labels == nil {
				t.labels = map[string]string{}
			}
			t.labels[name] = value
		}
	}
	if uninitialised(node) {
		return t, errors.Join(errs...)
	}
	return t, nil
}

func uninitialised(node *corev1.Node) bool {
	for _, t := range node.Spec.Taints {
		if t.Key == cloudproviderapi.TaintExternalCloudProvider {
			return true
		}
	}
	return false
}

// value is what a source says about a machine, fit for a label; empty if the
// source has nothing to say, such as the host of a machine that never ran.
func (i *Instances) value(ctx context.Context, vm one.VM, from config.Source) (string, error) {
	var text string
	var err error
	switch from.Kind {
	case config.SourceNone, "":
	case config.SourceSize:
		text = instanceType(vm)
	case config.SourceID:
		text = strconv.Itoa(vm.ID)
	case config.SourceName:
		text = vm.Name
	case config.SourceOwner:
		text = vm.Owner
	case config.SourceZone:
		text, err = i.one.ZoneName(ctx)
	case config.SourceVM:
		text, err = lookUp(vm.Attributes, from.Attribute, fmt.Sprintf("the user template of VM %d", vm.ID))
	case config.SourceCluster:
		text, err = i.cluster(ctx, vm, from.Attribute)
	case config.SourceHost:
		text, err = i.host(ctx, vm, from.Attribute)
	default:
		err = fmt.Errorf("unknown source %q", from.Kind)
	}
	return labelValue(text), err
}

// cluster is the machine's OpenNebula cluster: what is inside one fails, and can be
// migrated, together. Its name if our user may see it, else cluster-<ID>.
func (i *Instances) cluster(ctx context.Context, vm one.VM, attribute string) (string, error) {
	if vm.ClusterID < 0 {
		return "", nil // never ran on a host, or on one outside all clusters
	}
	p, err := i.one.Cluster(ctx, vm.ClusterID)
	switch {
	case attribute == "" && errors.Is(err, ipam.ErrNotFound):
		return fmt.Sprintf("cluster-%d", vm.ClusterID), nil
	case err != nil:
		return "", err
	case attribute == "":
		return p.Name, nil
	}
	return lookUp(p.Attributes, attribute, fmt.Sprintf("the template of cluster %d", vm.ClusterID))
}

// host is the one that the machine runs on, or ran on last.
func (i *Instances) host(ctx context.Context, vm one.VM, attribute string) (string, error) {
	if attribute == "" || vm.HostID < 0 {
		return vm.Host, nil
	}
	p, err := i.one.Host(ctx, vm.HostID)
	if err != nil {
		return "", err
	}
	return lookUp(p.Attributes, attribute, fmt.Sprintf("the template of host %d", vm.HostID))
}

func lookUp(attributes map[string]string, name, where string) (string, error) {
	if value := attributes[name]; value != "" {
		return value, nil
	}
	return "", fmt.Errorf("%w as %s in %s: set it there", errNoAttribute, name, where)
}

// instanceType tells the size, since OpenNebula has no names for sizes.
func instanceType(vm one.VM) string {
	return fmt.Sprintf("%dvcpu-%dmb", vm.VCPU, vm.MemoryMB)
}

// labelValue makes a valid label value of a name: the API server refuses the
// whole Node otherwise.
func labelValue(name string) string {
	valid := func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
			return r
		}
		return '-'
	}
	s := strings.Map(valid, name)
	s = s[:min(len(s), validation.LabelValueMaxLength)]
	return strings.Trim(s, "-_.")
}
