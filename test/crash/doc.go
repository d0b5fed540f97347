// Package crash kills the cloud-controller-manager before and after its
// outbound calls, to the API server and to OpenNebula, and proves each time that
// no address is given twice, none is lost, none is published that is not ours,
// and that every Service is served in the end.
//
// What is real: etcd and kube-apiserver, the provider, the library's service
// controller, HTTP. OpenNebula is the simulated front-end. All calls go through a
// [Gate], which kills at a chosen call: before it is passed on, after it was
// answered but before the answer arrives, or by freezing the caller and letting
// the call arrive late, when another instance leads already. An instance of the
// CCM lives inside this process, and its death is that no answer reaches it and no
// call of it gets out any more; some are processes that get a SIGKILL, through
// the same gate.
//
// The plan (operations, targets, modes) is drawn from a seed. What the calls of
// several goroutines are numbered depends on their timing too, so a seed repeats
// a plan and not every interleaving.
//
// Nothing is kept after Run, and no root is needed.
package crash
