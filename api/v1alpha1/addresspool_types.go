package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PoolFinalizer is on every AddressPool: its deletion waits until the last of
// its addresses is back in OpenNebula.
const PoolFinalizer = "onelb.io/pool"

const (
	// OfferedByLabel marks an AddressPool that was made of an attribute of a
	// virtual network, and follows it. Who removes the label takes the pool over.
	OfferedByLabel = "onelb.io/offered-by"
	// OfferedByOpenNebula is its value.
	OfferedByOpenNebula = "opennebula"
	// OfferNetworkAnnotation is the ID of the network that offers the pool.
	OfferNetworkAnnotation = "onelb.io/offered-by-network"
	// OfferProblemAnnotation says why the pool does not follow its network now.
	OfferProblemAnnotation = "onelb.io/offer-problem"
)

// Exposure says how the addresses of a pool are made reachable.
// +kubebuilder:validation:Enum=L2;Router;BGP
type Exposure string

const (
	// ExposureL2: the pool's network is the nodes' own; one node holds each
	// address and answers ARP and NDP for it.
	ExposureL2 Exposure = "L2"
	// ExposureRouter: the pool's network is on the outer leg of a virtual
	// router, which holds the addresses and translates them.
	ExposureRouter Exposure = "Router"
	// ExposureBGP: the pool's network is routed to the nodes; all that are
	// eligible announce the addresses to their BGP peers.
	ExposureBGP Exposure = "BGP"
)

// Forward says how a router brings traffic for a public address to the pods.
// +kubebuilder:validation:Enum=NodePort;VIP;Pod;Route
type Forward string

const (
	// ForwardNodePort spreads new connections over the NodePorts of healthy nodes.
	ForwardNodePort Forward = "NodePort"
	// ForwardVIP maps the public address onto a second, private address from an
	// L2 pool that one node holds. Needs no NodePorts.
	ForwardVIP Forward = "VIP"
	// ForwardPod spreads new connections over the ready pods of healthy nodes,
	// past kube-proxy. The router needs routes to the pods; where it has none,
	// NodePorts are used. Needs no NodePorts otherwise.
	ForwardPod Forward = "Pod"
	// ForwardRoute translates nothing: one node holds the public address on the
	// nodes' own network, as it does with exposure L2, and the router passes packets
	// for it on to that node. Needs no NodePorts.
	ForwardRoute Forward = "Route"
)

// SNAT says whose address the backends of a router see.
// +kubebuilder:validation:Enum=auto;always;never
type SNAT string

const (
	// SNATAuto: the client's, where the reply then comes back through the router.
	SNATAuto SNAT = "auto"
	// SNATAlways: the router's.
	SNATAlways SNAT = "always"
	// SNATNever: the client's.
	SNATNever SNAT = "never"
)

// Reservation says what a pool does with its network in OpenNebula.
// +kubebuilder:validation:Enum=child;none
type Reservation string

const (
	// ReservationChild cuts a reservation, a child network of our own, out of the
	// pool's network. Needs USE on it.
	ReservationChild Reservation = "child"
	// ReservationNone puts single addresses of the pool's network on hold. Needs
	// USE and MANAGE on it.
	ReservationNone Reservation = "none"
)

// GuardMode says how the addresses of a pool get past OpenNebula's filter
// against forged addresses.
// +kubebuilder:validation:Enum=none;alias
type GuardMode string

const (
	// GuardNone: addresses are only held. A network with FILTER_IP_SPOOFING
	// drops what nodes send from them.
	GuardNone GuardMode = "none"
	// GuardAlias: each address is attached to a few nodes ahead of time, as an
	// alias of their NICs; only these hold it.
	GuardAlias GuardMode = "alias"
)

