// Package agent is the router agent: it takes documents from clusters over gRPC
// with TLS on both sides, keeps them on disk, and makes the kernel do what they
// say: nftables content, public addresses, backend checks.
//
// One goroutine owns all state. A document is accepted as a whole or not at all:
// room for it on the disk, then the kernel, then the disk, then the answer; if one of
// them fails, the old document and its rules stay. After a start the documents on
// disk are in force before any client comes. When the agent ends, by
// whatever cause, rules and addresses stay.
package agent
