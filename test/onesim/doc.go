// Package onesim simulates the front-end of OpenNebula: oned's XML-RPC interface, as far as a cloud
// provider sees it. Virtual networks with their address ranges, leases, holds and reservations, virtual
// machines and their NICs, virtual routers, templates, documents, users, permissions and quotas behave as
// in recordings of a real front-end, error codes and texts included; a test replays those recordings.
//
// What it guarantees. All calls see one consistent state: writers run one at a time, readers beside each
// other, as with the real server. No goroutine runs between calls: what a driver would do later (a network
// that becomes READY, a NIC whose hotplug ends) is a job with a due time, run before the next call that
// could see it. The state lives in the Sim, not in the listener, so that a server can be stopped and
// started again on the same address with nothing lost. Nothing is kept on disk.
//
// What it does not do: hypervisors, images, federation, OneGate, and the methods of sunstone. An unknown
// method is answered as oned answers it, with a fault.
package onesim
