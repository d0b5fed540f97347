//go:build race

package bgp

// atOnce is how many speakers a test may have at once: in the library, servers of one
// process write the same variables of a package when they start. The product has one.
const atOnce = 1
