package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// BGPConfigurationName is the name of the one BGPConfiguration.
const BGPConfigurationName = "default"

// BGPConfiguration holds what all BGP sessions of the cluster have in common.
// There is one, called default; without it no node speaks BGP.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=bgpconfigurations,singular=bgpconfiguration
// +kubebuilder:printcolumn:name="ASN",type=integer,JSONPath=`.spec.asn`
// +kubebuilder:printcolumn:name="Listen",type=integer,JSONPath=`.spec.listenPort`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name == 'default'",message="there is one BGPConfiguration, and it is called default"
type BGPConfiguration struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec BGPConfigurationSpec `json:"spec"`
}

// BGPConfigurationSpec is what a person asks for.
type BGPConfigurationSpec struct {
	// ASN is the autonomous system of the nodes. Changing it begins all sessions
	// anew.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4294967294
	ASN int64 `json:"asn"`

	// ListenPort is where the nodes take connections of their peers, on the
	// addresses that they have as InternalIP. Default: nothing listens, the nodes
	// connect to the peers. Changing it begins all sessions anew.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	ListenPort *int32 `json:"listenPort,omitempty"`
}

// BGPConfigurationList is a list of BGPConfigurations.
//
// +kubebuilder:object:root=true
type BGPConfigurationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []BGPConfiguration `json:"items"`
}

// BGPFamily is a family of addresses of which routes are announced.
// +kubebuilder:validation:Enum=IPv4;IPv6
type BGPFamily string

const (
	// BGPFamilyIPv4 is IPv4 unicast.
	BGPFamilyIPv4 BGPFamily = "IPv4"
	// BGPFamilyIPv6 is IPv6 unicast.
	BGPFamilyIPv6 BGPFamily = "IPv6"
)

// BGPPeer is a router to which nodes announce the addresses of pools with exposure
// BGP. Nodes accept no routes from it.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=bgppeers,singular=bgppeer
// +kubebuilder:printcolumn:name="Address",type=string,JSONPath=`.spec.address`
// +kubebuilder:printcolumn:name="Interface",type=string,JSONPath=`.spec.interface`,priority=1
// +kubebuilder:printcolumn:name="ASN",type=integer,JSONPath=`.spec.asn`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 63",message="the name of a BGPPeer has at most 63 characters"
type BGPPeer struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec BGPPeerSpec `json:"spec"`
}

