package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables"
)

// String lists the plan as nft would: one element on a line, sorted, empty sets
// left out.
func (p *Plan) String() string {
	var b strings.Builder
	for i, f := range families {
		for s, d := range f.definitions() {
			for _, e := range p.tables[i][s] {
				fmt.Fprintf(&b, "%s %s %s", f.name, d.name, fields(d.key, e.key, e.end))
				if d.isMap {
					fmt.Fprintf(&b, " : %s", field(d.data, e.val))
				}
				b.WriteByte('\n')
			}
		}
	}
	return b.String()
}

// fields shows a concatenation, with a range where first and last differ.
func fields(types []nftables.SetDatatype, key, end string) string {
	var out []string
	for _, t := range types {
		n := int(t.Bytes+3) / 4 * 4
		text := field(t, key[:n])
		key = key[n:]
		if end != "" {
			if last := field(t, end[:n]); last != text {
				text += "-" + last
			}
			end = end[n:]
		}
		out = append(out, text)
	}
	return strings.Join(out, " . ")
}

func field(t nftables.SetDatatype, b string) string {
	switch t {
	case nftables.TypeVerdict:
		return "jump " + b
	case nftables.TypeIPAddr, nftables.TypeIP6Addr:
		a, _ := netip.AddrFromSlice([]byte(b))
		return a.String()
	case nftables.TypeInetProto:
		switch b[0] {
		case 6:
			return "tcp"
		case 17:
			return "udp"
		case 132:
			return "sctp"
		}
		return fmt.Sprint(b[0])
	case nftables.TypeInetService:
		return fmt.Sprint(binary.BigEndian.Uint16([]byte(b)))
	case nftables.TypeIFName:
		return strings.TrimRight(b, "\x00")
	default:
		return fmt.Sprintf("%#08x", binary.NativeEndian.Uint32([]byte(b)))
	}
}
