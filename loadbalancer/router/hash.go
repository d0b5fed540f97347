package router

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"net/netip"
)

// Hash identifies the content of a normalized document: everything but Token and
// Generation. Fields are tagged and zero values left out, so a field that a later
// release adds changes nothing until it is used; an agent that does not know
// it then computes another hash and refuses.
func (d Document) Hash() string {
	e := encoder{buf: make([]byte, 0, 2*hashAtOnce), sum: sha256.New()}
	e.text(1, d.Cluster)
	e.text(2, d.Identity)
	for i := range d.Groups {
		e.group(d.Groups[i])
		e.flush(hashAtOnce)
	}
	for i := range d.Frontends {
		e.frontend(d.Frontends[i])
		e.flush(hashAtOnce)
	}
	for _, r := range d.Routes {
		e.address(5, r.Destination.Addr())
		e.number(30, uint64(r.Destination.Bits())+1) //nolint:gosec // -1 (invalid) becomes 0
		e.address(31, r.Gateway)
	}
	e.flush(0)
	return hex.EncodeToString(e.sum.Sum(nil)[:16])
}

// hashAtOnce is how much is encoded before it is hashed: it stays in the
// processor's cache.
const hashAtOnce = 16 << 10

// encoder writes tag, length, value. The lengths make the encoding injective.
type encoder struct {
	buf []byte
	sum hash.Hash
}

// flush hashes what has come together if it is more than so many bytes.
func (e *encoder) flush(above int) {
	if len(e.buf) > above {
		_, _ = e.sum.Write(e.buf) // never fails
		e.buf = e.buf[:0]
	}
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

func (e *encoder) group(g Group) {
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
}

func (e *encoder) frontend(f Frontend) {
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
}
