// Package providerid writes and reads the spec.providerID of a Node:
// one://<vmid>, as Cluster API's provider for OpenNebula does.
//
// Guarantees: Parse accepts exactly what Format makes. Failure: the errors of
// Parse name the ID and wrap ErrForeign if it is another provider's.
package providerid

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const prefix = "one://"

// ErrForeign says that an ID was made by another provider.
var ErrForeign = errors.New("belongs to another cloud provider")

// Format makes the provider ID of a virtual machine, whose ID is not negative.
func Format(vm int) string { return prefix + strconv.Itoa(vm) }

// Parse returns the virtual machine's ID in OpenNebula.
func Parse(id string) (int, error) {
	digits, ok := strings.CutPrefix(id, prefix)
	if !ok {
		return 0, fmt.Errorf("provider ID %q: %w: ours begin with %s", id, ErrForeign, prefix)
	}
	vm, err := strconv.ParseInt(digits, 10, 32)
	if err != nil || vm < 0 || Format(int(vm)) != id {
		return 0, fmt.Errorf("provider ID %q: must be %s and the ID of a virtual machine", id, prefix)
	}
	return int(vm), nil
}
