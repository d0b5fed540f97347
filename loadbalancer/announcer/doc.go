// Package announcer holds addresses on a node: of all live nodes that may,
// exactly one has each address in its kernel and answers ARP and NDP for it.
//
// What is wanted comes in as a Cluster, who is alive and who claims what from a
// Group of agents; Decide turns both into what this node should hold, and an
// Engine makes it so. The package knows neither Kubernetes nor the API server:
// with neither of them reachable everything goes on.
//
// Guarantees:
//   - An address is given to the kernel with a lifetime that the Engine renews.
//     If the agent dies or hangs, the kernel drops it by itself.
//   - Before an address is taken, the wire is asked for it. As long as any host
//     answers, it is not taken; so an agent that restarts finds its addresses
//     where they were, and two hosts do not answer at once.
//   - Candidates take turns, and hear each other ask. Where two believe that it is
//     their turn, since one does not see the other among the live, the later one waits.
//   - The holder keeps an address for as long as it lives and may have it. A node
//     that comes back takes nothing back.
//   - A live holder that should have an address no longer (drained, excluded,
//     unwell, without an endpoint) keeps it until another node has it; that one
//     takes it without waiting for silence. Somebody answers all the time.
//   - An agent that ends for good hands over what it holds first, likewise; one that
//     restarts hands nothing over.
//   - Silence counts only if this node's link lets through answers of live nodes.
//   - A node on the smaller side of a partition only stands in for the one it cannot
//     reach, and lets go when it can. Of two holders with lasting claims the one with
//     the older claim lets go as soon as it hears of the other.
//   - A node that comes and goes is the last choice for a while.
//   - An address without Services is let go at once.
//
// Whether a kernel answers ARP where it must not (on another interface, or because
// kube-proxy in IPVS mode has given the address to all nodes) is the business of
// package arpfilter, which is told what this node holds.
package announcer
