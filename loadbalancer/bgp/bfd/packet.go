package bfd

import (
	"encoding/binary"
	"errors"
	"time"
)

// State of a session, or of the peer's end of it.
type State uint8

// The states, as they are on the wire.
const (
	AdminDown State = iota
	Down
	Init
	Up
)

func (s State) String() string {
	return [...]string{"AdminDown", "Down", "Init", "Up"}[s&3]
}

// diagnostic says why a session left the state Up.
type diagnostic uint8

const (
	diagNone      diagnostic = 0
	diagExpired   diagnostic = 1
	diagNeighbour diagnostic = 3
	diagAdmin     diagnostic = 7
)

const (
	version    = 1
	packetSize = 24
)

// Flags of the second byte.
const (
	flagMultipoint = 1 << 0
	flagAuth       = 1 << 2
	flagFinal      = 1 << 4
	flagPoll       = 1 << 5
)

// errPacket is returned for what is no packet of a session without authentication.
var errPacket = errors.New("not a BFD control packet that can be used")

// packet is a control packet.
type packet struct {
	state       State
	diag        diagnostic
	poll, final bool
	multiplier  uint8
	my, your    uint32
	// tx is how often the sender would like to send, rx how often it can take packets.
	tx, rx time.Duration
}

// parse reads a packet, and refuses what RFC 5880, section 6.8.6, wants to be
// discarded whatever the session.
func parse(b []byte) (packet, error) {
	if len(b) < packetSize || b[0]>>5 != version || int(b[3]) < packetSize || int(b[3]) > len(b) {
		return packet{}, errPacket
	}
	p := packet{
		state: State(b[1] >> 6), diag: diagnostic(b[0] & 0x1f), poll: b[1]&flagPoll != 0, final: b[1]&flagFinal != 0,
		multiplier: b[2], my: binary.BigEndian.Uint32(b[4:]), your: binary.BigEndian.Uint32(b[8:]),
		tx: micros(b[12:]), rx: micros(b[16:]),
	}
	switch {
	case b[1]&(flagMultipoint|flagAuth) != 0, p.multiplier == 0, p.my == 0:
		return packet{}, errPacket
	case p.your == 0 && p.state != Down && p.state != AdminDown:
		return packet{}, errPacket
	}
	return p, nil
}

func micros(b []byte) time.Duration {
	return time.Duration(binary.BigEndian.Uint32(b)) * time.Microsecond
}

func (p packet) append(b []byte) []byte {
	flags := byte(p.state) << 6
	if p.poll {
		flags |= flagPoll
	}
	if p.final {
		flags |= flagFinal
	}
	b = append(b, version<<5|byte(p.diag), flags, p.multiplier, packetSize)
	for _, v := range []uint32{p.my, p.your, uint32(p.tx.Microseconds()), uint32(p.rx.Microseconds()), 0} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}