// AddressPool says where addresses come from and how they are exposed.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=pool;pools
// +kubebuilder:printcolumn:name="Network",type=string,JSONPath=`.status.networkName`
// +kubebuilder:printcolumn:name="Exposure",type=string,JSONPath=`.spec.exposure`
// +kubebuilder:printcolumn:name="Used4",type=integer,JSONPath=`.status.ipv4.used`
// +kubebuilder:printcolumn:name="Free4",type=integer,JSONPath=`.status.ipv4.free`
// +kubebuilder:printcolumn:name="Used6",type=integer,JSONPath=`.status.ipv6.used`,priority=1
// +kubebuilder:printcolumn:name="Free6",type=integer,JSONPath=`.status.ipv6.free`,priority=1
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 63",message="the name of a pool has at most 63 characters: it is part of the name of its reservation in OpenNebula"
type AddressPool struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   AddressPoolSpec   `json:"spec"`
	Status AddressPoolStatus `json:"status,omitempty"`
}

// AddressPoolSpec is what a person asks for.
//
// +kubebuilder:validation:XValidation:rule="(self.exposure == 'Router') == has(self.router)",message="spec.router is required with exposure Router, and only there"
// +kubebuilder:validation:XValidation:rule="!has(self.l2) || self.exposure == 'L2'",message="spec.l2 is only for exposure L2"
// +kubebuilder:validation:XValidation:rule="!has(self.bgp) || self.exposure == 'BGP'",message="spec.bgp is only for exposure BGP"
// +kubebuilder:validation:XValidation:rule="self.network == oldSelf.network",message="spec.network cannot be changed: make a new pool and move the Services to it"
// +kubebuilder:validation:XValidation:rule="(has(self.reservation) ? self.reservation : 'child') == (has(oldSelf.reservation) ? oldSelf.reservation : 'child')",message="spec.reservation cannot be changed: make a new pool and move the Services to it"
// +kubebuilder:validation:XValidation:rule="!(has(self.l2) && has(self.l2.guard) && self.l2.guard == 'alias' && has(self.reservation) && self.reservation == 'none')",message="spec.l2.guard alias needs a reservation: leave out spec.reservation none"
// +kubebuilder:validation:XValidation:rule="(has(self.l2) && has(self.l2.guard) && self.l2.guard == 'alias') == (has(oldSelf.l2) && has(oldSelf.l2.guard) && oldSelf.l2.guard == 'alias')",message="spec.l2.guard cannot be changed: make a new pool and move the Services to it"
// +kubebuilder:validation:XValidation:rule="self.exposure == oldSelf.exposure",message="spec.exposure cannot be changed: make a new pool and move the Services to it"
type AddressPoolSpec struct {
	// Network is the OpenNebula virtual network that addresses are reserved from.
	Network NetworkReference `json:"network"`

	// Reservation says whether the pool has a reservation of its own in OpenNebula
	// (child, the default), or puts single addresses of the network on hold
	// (none), for users who may not reserve. Then a hold of which nobody knows any
	// more whether it is ours, after a crash at the wrong moment, is set aside
	// until a person decides: see VirtualIPs in phase SetAside.
	// +optional
	// +kubebuilder:default=child
	Reservation Reservation `json:"reservation,omitempty"`

	// Ranges limits the pool to these addresses of the network. Empty: all of
	// the network's addresses.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Ranges []AddressRange `json:"ranges,omitempty"`

	// Exposure says how the addresses are made reachable.
	Exposure Exposure `json:"exposure"`

	// AutoAssign lets Services that name no pool use this one. Default true.
	// +optional
	// +kubebuilder:default=true
	AutoAssign *bool `json:"autoAssign,omitempty"`

	// Priority orders the pools for Services that name none: the smallest
	// number first, then by name.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Priority int32 `json:"priority,omitempty"`

	// NamespaceSelector limits the pool to Services of namespaces with these
	// labels, also where they name the pool. It is looked at when an address is
	// given: a Service keeps what it has. Empty: all namespaces. The inner
	// addresses of a router's pool are not limited by it.
	// +optional
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`

	// ServiceSelector limits the pool to Services with these labels, as
	// NamespaceSelector does. With both, both have to match.
	// +optional
	ServiceSelector *metav1.LabelSelector `json:"serviceSelector,omitempty"`

	// ShareAcrossNamespaces lets Services of different namespaces share an address
	// of the pool (annotation onelb.io/share). Default false: only Services of
	// one namespace do.
	// +optional
	ShareAcrossNamespaces bool `json:"shareAcrossNamespaces,omitempty"`

	// AvoidEdgeAddresses keeps IPv4 addresses that end in .0 or .255 from being
	// given. Those that are in use stay.
	// +optional
	AvoidEdgeAddresses bool `json:"avoidEdgeAddresses,omitempty"`

	// Draining stops the pool from giving addresses. Those in use stay with
	// their Services, and what nobody has goes back to OpenNebula. The condition
	// Ready is then False with reason Draining.
	// +optional
	Draining bool `json:"draining,omitempty"`

	// ChunkSize is the number of addresses by which the reservation in
	// OpenNebula grows and shrinks. Default 8.
	// +optional
	// +kubebuilder:default=8
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=256
	ChunkSize int32 `json:"chunkSize,omitempty"`

	// ReserveAhead is the number of free addresses per family that are kept
	// reserved, so that a Service gets one without asking OpenNebula. Default 4.
	// +optional
	// +kubebuilder:default=4
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=256
	ReserveAhead *int32 `json:"reserveAhead,omitempty"`

	// Quarantine is how long a released address is kept from other Services.
	// Default 30s.
	// +optional
	// +kubebuilder:default="30s"
	Quarantine *metav1.Duration `json:"quarantine,omitempty"`

	// L2 tunes exposure L2.
	// +optional
	L2 *L2Spec `json:"l2,omitempty"`

	// Router names the virtual router of exposure Router.
	// +optional
	Router *RouterSpec `json:"router,omitempty"`

	// BGP tunes exposure BGP.
	// +optional
	BGP *BGPSpec `json:"bgp,omitempty"`
}

// NetworkReference names one OpenNebula virtual network.
//
// +kubebuilder:validation:XValidation:rule="has(self.id) != has(self.name)",message="give either id or name of the virtual network"
// +kubebuilder:validation:XValidation:rule="!has(self.owner) || has(self.name)",message="owner goes with name"
type NetworkReference struct {
	// ID of the virtual network.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ID *int32 `json:"id,omitempty"`
	// Name of the virtual network. Names are unique per owner only: if several
	// visible networks have it, give the owner or the ID.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Name string `json:"name,omitempty"`
	// Owner is the OpenNebula user who owns the network called Name.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Owner string `json:"owner,omitempty"`
}

// AddressRange is a run of addresses of one family, both ends included.
//
// +kubebuilder:validation:XValidation:rule="isIP(self.start) && isIP(self.end) && ip(self.start).family() == ip(self.end).family()",message="start and end are addresses of the same family"
type AddressRange struct {
	// +kubebuilder:validation:MaxLength=45
	Start string `json:"start"`
	// +kubebuilder:validation:MaxLength=45
	End string `json:"end"`
}

// L2Spec tunes how nodes hold the addresses of a pool.
type L2Spec struct {
	// Interfaces are names, or regular expressions that match whole names, of
	// the node interfaces that hold the addresses. Empty: the interface that
	// has an address in the same network.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Interfaces []string `json:"interfaces,omitempty"`

	// Guard says how the addresses get past FILTER_IP_SPOOFING. With alias, each
	// address is attached as NIC_ALIAS to a few nodes ahead of time, and only
	// they hold it. That needs OpenNebula 7 and address ranges with
	// SHARED="YES": the pool gives addresses of such ranges only. Services with
	// externalTrafficPolicy Local are refused. Default none.
	// +optional
	// +kubebuilder:default=none
	Guard GuardMode `json:"guard,omitempty"`

	// NodeSelector names the nodes that may hold the addresses. Default: all.
	// +optional
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`

	// NodePreferences are nodes that come before others when an address needs
	// one. A node's weight is the sum of those whose selector it matches. An
	// address does not leave a node for a preferred one.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	NodePreferences []NodePreference `json:"nodePreferences,omitempty"`
}

