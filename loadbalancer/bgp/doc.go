// Package bgp announces addresses to BGP routers. It is the only user of GoBGP.
//
// A Speaker is given the whole of what is desired, again and again, and brings
// its sessions and routes in line with it: what did not change is left alone, and
// what cannot be followed leaves the running session as it was. Nothing runs and
// nothing listens while no peer is desired. Routes from peers are never accepted.
//
// At the end of Run, peers with which graceful restart was agreed on are left
// without a word, so that they keep the routes for the next start. Leave is the
// end for good: the routes are marked as going (RFC 8326), then withdrawn.
package bgp
