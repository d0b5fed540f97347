// Package images tests what is delivered: that a program runs in a root that has
// nothing but what its Containerfile copies, as the user named there; that a build
// does not depend on where it is made; and, with -archives, the archives that
// `make images` wrote: `make images-test` does that.
package images
