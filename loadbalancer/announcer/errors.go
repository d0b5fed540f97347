package announcer

import "errors"

var (
	// ErrNoInterface: no interface of the node is in the address' network, or
	// matches the interfaces of its pool.
	ErrNoInterface = errors.New("no interface of this node can have the address")
	// ErrOptions: a required option is missing or out of range.
	ErrOptions = errors.New("announcer: invalid options")
)