// BGPPeerSpec is what a person asks for. Timers are whole seconds. An edit of
// communities and the like of a pool, of the BFD settings and of the timers leaves
// the session as it is (a new hold time counts from the next session on); an edit of
// anything else begins the session anew. What a node cannot follow, such as a
// passwordKey that the Secret lacks, leaves its running session as it is, and
// stands in its BGPNode.
//
// +kubebuilder:validation:XValidation:rule="has(self.address) != has(self.interface)",message="a peer has either an address or an interface"
// +kubebuilder:validation:XValidation:rule="!has(self.sourceAddress) || !has(self.address) || ip(self.sourceAddress).family() == ip(self.address).family()",message="sourceAddress and address are of the same family"
// +kubebuilder:validation:XValidation:rule="!has(self.interface) || !(has(self.sourceAddress) || has(self.multihop) || has(self.vrf))",message="sourceAddress, multihop and vrf do not go with interface"
// +kubebuilder:validation:XValidation:rule="!(has(self.bfd) && has(self.vrf))",message="bfd does not go with vrf"
// +kubebuilder:validation:XValidation:rule="!(has(self.bfd) && has(self.multihop))",message="bfd is for peers on the same network: it does not go with multihop"
// +kubebuilder:validation:XValidation:rule="!has(self.keepaliveTime) || duration(self.keepaliveTime) <= duration(has(self.holdTime) ? self.holdTime : '90s')",message="keepaliveTime is at most holdTime"
type BGPPeerSpec struct {
	// Address of the peer.
	// +optional
	// +kubebuilder:validation:MaxLength=45
	// +kubebuilder:validation:XValidation:rule="isIP(self) && ip.isCanonical(self)",message="not an IP address in canonical form"
	Address string `json:"address,omitempty"`

	// Interface of the nodes at whose other end the peer is, in place of its address
	// ("unnumbered"): nodes and peer find each other's link-local addresses by router
	// advertisements, and routes of both families have such an address as next hop
	// (RFC 8950).
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=15
	// +kubebuilder:validation:Pattern=`^[^/\s%:]+$`
	Interface string `json:"interface,omitempty"`

	// VRF is the device of the VRF through which the nodes reach the peer. Default:
	// none.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=15
	// +kubebuilder:validation:Pattern=`^[^/\s%:]+$`
	VRF string `json:"vrf,omitempty"`

	// Port of the peer. Default 179.
	// +optional
	// +kubebuilder:default=179
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`

	// ASN is the autonomous system of the peer. With the nodes' own it is an
	// internal peer.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4294967294
	ASN int64 `json:"asn"`

	// LocalASN is the autonomous system that the nodes have for this peer.
	// Default: that of the BGPConfiguration.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4294967294
	LocalASN *int64 `json:"localASN,omitempty"`

	// PasswordKey is the key, in the Secret onelb-bgp of the namespace
	// onelb-system, of the password with which the session is signed (TCP MD5,
	// RFC 2385). Default: none.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9][-._A-Za-z0-9]*$`
	PasswordKey string `json:"passwordKey,omitempty"`

	// HoldTime is how long either side waits for a word of the other before the
	// session is over. 3s to 1h. Default 90s.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('3s') && duration(self) <= duration('1h')",message="holdTime is from 3s to 1h"
	HoldTime *metav1.Duration `json:"holdTime,omitempty"`

	// KeepaliveTime is how often the node says a word. Default: a third of the
	// hold time.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s')",message="keepaliveTime is 1s or more"
	KeepaliveTime *metav1.Duration `json:"keepaliveTime,omitempty"`

	// ConnectRetryTime is how long a node waits before it tries again to connect.
	// Default 10s.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('2s') && duration(self) <= duration('1h')",message="connectRetryTime is from 2s to 1h"
	ConnectRetryTime *metav1.Duration `json:"connectRetryTime,omitempty"`

	// Multihop is how many hops away an external peer may be. Default: it is on a
	// network of the node.
	// +optional
	// +kubebuilder:validation:Minimum=2
	// +kubebuilder:validation:Maximum=255
	Multihop *int32 `json:"multihop,omitempty"`

	// SourceAddress is the node's end of the session. It is meant for a peer that
	// one node has. Default: the kernel chooses.
	// +optional
	// +kubebuilder:validation:MaxLength=45
	// +kubebuilder:validation:XValidation:rule="isIP(self) && ip.isCanonical(self)",message="not an IP address in canonical form"
	SourceAddress string `json:"sourceAddress,omitempty"`

	// GracefulRestart asks the peer to keep the routes while the node's agent
	// restarts (RFC 4724).
	// +optional
	// +kubebuilder:default={}
	GracefulRestart BGPGracefulRestart `json:"gracefulRestart,omitempty"`

	// BFD finds out in less than a second that the peer is gone (RFC 5880). The
	// peer needs it too. While it is used, the node listens on UDP port 3784.
	// Default: off.
	// +optional
	BFD *BFDProfile `json:"bfd,omitempty"`

	// NodeSelector names the nodes that have this peer. Default: all.
	// +optional
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`

	// Families of which routes are announced to the peer. For a family other than
	// the session's, the next hop is the node's InternalIP of that family.
	// Default: the family of the peer's address; both with an interface.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=2
	Families []BGPFamily `json:"families,omitempty"`
}

// BGPGracefulRestart tunes what the peer does while the agent is away.
type BGPGracefulRestart struct {
	// Enabled is true by default.
	// +optional
	// +kubebuilder:default=true
	Enabled *bool `json:"enabled,omitempty"`
	// RestartTime is how long the peer keeps the routes. 1s to 1h. Default 120s.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('1h')",message="restartTime is from 1s to 1h"
	RestartTime *metav1.Duration `json:"restartTime,omitempty"`
}

// BFDProfile tunes how fast a silent peer is found.
type BFDProfile struct {
	// Interval between two packets, each way. 50ms to 10s. Default 300ms.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('50ms') && duration(self) <= duration('10s')",message="interval is from 50ms to 10s"
	Interval *metav1.Duration `json:"interval,omitempty"`
	// Multiplier is how many packets have to be missing. Default 3.
	// +optional
	// +kubebuilder:validation:Minimum=2
	// +kubebuilder:validation:Maximum=50
	Multiplier int32 `json:"multiplier,omitempty"`
}

// BGPPeerList is a list of BGPPeers.
//
// +kubebuilder:object:root=true
type BGPPeerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []BGPPeer `json:"items"`
}

// BGPSpec says how nodes announce the addresses of a pool.
type BGPSpec struct {
	// Peers are the names of the BGPPeers to which the addresses are announced.
	// Default: all.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	Peers []string `json:"peers,omitempty"`

	// NodeSelector names the nodes that may announce the addresses. Default: all.
	// +optional
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`

	// Communities that the routes carry, such as 64512:100, or no-export,
	// no-advertise, no-peer, graceful-shutdown, blackhole.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=32
	// +kubebuilder:validation:items:Pattern=`^([0-9]{1,5}:[0-9]{1,5}|no-export|no-advertise|no-peer|graceful-shutdown|blackhole)$`
	Communities []string `json:"communities,omitempty"`

	// LargeCommunities that the routes carry, such as 64512:1:2 (RFC 8092).
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=32
	// +kubebuilder:validation:items:Pattern=`^[0-9]{1,10}:[0-9]{1,10}:[0-9]{1,10}$`
	LargeCommunities []string `json:"largeCommunities,omitempty"`

	// LocalPreference of the routes; only internal peers get it. Default 100.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4294967295
	LocalPreference *int64 `json:"localPreference,omitempty"`

	// MED is the multi-exit discriminator of the routes. Default: none.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4294967295
	MED *int64 `json:"med,omitempty"`

	// AggregationLength makes one route of the IPv4 addresses that have this many
	// bits in common. All of the network of that length must belong to the pool, or
	// the nodes draw traffic that is not theirs. Addresses of Services with
	// externalTrafficPolicy Local are announced one by one. Default 32.
	// +optional
	// +kubebuilder:validation:Minimum=8
	// +kubebuilder:validation:Maximum=32
	AggregationLength *int32 `json:"aggregationLength,omitempty"`

	// AggregationLengthV6 is the same for IPv6. Default 128.
	// +optional
	// +kubebuilder:validation:Minimum=16
	// +kubebuilder:validation:Maximum=128
	AggregationLengthV6 *int32 `json:"aggregationLengthV6,omitempty"`
}

