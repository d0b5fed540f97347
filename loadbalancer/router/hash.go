package router

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math/bits"
	"net/netip"
)

// Hash identifies the content of a normalized document: everything but Token and
// Generation. Fields are tagged and zero values left out, so a field that a later
// release adds changes nothing until it is used.
//
// It is made from the sum of the hashes of what is in the document, which has
// neither order nor doubles, so that a change of one frontend need not hash the
// others again: see Accepted.
func (d Document) Hash() string { return d.hashOf(d.contents()) }

func (d Document) contents() contentSum {
	var sum contentSum
	var e encoder
	for i := range d.Groups {
		sum.add(e.group(d.Groups[i]))
	}
	for i := range d.Frontends {
		sum.add(e.frontend(d.Frontends[i]))
	}
	for _, r := range d.Routes {
		sum.add(e.route(r))
	}
	return sum
}

func (d Document) hashOf(contents contentSum) string {
	var e encoder
	e.text(1, d.Cluster)
	e.text(2, d.Identity)
	for _, word := range contents {
		e.number(6, word)
	}
	h := e.sum()
	return hex.EncodeToString(h[:16])
}

// contentSum is a sum of hashes modulo 2^256, the lowest word first.
type contentSum [4]uint64

func (s *contentSum) add(h [sha256.Size]byte) {
	var carry uint64
	for i := range s {
		s[i], carry = bits.Add64(s[i], binary.LittleEndian.Uint64(h[8*i:]), carry)
	}
}

func (s *contentSum) sub(h [sha256.Size]byte) {
	var borrow uint64
	for i := range s {
		s[i], borrow = bits.Sub64(s[i], binary.LittleEndian.Uint64(h[8*i:]), borrow)
	}
}

// encoder writes tag, length, value. The lengths make the encoding injective.
type encoder struct{ buf []byte }

// sum is the hash of what was written, and begins anew.
func (e *encoder) sum() [sha256.Size]byte {
	h := sha256.Sum256(e.buf)
	e.buf = e.buf[:0]
	return h
}

func (e *encoder) bytes(tag byte, b []byte) {
	e.buf = append(e.buf, tag)
	e.buf = binary.AppendUvarint(e.buf, uint64(len(b)))
	e.buf = append(e.buf, b...)
}

func (e *encoder) text(tag byte, s string) {
	if s == "" {
		return
	}
	e.buf = append(e.buf, tag)
	e.buf = binary.AppendUvarint(e.buf, uint64(len(s)))
	e.buf = append(e.buf, s...)
}

func (e *encoder) number(tag byte, n uint64) {
	if n == 0 {
		return
	}
	e.buf = append(e.buf, tag, 8)
	e.buf = binary.BigEndian.AppendUint64(e.buf, n)
}

func (e *encoder) address(tag byte, a netip.Addr) {
	e.buf = append(e.buf, tag, byte(a.BitLen()/8)) //nolint:gosec // 0, 4 or 16
	if a.Is4() {
		b := a.As4()
		e.buf = append(e.buf, b[:]...)
		return
	}
	if a.IsValid() {
		b := a.As16()
		e.buf = append(e.buf, b[:]...)
	}
}

func (e *encoder) group(g Group) [sha256.Size]byte {
	e.bytes(3, []byte(g.Name))
	for _, m := range g.Members {
		e.address(10, m.Address)
		e.number(11, uint64(m.Weight)) //nolint:gosec // any value hashes; Validate bounds it
		e.text(12, m.Node)
		if m.CheckAddress.IsValid() {
			e.address(15, m.CheckAddress)
		}
	}
	if g.Check != nil {
		e.number(13, uint64(g.Check.Port))
		e.text(14, g.Check.Path)
	}
	return e.sum()
}

func (e *encoder) frontend(f Frontend) [sha256.Size]byte {
	e.address(4, f.Address)
	e.text(20, string(f.Protocol))
	e.number(21, uint64(f.Port))
	e.text(22, f.Service)
	e.text(23, f.Group)
	e.number(24, uint64(f.BackendPort))
	e.text(25, string(f.SNAT))
	for _, r := range f.SourceRanges {
		e.address(26, r.Addr())
		e.number(27, uint64(r.Bits())+1) //nolint:gosec // -1 (invalid) becomes 0
	}
	e.number(28, uint64(f.Affinity)) //nolint:gosec // any value hashes; Validate bounds it
	e.number(29, uint64(f.MaxConnections))
	if f.Routed {
		e.number(32, 1)
	}
	return e.sum()
}

func (e *encoder) route(r Route) [sha256.Size]byte {
	e.address(5, r.Destination.Addr())
	e.number(30, uint64(r.Destination.Bits())+1) //nolint:gosec // -1 (invalid) becomes 0
	e.address(31, r.Gateway)
	return e.sum()
}
