// Package appliance programs an unmodified OpenNebula virtual router, on which
// no agent runs, through the context of its instances: one variable
// ONEAPP_VNF_NAT4_PORT_FWD<n> for each port and one ONEAPP_VROUTER_ETH<i>_VIP<n>
// for each address.
//
// Ownership. The numbers <n> of a cluster begin with digits that are made from its
// identity, and the variable ONELB_CLUSTER_<digits> says in the same write whose
// they are. Variables of anybody else, the operator or another cluster, are never
// sent: OpenNebula merges what is given into what is there, so nobody's edit can be
// lost. A variable cannot be deleted in that way; what is no longer needed is left
// with an empty value, which the appliance ignores and the next entry uses again.
//
// Guarantees. Variables are numbered in the order of their entries: equal documents
// give equal contexts on all instances, and nothing is written where nothing
// differs. Changes are gathered; an instance is written to only in a state in which
// it takes a new context, so not in HOTPLUG. No state is kept but in the contexts
// themselves: whatever was interrupted, the next look goes on from what is there.
// What was changed by hand is put right at the next look.
//
// Failure. A port or an address that cannot be expressed is left out, closed rather
// than more open than it should be, and Refusal says why; all others are programmed.
// An instance that cannot be read or written is unreachable in State, with the
// reason.
package appliance
