// Package lab is a private datacenter on one machine: Linux network namespaces
// as hosts, and on them a real etcd, kube-apiserver, kube-controller-manager and
// kube-proxy, OpenNebula's front-end (simulated by onesim) and onelb's programs.
//
//	internet ── public L2 ── router-1 ── private L2 ── node-1 … node-n ── pods
//	                                         └── LAN client
//	control plane, onesim ── management network ── nodes, router
//
// New makes a Lab, Start brings it up and returns when it answers, Close takes
// it down. Everything is named after the lab, so several may run at once; a lock
// keeps two from using one name. Nothing is made in the machine's own network
// namespace except one loopback listener for kubectl. A lab that was killed
// leaves no process (they die with it), and the next start under its name
// removes the namespaces and whatever else is left.
//
// Faults are method calls: on hosts and links (Cut, Delay, Drop, Partition), on
// programs (Stop, Kill, Signal, Restart) and on nodes (PowerOff, PowerOn).
//
// The package needs root. It reports errors and never ends the process.
package lab
