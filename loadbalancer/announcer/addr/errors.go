package addr

import "errors"

var (
	// ErrForeign: the interface has the address already, and it is not ours.
	ErrForeign = errors.New("the interface has this address from somebody else")
	// ErrLifetime: a lifetime must be at least a second; the kernel counts in seconds.
	ErrLifetime = errors.New("lifetime of an address must be at least 1s")
)
