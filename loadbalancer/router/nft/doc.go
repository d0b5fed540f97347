// Package nft turns documents into nftables content and keeps the kernel's
// tables equal to it.
//
// New is pure: documents, health and interfaces in, a Plan out. A Kernel writes a
// Plan as one transaction that carries only what differs, so either all of a
// change takes effect or none, and a connection that stands is never touched:
// NAT rules see only the first packet of a connection. It owns the tables
// `ip onelb` and `ip6 onelb` and nothing else; Repair finds and undoes what
// others did to them.
//
// Every lookup is a hash map, so the cost of a new connection does not depend on
// how many frontends there are:
//
//	frontends  address . protocol . port -> group
//	ports      address . protocol . port -> port on the backend
//	groups     group -> table of backends
//	slots      table . slot -> backend, slot drawn at random
//
// Of addresses that are routed to their holders nothing is translated; the chain
// forward lets pass what is for a frontend:
//
//	routed     address
//	passing    address . protocol . port
//
// A table's number derives from its members, and groups with the same healthy
// members share one. A change of health therefore adds one table and points the
// groups at it, whatever the number of frontends.
package nft
