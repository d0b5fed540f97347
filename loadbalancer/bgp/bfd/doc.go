// Package bfd finds out in less than a second that a peer on the same network is
// gone: Bidirectional Forwarding Detection in asynchronous mode over one hop (RFC
// 5880, 5881).
//
// A Server is given all peers that it should watch, again and again; what did not
// change is left alone. It calls back when a peer that was there is not any more.
// A peer that takes its end down on purpose (state AdminDown) is not gone.
//
// At the end of Run peers are asked to hold the session, by a long interval until
// the next packet, and the next Server goes on with it: so a restart is no failure to
// them. Many routers take AdminDown, which would be the other way (RFC 5882, section
// 3.2), for a failure. Without a Hold, the session is taken down with AdminDown.
//
// Packets that came over a router, of unknown senders or of other sessions are
// counted and have no effect. Nothing listens while there is no peer.
//
// The agent that runs it shares its fate with the session, and says so: the packets'
// bit "control plane independent" is never set.
package bfd
