// Package holder holds the tests of who has an address under each fault: in the
// lab, with the real programs, one node holds it in its kernel, one hardware
// address answers for it, and nothing is left behind.
package holder
