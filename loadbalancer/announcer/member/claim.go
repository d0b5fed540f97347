package member

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Claim says that a node took an address, or let it go.
type Claim struct {
	Address netip.Addr
	// Node that took the address.
	Node string
	// Epoch counts the takeovers of the address, from 1.
	Epoch int64
	// Released is true when the node has let the address go since.
	Released bool
	// StandIn is true when the node took the address for as long as it is apart
	// from the node that has the lasting claim, being on the smaller side. The two
	// kinds are kept side by side and never beat each other: who has the lasting
	// claim has the address, the stand-in only while that one cannot be reached.
	StandIn bool
}

// IsZero reports whether there is no claim.
func (c Claim) IsZero() bool { return c.Node == "" }

// Beats reports whether c counts and other does not, both being about one
// address and of one kind. The higher epoch counts, of equal ones the node whose name sorts
// first, and a release counts more than the claim it ends. It is a total order:
// whoever has seen the same claims, in whatever order, believes the same one.
func (c Claim) Beats(other Claim) bool {
	if other.IsZero() {
		return !c.IsZero()
	}
	if d := cmp.Or(cmp.Compare(c.Epoch, other.Epoch), cmp.Compare(other.Node, c.Node)); d != 0 {
		return d > 0
	}
	return c.Released && !other.Released
}

// key is what only one claim counts for.
type key struct {
	address netip.Addr
	standIn bool
}

func (c Claim) key() key { return key{c.Address, c.StandIn} }

// compare orders claims of different keys.
func (c Claim) compare(other Claim) int {
	if d := c.Address.Compare(other.Address); d != 0 || c.StandIn == other.StandIn {
		return d
	}
	if c.StandIn {
		return 1
	}
	return -1
}

// The wire format of a claim, after a byte with the version: flags, epoch
// (8 bytes, big endian), length and bytes of the address, length and bytes of
// the node's name. A list of claims has the version once.
const (
	version      = 1
	flagReleased = 1
	flagStandIn  = 2
	flagsKnown   = flagReleased | flagStandIn
	maxName      = 253 // of a Kubernetes node
)

// ErrMessage is returned for a message that cannot be read.
var ErrMessage = errors.New("malformed claim message")

// Encode appends the claims to a message of their own. The claims must be valid:
// an address, a node name of 1 to 253 bytes, an epoch above 0.
func Encode(claims ...Claim) []byte {
	b := []byte{version}
	for _, c := range claims {
		var flags byte
		if c.Released {
			flags |= flagReleased
		}
		if c.StandIn {
			flags |= flagStandIn
		}
		b = append(b, flags)
		b = binary.BigEndian.AppendUint64(b, uint64(c.Epoch)) // #nosec G115 -- above 0
		address := c.Address.AsSlice()
		b = append(b, byte(len(address)))
		b = append(b, address...)
		b = append(b, byte(len(c.Node)))
		b = append(b, c.Node...)
	}
	return b
}

// Decode reads a message made by Encode. It returns ErrMessage, and no claims,
// if any part of it is malformed.
func Decode(b []byte) ([]Claim, error) {
	if len(b) == 0 || b[0] != version {
		return nil, fmt.Errorf("%w: unknown version", ErrMessage)
	}
	var claims []Claim
	for b = b[1:]; len(b) > 0; {
		c, rest, err := decodeOne(b)
		if err != nil {
			return nil, err
		}
		claims, b = append(claims, c), rest
	}
	return claims, nil
}

func decodeOne(b []byte) (Claim, []byte, error) {
	if len(b) < 10 {
		return Claim{}, nil, fmt.Errorf("%w: cut short", ErrMessage)
	}
	flags, epoch := b[0], int64(binary.BigEndian.Uint64(b[1:])) // #nosec G115 -- checked below
	address, b, ok := field(b[9:])
	if !ok {
		return Claim{}, nil, fmt.Errorf("%w: address cut short", ErrMessage)
	}
	node, b, ok := field(b)
	if !ok {
		return Claim{}, nil, fmt.Errorf("%w: node cut short", ErrMessage)
	}
	a, ok := netip.AddrFromSlice(address)
	c := Claim{Address: a, Node: string(node), Epoch: epoch, Released: flags&flagReleased != 0, StandIn: flags&flagStandIn != 0}
	if !ok || flags&^flagsKnown != 0 || !c.valid() {
		return Claim{}, nil, fmt.Errorf("%w: value out of range", ErrMessage)
	}
	return c, b, nil
}

func field(b []byte) (value, rest []byte, ok bool) {
	if len(b) == 0 || len(b) < 1+int(b[0]) {
		return nil, nil, false
	}
	n := 1 + int(b[0])
	return b[1:n], b[n:], true
}

func (c Claim) valid() bool {
	return c.Address.IsValid() && !c.Address.Is4In6() && c.Address.Zone() == "" &&
		c.Node != "" && len(c.Node) <= maxName && c.Epoch > 0
}
