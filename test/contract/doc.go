// Package contract holds what the provider relies on in OpenNebula, as tests
// that run against any front-end: a simulated one by default, a real one when
// ONE_XMLRPC names its endpoint and ONE_AUTH the file (or the text) of
// user:password, as for OpenNebula's own tools.
//
// On a real front-end the tests make networks, users and virtual machines under
// a unique name that begins with onelb-contract, and remove them again, also
// after a failure. No address of theirs is used: the networks have no hosts, the
// machines stay on hold. What needs an administrator is skipped with the reason
// when the credentials are of none, and so is what would disturb others.
package contract
