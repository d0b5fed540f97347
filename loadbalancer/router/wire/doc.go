// Package wire holds the generated protobuf and gRPC code of the router
// protocol. The document's Go form, with its rules, is in the parent package.
package wire
