package flows

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Attributes of linux/netfilter/nfnetlink_conntrack.h that x/sys/unix lacks.
const (
	ctaTupleOrig  = 1
	ctaTupleReply = 2
	ctaStatus     = 3
	ctaProtoInfo  = 4
	ctaNATSrc     = 6
	ctaTimeout    = 7
	ctaMark       = 8
	ctaNATDst     = 13
	ctaLabels     = 22

	ctaTupleIP    = 1
	ctaTupleProto = 2
	ctaIPv4Src    = 1
	ctaIPv4Dst    = 2
	ctaIPv6Src    = 3
	ctaIPv6Dst    = 4
	ctaProtoNum   = 1
	ctaSrcPort    = 2
	ctaDstPort    = 3

	ctaProtoInfoTCP = 1
	ctaTCPState     = 1
	ctaTCPFlagsOrig = 4
	ctaTCPFlagsRply = 5

	ctaNATv4Min   = 1
	ctaNATv4Max   = 2
	ctaNATProto   = 3
	ctaNATv6Min   = 4
	ctaNATv6Max   = 5
	ctaNATPortMin = 1
	ctaNATPortMax = 2

	// tcpLiberal takes packets outside of the window.
	tcpLiberal = 0x08
	// sizeofGen is the length of struct nfgenmsg.
	sizeofGen = 4
)

// tuple is one direction of a connection.
type tuple struct {
	src, dst netip.AddrPort
	protocol uint8
}

func (t tuple) inverse() tuple { return tuple{src: t.dst, dst: t.src, protocol: t.protocol} }

func (c Connection) original() tuple { return tuple{c.Client, c.Frontend, c.Protocol} }

// reply is what the backend answers.
func (c Connection) reply() tuple { return tuple{c.Backend, c.Source, c.Protocol} }

func (t tuple) header() []byte {
	family := byte(unix.AF_INET)
	if t.dst.Addr().Is6() {
		family = unix.AF_INET6
	}
	return []byte{family, 0, 0, 0}
}

func (t tuple) encode(e *netlink.AttributeEncoder) error {
	src, dst := uint16(ctaIPv4Src), uint16(ctaIPv4Dst)
	if t.dst.Addr().Is6() {
		src, dst = ctaIPv6Src, ctaIPv6Dst
	}
	e.Nested(ctaTupleIP, func(e *netlink.AttributeEncoder) error {
		e.Bytes(src, t.src.Addr().AsSlice())
		e.Bytes(dst, t.dst.Addr().AsSlice())
		return nil
	})
	e.Nested(ctaTupleProto, func(e *netlink.AttributeEncoder) error {
		e.ByteOrder = binary.BigEndian
		e.Uint8(ctaProtoNum, t.protocol)
		e.Uint16(ctaSrcPort, t.src.Port())
		e.Uint16(ctaDstPort, t.dst.Port())
		return nil
	})
	return nil
}

// encodeTuple is the body of a message that names a connection.
func encodeTuple(t tuple) ([]byte, error) {
	e := netlink.NewAttributeEncoder()
	e.Nested(ctaTupleOrig, t.encode)
	b, err := e.Encode()
	return append(t.header(), b...), err
}

// encode is the body of a message that makes a connection. The kernel wants the
// reply as if nothing was translated, and the translations beside it.
func (c Connection) encode() ([]byte, error) {
	original := c.original()
	e := netlink.NewAttributeEncoder()
	e.ByteOrder = binary.BigEndian
	e.Nested(ctaTupleOrig, original.encode)
	e.Nested(ctaTupleReply, original.inverse().encode)
	e.Uint32(ctaStatus, seenReply|assured|confirmed)
	e.Uint32(ctaTimeout, c.Timeout)
	e.Uint32(ctaMark, c.Mark)
	e.Bytes(ctaLabels, c.Labels[:])
	if c.Protocol == TCP {
		e.Nested(ctaProtoInfo, func(e *netlink.AttributeEncoder) error {
			e.Nested(ctaProtoInfoTCP, func(e *netlink.AttributeEncoder) error {
				e.Uint8(ctaTCPState, c.TCPState)
				e.Bytes(ctaTCPFlagsOrig, []byte{tcpLiberal, tcpLiberal})
				e.Bytes(ctaTCPFlagsRply, []byte{tcpLiberal, tcpLiberal})
				return nil
			})
			return nil
		})
	}
	if c.Backend != c.Frontend {
		e.Nested(ctaNATDst, translation(c.Backend))
	}
	if c.Source != c.Client {
		e.Nested(ctaNATSrc, translation(c.Source))
	}
	b, err := e.Encode()
	return append(original.header(), b...), err
}

