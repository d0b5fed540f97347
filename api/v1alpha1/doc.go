// Package v1alpha1 holds the objects of the API group onelb.io: AddressPool,
// where addresses come from and how they are exposed, and VirtualIP, one object
// per allocated address.
//
// The two are cluster-scoped. AddressPools are written by people; VirtualIPs by
// the cloud-controller-manager (spec, conditions) and by the node agents
// (holder fields of the status). The rules that the API server can check by
// itself are CEL expressions on the types; manifests/base/crds is generated
// from them.
//
// +kubebuilder:object:generate=true
// +groupName=onelb.io
package v1alpha1
