// Package page is the web page of the cloud-controller-manager that leads: pools
// and how full they are, addresses and the way of a packet to their pods, and who
// held them when. It only reads, and only what that program has in memory: a
// viewer costs the API server and OpenNebula nothing, and the program a tenth of
// one processor at most, however many look and however large the cluster is.
//
// The handler trusts its caller: who may see it is asked before it is called.
// Everything it serves comes from the program itself, and a browser is told to
// load nothing else.
package page
