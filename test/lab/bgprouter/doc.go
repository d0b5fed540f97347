// Package bgprouter runs real BGP routers, FRR and BIRD as Debian has them, inside
// network namespaces. Like other programs of the lab they are fetched and unpacked
// when the machine has none, see package debian. A router is configured and asked
// over its own control socket.
package bgprouter
