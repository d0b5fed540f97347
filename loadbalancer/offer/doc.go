// Package offer makes AddressPools of what OpenNebula's administrator writes on
// virtual networks: a network with the attribute ONELB_POOL is offered to the
// clusters whose user may use it, under that name and with the settings of
// further attributes ([Settings]). The pool follows their edits.
//
// Guarantees: one list of networks in each interval, whatever their number. An
// AddressPool that a person made is never touched; ours are those with the label
// v1alpha1.OfferedByLabel. An offer is applied whole or not at all: a setting that
// is unknown or cannot be read, a name that two networks offer or a person has,
// leaves everything as it is. Reservations are no offers, although they inherit
// the attributes of their network.
//
// An offer that is withdrawn deletes the pool, and such a deletion waits until
// no Service has an address of it. A network that cannot be seen any more
// withdraws nothing: a missing right would take the pool away from everybody.
//
// Failure: what is wrong is an event on the AddressPool, also where there is none of that
// name, its annotation v1alpha1.OfferProblemAnnotation, and, where our user may
// write it, the attribute ONELB_ERROR of the network. It is tried again in each interval.
package offer
