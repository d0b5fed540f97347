// Package loadbalancer gives Services of type LoadBalancer their addresses and
// keeps the routers in front of them programmed. It implements the
// cloud-provider LoadBalancer interface on IPAM (addresses), VirtualIP objects
// (who has which) and router clients (NAT).
//
// Order. A Service that appears: VirtualIP created (that is the allocation), router
// programmed and acknowledged, address returned for the Service's status; the
// hold in OpenNebula follows off the critical path. A Service that goes: it is
// taken off its VirtualIPs, which is durable and enough for the Service to go;
// then routers and nodes let go, the hold ends, and after quarantine the
// VirtualIP is deleted. A crash between any two steps leaves a state from which
// the next pass goes on, since each step is decided from what is stored.
//
// Concurrency. Ensure, Update and Delete of one Service may overlap and are
// serialised by its UID. Documents for routers are built by one goroutine for
// each router from watched objects, never from the arguments of a call alone.
//
// Failure. What cannot be honoured is refused with an event that says why, and
// leaves the Service's present addresses alone. What may pass is retried after
// RetryAfter.
package loadbalancer
