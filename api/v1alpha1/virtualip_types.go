package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// AddressFinalizer is on every VirtualIP: only the cloud-controller-manager
// removes the object, after the address is back.
const AddressFinalizer = "onelb.io/address"

// Phase is where an address is in its life.
// +kubebuilder:validation:Enum=Active;Releasing;Quarantined;Claiming;Ahead;Ending;SetAside
type Phase string

const (
	// PhaseActive: at least one Service has the address.
	PhaseActive Phase = "Active"
	// PhaseReleasing: no Service has it; router, holder and OpenNebula are letting go.
	PhaseReleasing Phase = "Releasing"
	// PhaseQuarantined: it is free everywhere, and waits before it is given again.
	PhaseQuarantined Phase = "Quarantined"
	// PhaseClaiming: it is about to be put on hold (pools with reservation none,
	// as all that follow).
	PhaseClaiming Phase = "Claiming"
	// PhaseAhead: it is on hold for the next Service that needs one.
	PhaseAhead Phase = "Ahead"
	// PhaseEnding: its hold is being ended.
	PhaseEnding Phase = "Ending"
	// PhaseSetAside: nobody knows whether the hold that it has in OpenNebula is
	// ours. It is neither given nor released. Release it in OpenNebula if nobody
	// there needs it, or delete the VirtualIP if it is somebody else's.
	PhaseSetAside Phase = "SetAside"
)

// TrafficPolicy is a Service's externalTrafficPolicy.
// +kubebuilder:validation:Enum=Cluster;Local
type TrafficPolicy string

const (
	// TrafficPolicyCluster: every node may hold the address.
	TrafficPolicyCluster TrafficPolicy = "Cluster"
	// TrafficPolicyLocal: only nodes with a ready endpoint of the Service.
	TrafficPolicyLocal TrafficPolicy = "Local"
)

// Role is what an address is for.
// +kubebuilder:validation:Enum=L2;Router;Inner;BGP
type Role string

const (
	// RoleL2: published, held by a node.
	RoleL2 Role = "L2"
	// RoleRouter: published, held by a virtual router; with forward Route by a node
	// as well, behind it.
	RoleRouter Role = "Router"
	// RoleInner: the private address behind a RoleRouter address of the same
	// Service with forward VIP, held by a node.
	RoleInner Role = "Inner"
	// RoleBGP: published, announced by all nodes that may.
	RoleBGP Role = "BGP"
)

// VirtualIP is one allocated address. It is named after the address, so that
// the API server itself refuses a second allocation. It is the record of IPAM
// and what node agents act on. It is made and removed by the
// cloud-controller-manager; see VirtualIPName for the name.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,path=virtualips,singular=virtualip,shortName=vip;vips
// +kubebuilder:printcolumn:name="Address",type=string,JSONPath=`.spec.address`
// +kubebuilder:printcolumn:name="Pool",type=string,JSONPath=`.spec.pool`
// +kubebuilder:printcolumn:name="Service",type=string,JSONPath=`.spec.services[*].name`
// +kubebuilder:printcolumn:name="Namespace",type=string,JSONPath=`.spec.services[*].namespace`
// +kubebuilder:printcolumn:name="Role",type=string,JSONPath=`.spec.role`
// +kubebuilder:printcolumn:name="Holder",type=string,JSONPath=`.status.holder.name`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Announcers",type=string,JSONPath=`.status.announcers[*].node`,priority=1
// +kubebuilder:printcolumn:name="OnHold",type=string,JSONPath=`.status.conditions[?(@.type=="OnHold")].status`,priority=1
// +kubebuilder:printcolumn:name="KeptFor",type=string,JSONPath=`.spec.retain.name`,priority=1
// +kubebuilder:printcolumn:name="KeptUntil",type=string,JSONPath=`.spec.retain.until`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="ip(self.spec.address).family() == 6 || self.metadata.name == self.spec.address",message="a VirtualIP is named after its address"
type VirtualIP struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   VirtualIPSpec   `json:"spec"`
	Status VirtualIPStatus `json:"status,omitempty"`
}