// NodePreference gives nodes a weight.
type NodePreference struct {
	// Weight of the nodes.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	Weight int32 `json:"weight"`
	// Selector of the nodes.
	Selector metav1.LabelSelector `json:"selector"`
}

// RouterSpec says which virtual router exposes the addresses, and how.
//
// +kubebuilder:validation:XValidation:rule="(has(self.forward) && self.forward == 'VIP') == has(self.innerPool)",message="innerPool is required with forward VIP, and only there"
// +kubebuilder:validation:XValidation:rule="!(has(self.forward) && self.forward == 'Route' && has(self.snat) && self.snat == 'always')",message="snat always needs a router that translates: with forward Route it does not, and nodes see the client's address"
type RouterSpec struct {
	// Name of a router in the cloud-config file.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`
	// Forward says how packets get from the router to the pods. Default NodePort.
	// +optional
	// +kubebuilder:default=NodePort
	Forward Forward `json:"forward,omitempty"`
	// InnerPool names the L2 pool of the private addresses of forward VIP.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	InnerPool string `json:"innerPool,omitempty"`
	// SNAT says whose address the nodes see. With auto, the client's, unless the
	// reply would then not come back through the router: where client and backend
	// are on one network. With always, the router's, for nodes that route elsewhere.
	// With never, the client's in every case, as always with forward Route. Default auto.
	// +optional
	// +kubebuilder:default=auto
	SNAT SNAT `json:"snat,omitempty"`
}

