// Package arpfilter keeps a host's kernel from answering ARP for our addresses
// where it must not: on other interfaces than the one that holds an address, and
// on hosts that do not hold it but have it all the same, which is what kube-proxy
// in IPVS mode does with its interface kube-ipvs0. It is arp_ignore and strict-arp
// for single addresses, and leaves the sysctls alone.
//
// It owns the nftables table `arp onelb`. A request for an address of the set known
// that does not arrive for a pair of interface and address in the set held is dropped.
// Where the host has the addresses elsewhere as well, the end of a held one's lifetime
// would not silence it, and nobody could take over after its agent has died; so all
// requests for known ones are dropped when the agent has not renewed the element of the
// set renewed for some seconds. All this works only while the set alive has an element,
// which lapses ten minutes after the last renewal: a restart of the agent changes
// nothing, and an agent that is gone for good leaves nothing that acts. One that ends
// when no address is known any more removes the table.
//
// Set hands over the whole desired state and never blocks, since a transaction may
// wait for those of kube-proxy; Run writes what differs. If somebody else removes
// the table, it is made again at the next renewal.
//
// IPv6 needs none of this: the kernel answers neighbour solicitations only on the
// interface that has the address.
package arpfilter
