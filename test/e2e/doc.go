// Package e2e holds tests of the whole: onelb's own programs, with the accounts
// and roles that the manifests give them, in the private datacenter of test/lab.
// What a person would look at is looked at: answers from pods, kernel addresses,
// the router's table, Kubernetes objects and events, and OpenNebula.
//
// All tests share one lab and leave it as they found it: each ends with a look
// for what its Services may have left behind.
package e2e