// VirtualIPSpec is written by the cloud-controller-manager.
//
// +kubebuilder:validation:XValidation:rule="self.address == oldSelf.address",message="spec.address cannot be changed"
// +kubebuilder:validation:XValidation:rule="self.pool == oldSelf.pool",message="spec.pool cannot be changed"
// +kubebuilder:validation:XValidation:rule="self.role == oldSelf.role || (has(oldSelf.direct) && oldSelf.direct.state == 'Ahead')",message="spec.role cannot be changed"
// +kubebuilder:validation:XValidation:rule="has(self.direct) == has(oldSelf.direct)",message="spec.direct cannot be added or removed"
// +kubebuilder:validation:XValidation:rule="(self.role == 'Router') == has(self.router)",message="spec.router is required with role Router, and only there"
type VirtualIPSpec struct {
	// Address in canonical form, for example 203.0.113.7 or 2001:db8::7.
	// +kubebuilder:validation:MaxLength=45
	// +kubebuilder:validation:XValidation:rule="isIP(self) && ip.isCanonical(self)",message="not an IP address in canonical form"
	Address string `json:"address"`
	// Pool is the AddressPool that the address is from.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Pool string `json:"pool"`
	// Role is what the address is for.
	Role Role `json:"role"`
	// Services behind the address, sorted by namespace and name. Empty: the
	// address is being released; nobody may hold it.
	// +optional
	// +listType=map
	// +listMapKey=uid
	// +kubebuilder:validation:MaxItems=64
	Services []ServiceReference `json:"services,omitempty"`
	// Share is the key (annotation onelb.io/share) with which Services share the
	// address. Empty: it is one Service's alone.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Share string `json:"share,omitempty"`
	// Retain keeps the address, which no Service has, for a Service of this name:
	// nobody else gets it, and nobody answers for it. Delete the VirtualIP to give
	// the address back before the time is over.
	// +optional
	Retain *Retention `json:"retain,omitempty"`
	// ReleaseTime is when the last Service was taken off the address.
	// +optional
	ReleaseTime *metav1.Time `json:"releaseTime,omitempty"`
	// TrafficPolicy of the Services.
	// +kubebuilder:default=Cluster
	TrafficPolicy TrafficPolicy `json:"trafficPolicy,omitempty"`
	// Interfaces is copied from the pool, see L2Spec.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Interfaces []string `json:"interfaces,omitempty"`
	// NodeSelector is copied from the pool, see L2Spec and BGPSpec, written like "a=b,!c".
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	NodeSelector string `json:"nodeSelector,omitempty"`
	// NodePreferences are copied from the pool, see L2Spec.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	NodePreferences []NodeWeight `json:"nodePreferences,omitempty"`
	// Router is the virtual router that holds the address (role Router).
	// +optional
	Router *VirtualIPRouter `json:"router,omitempty"`
	// Direct is set for addresses of pools with reservation none: they are on hold
	// in the pool's network itself.
	// +optional
	Direct *DirectHold `json:"direct,omitempty"`
	// Guard limits who may hold the address (pools with guard alias). Nil: every
	// node may.
	// +optional
	Guard *Guard `json:"guard,omitempty"`
}

// HeldByNode reports whether one node at a time holds the address.
func (s *VirtualIPSpec) HeldByNode() bool {
	return s.Role == RoleL2 || s.Role == RoleInner || s.Router != nil && s.Router.Forward == ForwardRoute
}

// Guard names the nodes that OpenNebula lets send from an address.
type Guard struct {
	// Candidates are the nodes that have, had or will have the address as an
	// alias of their NIC, sorted by node. Only one that is Attached may hold the
	// address. The hold in OpenNebula does not end before the list is empty.
	// +optional
	// +listType=map
	// +listMapKey=node
	// +listMapKey=machine
	// +kubebuilder:validation:MaxItems=64
	Candidates []Candidate `json:"candidates,omitempty"`
}

// CandidateState says how far OpenNebula is with the alias of a candidate.
// +kubebuilder:validation:Enum=Attaching;Attached;Detaching
type CandidateState string

const (
	// CandidateAttaching: the alias is being attached, or has been lost.
	CandidateAttaching CandidateState = "Attaching"
	// CandidateAttached: OpenNebula has confirmed the alias.
	CandidateAttached CandidateState = "Attached"
	// CandidateDetaching: the node hands the address on, then loses the alias.
	CandidateDetaching CandidateState = "Detaching"
)

// Candidate is a node that can hold a guarded address.
type Candidate struct {
	// Node is the name of the node.
	Node string `json:"node"`
	// Machine is the node's virtual machine in OpenNebula.
	Machine int32 `json:"machine"`
	// State of the alias.
	State CandidateState `json:"state"`
}

// DirectState is what is known of the hold of an address of a pool with
// reservation none. Services have it, or it is being released, if it is Held or
// Doubtful; nobody has it in the other states.
// +kubebuilder:validation:Enum=Claiming;Ahead;Held;Doubtful;Ending;SetAside
type DirectState string

