// Package class is the service controller for Services with one
// loadBalancerClass. The one of k8s.io/cloud-provider ignores every Service
// that has a class; this one does for ours what that one does for those
// without, with the same finalizer and the same meaning of the status, so that
// either can end what the other has begun.
//
// A Service of the class gets the finalizer first, then its addresses, then the
// status. One that is deleted, or whose type is changed away, gives its
// addresses back before the finalizer goes; since a Service loses its class with
// its type, every Service with the finalizer that has something of ours is
// looked at. The library's controller does so too: both at once do no harm,
// because each step may be repeated and each patch names the Service's UID.
//
// Failure: an [api.RetryError] is tried again after exactly its time, all else
// after 5 s, then more slowly, to 5 min. A Service that is changed is tried at
// once.
package class
