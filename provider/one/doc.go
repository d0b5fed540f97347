// Package one is the OpenNebula client, and the only package that imports goca.
//
// It implements ipam.Networks on virtual networks and reads virtual machines,
// clusters and the zone for the node controllers.
//
// Guarantees: every call ends by Options.RequestTimeout or with its context,
// whichever comes first, and is sent at most once, but for up to two
// retries when OpenNebula refused the credentials and there are others: those that
// the source has by then, or those that it accepted before. A CA file or credentials
// that cannot be used leave those before them in use; Access tells. At most
// Options.MaxInFlight calls are on the wire at once, since oned stalls for all
// its users at 15 connections. Methods are safe for concurrent use. Values are
// returned by copy or must be treated as read-only where a method says so.
//
// Failure: errors wrap the sentinels of package ipam, and name endpoint, method
// and what an operator can do. An endpoint that cannot be reached, hangs or
// answers anything but what OpenNebula answers is ipam.ErrUnavailable. A call
// that failed with it may have been done: after Hold or Reserve, read again.
package one