const (
	// DirectClaiming: the address is about to be put on hold.
	DirectClaiming DirectState = "Claiming"
	// DirectAhead: the hold is ours, and the address can be given.
	DirectAhead DirectState = "Ahead"
	// DirectHeld: the hold is ours, and the address was given.
	DirectHeld DirectState = "Held"
	// DirectDoubtful: the address was given, and its hold taken away or in doubt.
	DirectDoubtful DirectState = "Doubtful"
	// DirectEnding: the hold is about to end, or has just ended.
	DirectEnding DirectState = "Ending"
	// DirectSetAside: whose the hold is, is not known.
	DirectSetAside DirectState = "SetAside"
)

// DirectHold tells about a hold in a pool's network itself.
//
// +kubebuilder:validation:XValidation:rule="self.networkID == oldSelf.networkID",message="spec.direct.networkID cannot be changed"
type DirectHold struct {
	// NetworkID is the OpenNebula ID of the network.
	// +kubebuilder:validation:Minimum=0
	NetworkID int32 `json:"networkID"`
	// State of the hold.
	State DirectState `json:"state"`
	// Kept says that the deletion of the VirtualIP was asked for before it was set
	// aside. It ends when the hold in OpenNebula does, and not by that deletion.
	// +optional
	Kept bool `json:"kept,omitempty"`
}

// NodeWeight is a NodePreference with the selector in one line.
type NodeWeight struct {
	Weight int32 `json:"weight"`
	// +kubebuilder:validation:MaxLength=4096
	Selector string `json:"selector"`
}

// ServiceReference names a Service and the very object that had that name.
type ServiceReference struct {
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	UID       types.UID `json:"uid"`
	// Ports that the Service has of a shared address, for example 80/TCP,
	// sorted. No two Services have the same one. Empty unless spec.share is set.
	// +optional
	// +listType=atomic
	Ports []string `json:"ports,omitempty"`
	// Retain is for how long the address is kept when the Service goes, and was
	// the last one (annotation onelb.io/retain).
	// +optional
	Retain *metav1.Duration `json:"retain,omitempty"`
}

// Retention keeps an address for the next Service of a name.
type Retention struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Until is when the address is released if no such Service has come.
	Until metav1.Time `json:"until"`
}

// MaxSharing is how many Services may share an address.
const MaxSharing = 64

// VirtualIPRouter is the router side of an address.
type VirtualIPRouter struct {
	// Name of the router in the cloud-config file.
	Name string `json:"name"`
	// Forward says how packets get from the router to the pods.
	Forward Forward `json:"forward"`
}

// VirtualIPStatus has two writers: the cloud-controller-manager writes all but
// Holder, Announcers and the condition AddressConflict, which node agents write. Both patch
// their own fields only.
type VirtualIPStatus struct {
	// Phase of the address' life.
	// +optional
	Phase Phase `json:"phase,omitempty"`
	// Holder is the node that answers for the address. Nil: none does.
	// +optional
	// +nullable
	Holder *Holder `json:"holder,omitempty"`
	// Announcers are the nodes that announce the address to BGP peers (role BGP),
	// sorted. When many addresses change at once it takes a while until all say so.
	// +optional
	// +nullable
	// +listType=map
	// +listMapKey=node
	// +kubebuilder:validation:MaxItems=5000
	Announcers []Announcer `json:"announcers,omitempty"`
	// Router tells how far the router is (role Router).
	// +optional
	Router *RouterState `json:"router,omitempty"`
	// ReleasedAt is when OpenNebula had the address back; quarantine counts from here.
	// +optional
	ReleasedAt *metav1.Time `json:"releasedAt,omitempty"`
	// Conditions: OnHold, AddressConflict.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Holder is a node that answers ARP and NDP for an address.
type Holder struct {
	// Name of the node.
	Name string `json:"name"`
	// Interface of the node that has the address.
	Interface string `json:"interface"`
	// Since is when this node took the address.
	Since metav1.MicroTime `json:"since"`
	// Epoch counts the takeovers of the address; the higher claim wins.
	Epoch int64 `json:"epoch"`
}

// Announcer is a node that announces an address.
type Announcer struct {
	// Node is the name of the node.
	Node string `json:"node"`
	// Peers are the names of the BGPPeers that get the address from it, sorted.
	// +listType=set
	Peers []string `json:"peers"`
}

// RouterState is what the router last acknowledged for an address.
type RouterState struct {
	// Generation of the router's document in which the address is programmed.
	Generation int64 `json:"generation"`
}

// Conditions of a VirtualIP.
const (
	// VirtualIPOnHold is true when the address is on hold in OpenNebula.
	VirtualIPOnHold = "OnHold"
	// VirtualIPAddressConflict is true while a host that is no node claims the address.
	VirtualIPAddressConflict = "AddressConflict"
)

// VirtualIPList is a list of VirtualIPs.
//
// +kubebuilder:object:root=true
type VirtualIPList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []VirtualIP `json:"items"`
}
