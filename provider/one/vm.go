package one

import (
	"net/netip"

	gocavm "github.com/OpenNebula/one/src/oca/go/src/goca/schemas/vm"
)

// VMState is the state of a virtual machine, with OpenNebula's numbers.
type VMState int

// The states of a virtual machine.
const (
	VMInit           VMState = 0
	VMPending        VMState = 1
	VMHold           VMState = 2
	VMActive         VMState = 3 // LCMState says more
	VMStopped        VMState = 4
	VMSuspended      VMState = 5
	VMDone           VMState = 6 // terminated; it never comes back
	VMPowerOff       VMState = 8
	VMUndeployed     VMState = 9
	VMCloning        VMState = 10
	VMCloningFailure VMState = 11
)

var vmStates = []string{"INIT", "PENDING", "HOLD", "ACTIVE", "STOPPED", "SUSPENDED", "DONE", "FAILED", "POWEROFF", "UNDEPLOYED", "CLONING", "CLONING_FAILURE"}

// String is OpenNebula's name of the state.
func (s VMState) String() string { return stateName(vmStates, int(s)) }

// LCMState is the state of an ACTIVE virtual machine in its life cycle.
type LCMState int

// LCMStates are all that this release knows, in the order of their numbers.
func LCMStates() []LCMState {
	var out []LCMState
	for s := range LCMState(256) {
		if gocavm.LCMState(s).String() != "" {
			out = append(out, s)
		}
	}
	return out
}

// VMStates are all that this release knows, in the order of their numbers.
func VMStates() []VMState {
	return []VMState{
		VMInit, VMPending, VMHold, VMActive, VMStopped, VMSuspended, VMDone, VMPowerOff, VMUndeployed, VMCloning, VMCloningFailure,
	}
}

// The states of an ACTIVE machine that matter here.
const (
	LCMRunning LCMState = 3  // only now it takes a hotplug
	LCMUnknown LCMState = 16 // its host does not answer
)

// String is OpenNebula's name of the state.
func (s LCMState) String() string {
	if name := gocavm.LCMState(s).String(); name != "" {
		return name
	}
	return stateName(nil, int(s))
}

// VM is one virtual machine as read from OpenNebula.
type VM struct {
	ID       int
	Name     string
	Owner    string // name of the OpenNebula user who owns it
	State    VMState
	LCMState LCMState
	// UUID is the one its firmware shows to the guest; empty if it has none.
	UUID string
	// NICs are sorted by ID; aliases have IDs in the same space.
	NICs []NIC
	// Rules are those of the security groups of all NICs.
	Rules []Rule
	// Host is the name of the host it runs, or ran last, on; empty if it never ran.
	Host string
	// HostID is that host's ID, -1 if it never ran.
	HostID int
	// ClusterID is that host's cluster, -1 if it never ran.
	ClusterID int
	CPU       float64 // physical CPU share, in cores
	VCPU      int     // virtual CPUs, at least 1
	MemoryMB  int     // MiB, as OpenNebula counts
	// VirtualRouter: it is an instance of a virtual router.
	VirtualRouter bool
	// Attributes are the single-valued attributes of its user template.
	Attributes map[string]string
	// Err is set in a list when the document of this machine makes no sense;
	// then only ID, Name and Owner are valid. One machine of somebody else must
	// not hide all others.
	Err error
}

// NIC is a network interface, or an alias: further addresses on one.
type NIC struct {
	ID        int
	Name      string // NIC0, or what the machine's template calls it
	Alias     bool
	Network   string
	NetworkID int // -1 if it is in no virtual network
	// ParentNetworkID is the network that this one is a reservation of, or -1.
	ParentNetworkID int
	Addresses       []netip.Addr // IPv4, IPv6 static, global, ULA, in this order
	// Attaching: the NIC is being attached or detached, which may fail yet.
	Attaching bool
	// External: OpenNebula does not configure the alias in the guest.
	External bool
	// SpoofingFilter: the host drops what comes from it with a source that is
	// neither its own address nor one of its aliases.
	SpoofingFilter bool
	// SecurityGroups are those of the NIC; empty: nothing is filtered by port.
	SecurityGroups []int
}
