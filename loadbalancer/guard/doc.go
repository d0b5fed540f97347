// Package guard gets addresses past OpenNebula's filter against forged
// addresses (FILTER_IP_SPOOFING). The filter lets a node send from the addresses
// of its NIC and of the NIC's aliases; one that is only held is dropped.
//
// # What it does
//
// It tells for every pool whose addresses nodes hold whether the filter is on: condition SpoofingFilter,
// and an event when that changes. It reads the NICs of the nodes' machines, for
// a NIC copies the setting when it is attached, and the network's setting where
// no node has a NIC in the network.
//
// In a pool with guard: alias it gives each address a few candidates, nodes that
// have it as NIC_ALIAS ahead of time, and writes them into the VirtualIP. Only a
// candidate that is Attached may hold the address; a failover needs no call.
//
// # Guarantees
//
//   - What is on a NIC is in the VirtualIP: a candidate is written before its
//     alias is attached, and taken off the list after a fresh reading of the
//     machine showed that the alias is gone. The hold in OpenNebula does not end
//     before the list is empty.
//   - Attached means that a reading showed the alias, and a machine that is not
//     in the middle of a hotplug. A node is told to hand an address on, and has
//     done so, before its alias is detached.
//   - A machine has one hotplug at a time, and each is preceded by a fresh
//     reading, since NIC IDs are used again. A hotplug costs two calls and a few
//     polls. Candidates stay: only one that has been gone for a while is replaced.
//   - Of the machines of this cluster's nodes, aliases in this cluster's
//     reservations are its own; no other NIC or alias is touched.
//
// # Failure
//
// The controller is level-triggered and keeps nothing that matters in memory: a
// crash between any two lines is made good by the next pass. A machine that
// fails is tried again after 1 s to 5 min, which delays no other; after some
// failures other nodes become candidates in its place. What an operator has to
// do is in the condition Guarded.
package guard
