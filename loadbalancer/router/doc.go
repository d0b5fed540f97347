// Package router holds a router's desired state, the document, and the client
// that brings it to the agent on each instance of a virtual router.
//
// A Document is a value: sorted, validated, hashed. The client keeps one
// connection to each instance, compares what the instance reports with what is
// desired, and pushes the difference or the whole, so that a lost message, a
// restart on either side or a new leader all end in the same state. Nothing in
// here touches a kernel; the agent is in the package agent, the kernel's table
// in the package nft.
package router
