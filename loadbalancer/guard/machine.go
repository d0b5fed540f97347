package guard

import (
	"context"
	"net/netip"
	"slices"
)

// Machine is a virtual machine as read from OpenNebula.
type Machine struct {
	ID int
	// State in OpenNebula's words.
	State string
	// Alive: it runs, or is on its way to.
	Alive bool
	// Gone: it was terminated and has no NICs any more.
	Gone bool
	// Settled: no hotplug is under way, and a new one may begin.
	Settled bool
	NICs    []NIC
}

// NIC is a network interface of a machine, or an alias of one.
type NIC struct {
	ID    int
	Name  string
	Alias bool
	// Network it is in, and Parent, the network that this is a reservation of; -1
	// if there is none.
	Network, Parent int
	Addresses       []netip.Addr
	// Changing: it is being attached or detached.
	Changing bool
	// Filtered: see the package comment.
	Filtered bool
}

// OpenNebula is what guard needs of it. Errors wrap the sentinels of package
// ipam: ErrNotFound, ErrNotReady (no hotplug in this state), ErrInUse, ErrDenied.
// Every call has a deadline of its own.
type OpenNebula interface {
	// Machines lists those that can be seen; it may be a few seconds old.
	Machines(ctx context.Context) ([]Machine, error)
	// Machine reads one, fresh.
	Machine(ctx context.Context, id int) (Machine, error)
	// AttachAlias and DetachNIC begin a hotplug. Success does not mean that it works.
	AttachAlias(ctx context.Context, machine, network int, parent string, a netip.Addr) error
	DetachNIC(ctx context.Context, machine, nic int) error
}

// carrier is the machine's NIC in the network of a pool: the one that its
// addresses are sent from.
func (m Machine) carrier(p Pool) (NIC, bool) {
	for _, n := range m.NICs {
		if !n.Alias && !n.Changing && p.Network >= 0 && (n.Network == p.Network || n.Parent == p.Network) {
			return n, true
		}
	}
	return NIC{}, false
}

// alias is the alias that has an address of the reservation, or, if that is not
// known (-1), of any network.
func (m Machine) alias(reservation int, a netip.Addr) (NIC, bool) {
	i := slices.IndexFunc(m.NICs, func(n NIC) bool {
		return n.Alias && (reservation < 0 || n.Network == reservation) && slices.Contains(n.Addresses, a)
	})
	if i < 0 {
		return NIC{}, false
	}
	return m.NICs[i], true
}
