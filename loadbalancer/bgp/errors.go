package bgp

import "errors"

var (
	// ErrOptions is returned for options that cannot be used.
	ErrOptions = errors.New("invalid options")
	// ErrCommunity is returned for text that is no community.
	ErrCommunity = errors.New("not a community")
)