// BGPNode is how it stands with the BGP sessions of one node. It is named after
// the node, whose agent makes and writes it, and goes with the Node.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,path=bgpnodes,singular=bgpnode
// +kubebuilder:printcolumn:name="ASN",type=integer,JSONPath=`.status.asn`
// +kubebuilder:printcolumn:name="Peers",type=integer,JSONPath=`.status.peers`
// +kubebuilder:printcolumn:name="Established",type=integer,JSONPath=`.status.established`
// +kubebuilder:printcolumn:name="Routes",type=integer,JSONPath=`.status.routes`
// +kubebuilder:printcolumn:name="Errors",type=string,JSONPath=`.status.sessions[*].lastError`,priority=1
// +kubebuilder:printcolumn:name="Problems",type=string,JSONPath=`.status.problems`
type BGPNode struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Status BGPNodeStatus `json:"status,omitempty"`
}

// BGPNodeStatus is what there is.
type BGPNodeStatus struct {
	// ASN of the node.
	// +optional
	ASN int64 `json:"asn"`
	// RouterID of the node.
	// +optional
	RouterID string `json:"routerID"`
	// Peers is how many BGPPeers the node has.
	// +optional
	Peers int32 `json:"peers"`
	// Established is with how many of them there is a session.
	// +optional
	Established int32 `json:"established"`
	// Routes is how many routes the node has to announce.
	// +optional
	Routes int32 `json:"routes"`
	// Sessions, sorted by peer.
	// +optional
	// +listType=map
	// +listMapKey=peer
	Sessions []BGPSession `json:"sessions"`
	// Problems are what the node cannot follow of the configuration. It goes on
	// with what it had.
	// +optional
	// +listType=atomic
	Problems []string `json:"problems"`
}

// BGPEstablished is the State of a session that stands.
const BGPEstablished = "Established"

// Reasons of a BGPSession that does not stand.
const (
	BGPReasonPeerASN   = "PeerASN"
	BGPReasonLocalASN  = "LocalASN"
	BGPReasonSilent    = "Silent"
	BGPReasonTooFar    = "TooFar"
	BGPReasonRefused   = "Refused"
	BGPReasonHoldTime  = "HoldTime"
	BGPReasonBFD       = "BFD"
	BGPReasonPeerEnded = "PeerEnded"
	BGPReasonNodeEnded = "NodeEnded"
	BGPReasonBroken    = "Broken"
)

// BGPSession is how it stands with one peer.
type BGPSession struct {
	// Peer is the name of the BGPPeer.
	Peer string `json:"peer"`
	// Address of the peer.
	Address string `json:"address"`
	// State is Idle, Connect, Active, OpenSent, OpenConfirm or Established.
	State string `json:"state"`
	// Since is when the session came up, or broke.
	// +optional
	Since *metav1.Time `json:"since,omitempty"`
	// Announced is how many routes the peer gets.
	// +optional
	Announced int32 `json:"announced"`
	// Received is how many routes the peer has sent. None is accepted.
	// +optional
	Received int32 `json:"received"`
	// GracefulRestart: the peer keeps the routes while the node's agent restarts.
	// +optional
	GracefulRestart bool `json:"gracefulRestart"`
	// Families of which the peer takes routes.
	// +optional
	// +listType=set
	Families []BGPFamily `json:"families,omitempty"`
	// HoldTime that node and peer have agreed on: the shorter one.
	// +optional
	HoldTime *metav1.Duration `json:"holdTime,omitempty"`
	// BFD is Up, Down, Init or AdminDown; empty: it is not used.
	// +optional
	BFD string `json:"bfd,omitempty"`
	// LastError is why there is no session.
	// +optional
	LastError string `json:"lastError,omitempty"`
	// Reason is the kind of LastError: PeerASN (the peer is in another autonomous
	// system), LocalASN (it expects another one of the node), Silent (no answer: no
	// way to it, another password, too few hops), TooFar (it is on none of the node's
	// networks, and multihop is not set), Refused (no connection), HoldTime (it was
	// silent), BFD, PeerEnded, NodeEnded, Broken. Empty: none is known.
	// +optional
	Reason string `json:"reason,omitempty"`
}

// BGPNodeList is a list of BGPNodes.
//
// +kubebuilder:object:root=true
type BGPNodeList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []BGPNode `json:"items"`
}
