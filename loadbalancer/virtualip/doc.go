// Package virtualip keeps IPAM's records in the Kubernetes API, one VirtualIP
// object per address, and implements ipam.Records on them.
//
// The API server is the arbiter: creating the object is the allocation, and a
// second create for the same address fails. The store answers reads from
// memory: a watch keeps the memory current, and what the store itself wrote is
// in it at once, so that a reader never sees a state older than this process'
// own writes. Writes have deadlines. Patches carry the UID of the object that
// they are meant for: an object that was deleted and made anew in between is
// never changed by mistake.
//
// Writers of the status: this store writes phase, releasedAt, router and the
// conditions; node agents write the holder.
package virtualip
