// Package peer holds the generated protobuf and gRPC code of the protocol between
// the instances of a virtual router.
package peer