func translation(to netip.AddrPort) func(*netlink.AttributeEncoder) error {
	least, most := uint16(ctaNATv4Min), uint16(ctaNATv4Max)
	if to.Addr().Is6() {
		least, most = ctaNATv6Min, ctaNATv6Max
	}
	return func(e *netlink.AttributeEncoder) error {
		e.Bytes(least, to.Addr().AsSlice())
		e.Bytes(most, to.Addr().AsSlice())
		e.Nested(ctaNATProto, func(e *netlink.AttributeEncoder) error {
			e.ByteOrder = binary.BigEndian
			e.Uint16(ctaNATPortMin, to.Port())
			e.Uint16(ctaNATPortMax, to.Port())
			return nil
		})
		return nil
	}
}

var errShort = errors.New("message is too short")

// decode reads the body of a message about a connection.
func decode(b []byte) (c Connection, err error) {
	if len(b) < sizeofGen {
		return c, errShort
	}
	d, err := netlink.NewAttributeDecoder(b[sizeofGen:])
	if err != nil {
		return c, err
	}
	d.ByteOrder = binary.BigEndian
	var original, reply tuple
	for d.Next() {
		switch d.Type() {
		case ctaTupleOrig:
			d.Nested(original.decode)
		case ctaTupleReply:
			d.Nested(reply.decode)
		case ctaStatus:
			c.status = d.Uint32()
		case ctaTimeout:
			c.Timeout = d.Uint32()
		case ctaMark:
			c.Mark = d.Uint32()
		case ctaLabels:
			copy(c.Labels[:], d.Bytes())
		case ctaProtoInfo:
			d.Nested(func(d *netlink.AttributeDecoder) error {
				for d.Next() {
					if d.Type() == ctaProtoInfoTCP {
						d.Nested(c.decodeTCP)
					}
				}
				return nil
			})
		}
	}
	if err := d.Err(); err != nil {
		return c, fmt.Errorf("decode connection: %w", err)
	}
	c.Key = Key{Protocol: original.protocol, Client: original.src, Frontend: original.dst}
	c.Backend, c.Source = reply.src, reply.dst
	return c, nil
}

func (c *Connection) decodeTCP(d *netlink.AttributeDecoder) error {
	for d.Next() {
		if d.Type() == ctaTCPState {
			c.TCPState = d.Uint8()
		}
	}
	return nil
}

func (t *tuple) decode(d *netlink.AttributeDecoder) error {
	var src, dst netip.Addr
	var srcPort, dstPort uint16
	for d.Next() {
		switch d.Type() {
		case ctaTupleIP:
			d.Nested(func(d *netlink.AttributeDecoder) error {
				for d.Next() {
					a, _ := netip.AddrFromSlice(d.Bytes()) // one of another length stays invalid
					switch d.Type() {
					case ctaIPv4Src, ctaIPv6Src:
						src = a
					case ctaIPv4Dst, ctaIPv6Dst:
						dst = a
					}
				}
				return nil
			})
		case ctaTupleProto:
			d.Nested(func(d *netlink.AttributeDecoder) error {
				d.ByteOrder = binary.BigEndian
				for d.Next() {
					switch d.Type() {
					case ctaProtoNum:
						t.protocol = d.Uint8()
					case ctaSrcPort:
						srcPort = d.Uint16()
					case ctaDstPort:
						dstPort = d.Uint16()
					}
				}
				return nil
			})
		}
	}
	t.src, t.dst = netip.AddrPortFrom(src, srcPort), netip.AddrPortFrom(dst, dstPort)
	return nil
}