// AddressPoolStatus is what is there.
type AddressPoolStatus struct {
	// NetworkID is the OpenNebula ID of the pool's network.
	// +optional
	NetworkID *int32 `json:"networkID,omitempty"`
	// NetworkName is the OpenNebula name of the pool's network.
	// +optional
	NetworkName string `json:"networkName,omitempty"`
	// ReservationID is the OpenNebula ID of the reservation that the addresses are in.
	// +optional
	ReservationID *int32 `json:"reservationID,omitempty"`
	// IPv4 counts the IPv4 addresses.
	// +optional
	IPv4 *AddressCounts `json:"ipv4,omitempty"`
	// IPv6 counts the IPv6 addresses.
	// +optional
	IPv6 *AddressCounts `json:"ipv6,omitempty"`
	// Conditions: Ready, Overlapping, Stranded; SpoofingFilter with exposure L2 and with forward Route; Guarded with guard alias;
	// StockAppliance behind a router with driver appliance.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// ObservedGeneration is the generation of the spec that this status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
}

// AddressCounts counts the addresses of one family. An address is Used from
// the creation of its VirtualIP to its deletion, quarantine included.
type AddressCounts struct {
	// Total is what the pool could give in all: reserved ones, and free ones of the network.
	Total int64 `json:"total"`
	// Reserved is how many of them are in our reservation; with reservation none,
	// how many we have on hold.
	Reserved int64 `json:"reserved"`
	// Used is how many have a VirtualIP.
	Used int64 `json:"used"`
	// Free is Total minus Used.
	Free int64 `json:"free"`
	// Held is how many are on hold in OpenNebula.
	Held int64 `json:"held"`
	// Ahead is how many are reserved, or with reservation none on hold, for the
	// next Services: they are given without asking OpenNebula.
	// +optional
	Ahead int64 `json:"ahead"`
	// SetAside is how many have a hold of which nobody knows whether it is ours
	// (reservation none). They are no part of Total.
	// +optional
	SetAside int64 `json:"setAside"`
}

// AddressPoolList is a list of pools.
//
// +kubebuilder:object:root=true
type AddressPoolList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []AddressPool `json:"items"`
}

// Conditions of an AddressPool.
const (
	// PoolReady is true when the pool can give addresses.
	PoolReady = "Ready"
	// PoolOverlapping is true when another pool could give the same addresses:
	// reason SameNetwork (the two compete) or OtherNetwork (two networks have the
	// same addresses).
	PoolOverlapping = "Overlapping"
	// PoolStranded is true when addresses are in use that the pool would not give
	// any more: reason OutsideOfSpec (the spec was changed) or RangeRemoved (the
	// network has lost the range). They stay where they are.
	PoolStranded = "Stranded"
	// PoolSpoofingFilter is true when OpenNebula drops what a node sends from an
	// address of the pool (FILTER_IP_SPOOFING).
	PoolSpoofingFilter = "SpoofingFilter"
	// PoolStockAppliance is true when the pool's router is a stock appliance, which
	// can do less for Services.
	PoolStockAppliance = "StockAppliance"
	// PoolGuarded is true when each address of a pool with guard alias is
	// attached to all of its candidates.
	PoolGuarded = "Guarded"
)
