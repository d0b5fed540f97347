package addr

import (
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	ifaProto   = 11 // IFA_PROTO, absent from x/sys/unix
	sizeofAddr = unix.SizeofIfAddrmsg
	sizeofLink = unix.SizeofIfInfomsg
	forever    = math.MaxUint32
	// labelSuffix marks our IPv4 addresses on kernels without IFA_PROTO.
	labelSuffix = ":lb"
)

// record is one address as the kernel lists it.
type record struct {
	prefix   netip.Prefix
	index    int
	label    string
	protocol uint8
	valid    uint32 // seconds, forever
}

func (r record) remaining() time.Duration {
	if r.valid == forever {
		return -1
	}
	return time.Duration(r.valid) * time.Second
}

// label of our addresses on the interface; the kernel allows 15 characters.
func label(name string) string {
	if len(name)+len(labelSuffix) < unix.IFNAMSIZ {
		return name + labelSuffix
	}
	return "onelb"
}

// encodeAddress builds the body of RTM_NEWADDR and RTM_DELADDR. Without a name
// there is no label.
func encodeAddress(a netip.Addr, index int, name string, valid time.Duration) ([]byte, error) {
	b := make([]byte, sizeofAddr)
	b[0] = unix.AF_INET
	if a.Is6() {
		b[0] = unix.AF_INET6
	}
	b[1] = uint8(a.BitLen())                            // #nosec G115 -- 32 or 128
	b[3] = unix.RT_SCOPE_UNIVERSE                       // reachable from everywhere
	binary.NativeEndian.PutUint32(b[4:], uint32(index)) // #nosec G115 -- an interface index

	e := netlink.NewAttributeEncoder()
	e.Bytes(unix.IFA_LOCAL, a.AsSlice())
	e.Bytes(unix.IFA_ADDRESS, a.AsSlice())
	if valid > 0 {
		encodeLifetime(e, a, valid)
		if a.Is4() && name != "" {
			e.String(unix.IFA_LABEL, label(name))
		}
	}
	attributes, err := e.Encode()
	if err != nil {
		return nil, fmt.Errorf("encode address %s: %w", a, err)
	}
	return append(b, attributes...), nil
}

func encodeLifetime(e *netlink.AttributeEncoder, a netip.Addr, valid time.Duration) {
	seconds := uint32(max(1, (valid+time.Second-1)/time.Second)) // #nosec G115 -- seconds of a short lifetime
	preferred, flags := seconds, uint32(unix.IFA_F_NOPREFIXROUTE)
	if a.Is6() {
		// Preferred lifetime 0: else the address becomes the node's source
		// address, also for masquerading. No duplicate address detection: it
		// costs a second, and the candidate has asked the wire already.
		preferred, flags = 0, flags|unix.IFA_F_NODAD
	}
	info := make([]byte, 16)
	binary.NativeEndian.PutUint32(info, preferred)
	binary.NativeEndian.PutUint32(info[4:], seconds)
	e.Bytes(unix.IFA_CACHEINFO, info)
	e.Uint32(unix.IFA_FLAGS, flags)
	e.Uint8(ifaProto, Protocol)
}

func decodeAddress(b []byte) (record, error) {
	if len(b) < sizeofAddr {
		return record{}, fmt.Errorf("address message of %d bytes is too short", len(b))
	}
	r := record{index: int(binary.NativeEndian.Uint32(b[4:])), valid: forever}
	bits := int(b[1])
	d, err := netlink.NewAttributeDecoder(b[sizeofAddr:])
	if err != nil {
		return record{}, fmt.Errorf("address message: %w", err)
	}
	var local, address netip.Addr
	for d.Next() {
		switch d.Type() {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(d.Bytes())
		case unix.IFA_ADDRESS:
			address, _ = netip.AddrFromSlice(d.Bytes())
		case unix.IFA_LABEL:
			r.label = d.String()
		case ifaProto:
			r.protocol = d.Uint8()
		case unix.IFA_CACHEINFO:
			if info := d.Bytes(); len(info) >= 8 {
				r.valid = binary.NativeEndian.Uint32(info[4:])
			}
		}
	}
	if err := d.Err(); err != nil {
		return record{}, fmt.Errorf("address message: %w", err)
	}
	if !local.IsValid() { // IPv6 has IFA_LOCAL only on point-to-point links
		local = address
	}
	r.prefix = netip.PrefixFrom(local, bits)
	if !r.prefix.IsValid() {
		return record{}, fmt.Errorf("address message names no address")
	}
	return r, nil
}

func decodeLink(b []byte) (Interface, error) {
	if len(b) < sizeofLink {
		return Interface{}, fmt.Errorf("link message of %d bytes is too short", len(b))
	}
	flags := binary.NativeEndian.Uint32(b[8:])
	// IFF_LOWER_UP is the carrier itself; IFF_RUNNING follows up to a second later.
	const up = unix.IFF_UP | unix.IFF_LOWER_UP
	i := Interface{Index: int(int32(binary.NativeEndian.Uint32(b[4:]))), Up: flags&up == up} // #nosec G115 -- the kernel's int
	d, err := netlink.NewAttributeDecoder(b[sizeofLink:])
	if err != nil {
		return Interface{}, fmt.Errorf("link message: %w", err)
	}
	for d.Next() {
		switch d.Type() {
		case unix.IFLA_IFNAME:
			i.Name = d.String()
		case unix.IFLA_ADDRESS:
			i.MAC = append(net.HardwareAddr(nil), d.Bytes()...)
		}
	}
	if flags&unix.IFF_LOOPBACK != 0 {
		i.MAC = nil
	}
	if err := d.Err(); err != nil {
		return Interface{}, fmt.Errorf("link message: %w", err)
	}
	return i, nil
}
