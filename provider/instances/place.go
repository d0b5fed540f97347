package instances

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/provider/one"
)

// zone is the machine's OpenNebula cluster: what is inside one fails, and can be
// migrated, together. Its name if our user may see it, else cluster-<ID>. The
// label is written once, so a name that cannot be had now is an error.
func (i *Instances) zone(ctx context.Context, vm one.VM) (string, error) {
	if vm.ClusterID < 0 {
		return "", nil // never ran on a host, or on one outside all clusters
	}
	name, err := i.one.ClusterName(ctx, vm.ClusterID)
	if errors.Is(err, ipam.ErrNotFound) {
		return fmt.Sprintf("cluster-%d", vm.ClusterID), nil
	}
	return labelValue(name), err
}

func (i *Instances) regionName(ctx context.Context) (string, error) {
	if i.region != "" {
		return labelValue(i.region), nil
	}
	name, err := i.one.ZoneName(ctx)
	return labelValue(name), err
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
