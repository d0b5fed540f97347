// Package migrate is `onelbctl migrate`: it moves Services from MetalLB, or from
// OpenNebula's own cloud-controller-manager, to onelb, each with the addresses that
// it has. What there is makes a plan; applying it makes the AddressPools, and then
// takes one Service after the other, the next when the one before is published.
//
// Guarantees. Making a plan changes nothing. A Service is changed by annotations
// only, and is never without address: its status keeps what it shows until onelb
// shows the same. What cannot be mapped is said, and is not touched. Applying
// again goes on where it ended, and does nothing when all is done. Nothing of the
// predecessor is changed or removed, so that the way back is open until a person
// removes it.
//
// While the predecessor's controller runs, pools are made and no Service is
// touched: two would write one status. While only its speakers, or routers, run,
// they answer for the addresses, and onelb's nodes wait for their silence.
//
// Failure: the first Service that is not published in time ends it, with the
// reason. It keeps its address and its annotations; onelb goes on trying.
package migrate
