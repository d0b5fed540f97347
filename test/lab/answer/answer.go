// Package answer is what the lab's pods reply with, over HTTP and UDP alike.
package answer

import "net/netip"

// Answer tells which pod answered and whom it saw.
type Answer struct {
	Pod    string         `json:"pod"`
	Node   string         `json:"node"`
	Proto  string         `json:"proto"`  // TCP or UDP
	Client netip.AddrPort `json:"client"` // the sender's address as the pod saw it
	Server netip.AddrPort `json:"server"` // the pod's own address and port; over UDP the port alone
}
