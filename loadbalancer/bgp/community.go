package bgp

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// wellKnown are the communities that have names (RFC 1997, 3765, 7999, 8326).
var wellKnown = map[string]uint32{
	"no-export":         uint32(bgp.COMMUNITY_NO_EXPORT),
	"no-advertise":      uint32(bgp.COMMUNITY_NO_ADVERTISE),
	"no-peer":           uint32(bgp.COMMUNITY_NO_PEER),
	"blackhole":         uint32(bgp.COMMUNITY_BLACKHOLE),
	"graceful-shutdown": gracefulShutdown,
}

// gracefulShutdown is GRACEFUL_SHUTDOWN of RFC 8326.
const gracefulShutdown = 0xffff0000

// ParseCommunity reads a community such as 64512:100 or no-export. Other text is
// ErrCommunity.
func ParseCommunity(text string) (uint32, error) {
	if c, ok := wellKnown[text]; ok {
		return c, nil
	}
	parts, err := numbers(text, 2, 16)
	if err != nil {
		return 0, err
	}
	return parts[0]<<16 | parts[1], nil
}

// ParseLargeCommunity reads a large community such as 64512:1:2. Other text is
// ErrCommunity, and so is one that begins with the reserved 4294967295.
func ParseLargeCommunity(text string) ([3]uint32, error) {
	parts, err := numbers(text, 3, 32)
	if err != nil {
		return [3]uint32{}, err
	}
	if parts[0] == markerASN {
		return [3]uint32{}, fmt.Errorf("%w: %q: %d is reserved", ErrCommunity, text, parts[0])
	}
	return [3]uint32(parts), nil
}

func numbers(text string, count, bits int) ([]uint32, error) {
	parts := strings.Split(text, ":")
	if len(parts) != count {
		return nil, fmt.Errorf("%w: %q has not %d numbers with colons between", ErrCommunity, text, count)
	}
	var out []uint32
	for _, p := range parts {
		n, err := strconv.ParseUint(p, 10, bits)
		if err != nil {
			return nil, fmt.Errorf("%w: %q: %w", ErrCommunity, text, err)
		}
		out = append(out, uint32(n))
	}
	return out, nil
}
