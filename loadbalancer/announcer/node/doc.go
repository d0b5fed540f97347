// Package node is the program onelb-node: it connects an announcer.Engine to the
// kernel, to the agents of the other nodes and to the API server.
//
// The API server is needed to learn of changes, never to go on: what it said
// last is kept in the state directory, holders are reported to it when it can be
// reached, and no call to it is made by the goroutine that holds addresses.
package node
