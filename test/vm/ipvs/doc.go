// Package ipvs sees onelb work with kube-proxy in IPVS mode, which puts each
// address of a load balancer on an interface of every node, so that every node's
// kernel answers ARP for it unless somebody prevents that.
//
// Where the kernel has no ip_vs the lab cannot run kube-proxy so. The test binary
// therefore starts itself again in a virtual machine (test/vm), with the whole lab.
// That takes many minutes and gigabytes, so only `make vm` does it.
package ipvs
