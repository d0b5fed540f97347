package onesim

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// addrRange is an address range of a network.
type addrRange struct {
	id        int
	typ       string
	mac       uint64 // 48 bits; 0 in a SHARED range, which has none
	ip        netip.Addr
	ip6       netip.Addr // first address of a static range
	global    netip.Addr // SLAAC prefixes, as addresses with a zero host part
	ula       netip.Addr
	prefixes  []pair // GLOBAL_PREFIX, ULA_PREFIX, PREFIX_LENGTH as they were written
	size      int
	next      int // where the search for a free address starts
	shared    bool
	parentAR  int    // -1 unless in a reservation
	custom    []pair // free attributes
	leases    leaseSet
	macPrefix uint64
}

// rangeType tells what an address has.
type rangeType struct{ v4, static6, slaac bool }

var rangeTypes = map[string]rangeType{
	"IP4": {v4: true}, "IP6": {slaac: true}, "IP6_STATIC": {static6: true},
	"IP4_6": {v4: true, slaac: true}, "IP4_6_STATIC": {v4: true, static6: true}, "ETHER": {},
}

// ownKeys are attributes that a range manages itself; they are never free attributes.
var ownKeys = []string{
	"AR_ID", "ALLOCATED", "TYPE", "MAC", "IP", "IP6", "SIZE", "NEXT_INDEX", "SHARED", "PARENT_NETWORK_AR_ID", "GLOBAL_PREFIX",
	"ULA_PREFIX", "PREFIX_LENGTH", "MAC_END", "IP_END", "IP6_END", "IP6_ULA", "IP6_ULA_END", "IP6_GLOBAL", "IP6_GLOBAL_END",
	"USED_LEASES", "LEASES",
}

const defaultMACPrefix = 0x0200

// newRange reads an AR attribute.
func newRange(a *attribute, id int, random func() uint32) (*addrRange, error) {
	r := &addrRange{id: id, typ: strings.ToUpper(a.get("TYPE")), parentAR: -1, macPrefix: defaultMACPrefix}
	kind, ok := rangeTypes[r.typ]
	if !ok {
		return nil, fail(CodeInternal, "Unknown or missing address range TYPE.")
	}
	size, err := strconv.Atoi(a.get("SIZE"))
	if err != nil || size <= 0 {
		return nil, fail(CodeInternal, "Wrong SIZE for address range")
	}
	r.size = size
	if r.shared = strings.EqualFold(a.get("SHARED"), "YES"); r.shared && r.typ != "IP4" && r.typ != "IP6_STATIC" {
		return nil, fail(CodeInternal, "Shared address ranges are only supported for IP4 and IP6_STATIC types")
	}
	if err := r.readAddresses(a, kind); err != nil {
		return nil, err
	}
	if err := r.readMAC(a, kind, random); err != nil {
		return nil, err
	}
	r.custom = freePairs(a)
	return r, nil
}

func freePairs(a *attribute) []pair {
	var out []pair
	for _, p := range a.pairs {
		if !slices.Contains(ownKeys, p.key) {
			out = append(out, p)
		}
	}
	return out
}

func (r *addrRange) readAddresses(a *attribute, kind rangeType) error {
	var err error
	if kind.v4 {
		if r.ip, err = netip.ParseAddr(a.get("IP")); err != nil || !r.ip.Is4() {
			return fail(CodeInternal, "Wrong or empty IP attribute")
		}
	}
	if kind.static6 {
		if r.ip6, err = netip.ParseAddr(a.get("IP6")); err != nil || !r.ip6.Is6() {
			return fail(CodeInternal, "Wrong or empty IP6 attribute")
		}
		if a.get("PREFIX_LENGTH") == "" {
			return fail(CodeInternal, "Missing PREFIX_LENGTH attribute")
		}
		r.prefixes = append(r.prefixes, pair{"PREFIX_LENGTH", a.get("PREFIX_LENGTH")})
	}
	if kind.slaac {
		return r.readPrefixes(a)
	}
	return nil
}

func (r *addrRange) readPrefixes(a *attribute) error {
	for _, p := range []struct {
		key  string
		addr *netip.Addr
	}{{"GLOBAL_PREFIX", &r.global}, {"ULA_PREFIX", &r.ula}} {
		text := a.get(p.key)
		if text == "" {
			continue
		}
		addr, err := netip.ParseAddr(text)
		if err != nil || !addr.Is6() {
			return fail(CodeInternal, "Wrong format for IP6 %s", strings.ToLower(strings.Replace(p.key, "_", " ", 1)))
		}
		*p.addr = addr
		r.setPrefixText(p.key, text)
	}
	return nil
}

func (r *addrRange) setPrefixText(key, text string) {
	r.prefixes = slices.DeleteFunc(r.prefixes, func(p pair) bool { return p.key == key })
	r.prefixes = append(r.prefixes, pair{key, text})
}

// readMAC takes the MAC given, or makes it from the IPv4 address, or draws it.
func (r *addrRange) readMAC(a *attribute, kind rangeType, random func() uint32) error {
	if r.shared {
		return nil
	}
	if text := a.get("MAC"); text != "" {
		mac, ok := parseMAC(text)
		if !ok {
			return fail(CodeInternal, "Wrong MAC attribute")
		}
		r.mac = mac
		return nil
	}
	low := uint32(0)
	if kind.v4 {
		low = ip4Number(r.ip)
	} else {
		low = random()
	}
	r.mac = r.macPrefix<<32 | uint64(low)
	return nil
}

// pairs are the range's attributes as oned stores them, sorted.
func (r *addrRange) pairs(raw bool) []pair {
	a := attribute{vector: true, pairs: slices.Clone(r.custom)}
	a.set("AR_ID", itoa(r.id))
	a.set("TYPE", r.typ)
	a.set("SIZE", itoa(r.size))
	a.set("NEXT_INDEX", itoa(r.next))
	a.set("MAC", macString(r.mac))
	a.set("SHARED", yesNo(r.shared))
	if r.ip.IsValid() {
		a.set("IP", r.ip.String())
	}
	if r.ip6.IsValid() {
		a.set("IP6", r.ip6.String())
	}
	for _, p := range r.prefixes {
		a.set(p.key, p.value)
	}
	if r.parentAR >= 0 {
		a.set("PARENT_NETWORK_AR_ID", itoa(r.parentAR))
	}
	if raw && r.leases.touched {
		a.set("ALLOCATED", r.leases.raw())
	}
	return a.pairs
}

func yesNo(b bool) string {
	if b {
		return "YES"
	}
	return "NO"
}

// address are the attributes of the address at an index, in order of name.
func (r *addrRange) address(index int) []pair {
	kind := rangeTypes[r.typ]
	out := make([]pair, 0, 7)
	if kind.v4 {
		out = append(out, pair{"IP", ip4Add(r.ip, index).String()})
	}
	if kind.static6 {
		out = append(out, pair{"IP6", ip6Add(r.ip6, index).String()})
	}
	if kind.slaac {
		mac := r.mac + uint64(index)
		if r.global.IsValid() {
			out = append(out, pair{"IP6_GLOBAL", slaac(r.global, mac).String()})
		}
		out = append(out, pair{"IP6_LINK", slaac(linkLocal, mac).String()})
		if r.ula.IsValid() {
			out = append(out, pair{"IP6_ULA", slaac(r.ula, mac).String()})
		}
	}
	if !r.shared {
		out = append(out, pair{"MAC", macString(r.mac + uint64(index))})
	}
	return out
}

// index finds the address of that key (IP, IP6, MAC). SLAAC addresses cannot be asked for.
func (r *addrRange) index(key, value string) (int, bool) {
	kind := rangeTypes[r.typ]
	var offset int
	var ok bool
	switch {
	case key == "IP" && kind.v4:
		offset, ok = ip4Diff(r.ip, value)
	case key == "IP6" && kind.static6:
		offset, ok = ip6Diff(r.ip6, value)
	case key == "MAC" && !r.shared:
		var mac uint64
		if mac, ok = parseMAC(value); ok {
			offset, ok = int(mac-r.mac), mac >= r.mac && mac-r.mac < 1<<31
		}
	}
	return offset, ok && offset >= 0 && offset < r.size
}

func (r *addrRange) canHold(index int) bool {
	if r.shared {
		return !r.leases.has(index, ownerHold)
	}
	return !r.leases.taken(index)
}

// pick finds the next free address and moves on.
func (r *addrRange) pick() (int, bool) {
	if r.shared || r.leases.used >= r.size {
		return 0, false
	}
	for range r.size {
		index := r.next
		r.next = (r.next + 1) % r.size
		if !r.leases.taken(index) {
			return index, true
		}
	}
	return 0, false
}

// pickBlock finds n free addresses in one piece.
func (r *addrRange) pickBlock(n int) (int, bool) {
	if r.shared || r.leases.used+n > r.size {
		return 0, false
	}
	start := r.next
	for range 2 {
		for first := start; first+n <= r.size; first++ {
			if r.free(first, n) {
				r.next = (first + n) % r.size
				return first, true
			}
		}
		start = 0
	}
	return 0, false
}

// free tells whether n addresses from first are free. It does not look at the range's end: neither does oned.
func (r *addrRange) free(first, n int) bool {
	from, _ := slices.BinarySearchFunc(r.leases.list, lease{index: first}, compareLeases)
	return from == len(r.leases.list) || r.leases.list[from].index >= first+n
}

// slice is a new range of n addresses from first, for a reservation.
func (r *addrRange) slice(first, n, id int) *addrRange {
	out := &addrRange{
		id: id, typ: r.typ, global: r.global, ula: r.ula, prefixes: slices.Clone(r.prefixes), size: n, shared: r.shared,
		parentAR: r.id, custom: slices.Clone(r.custom), macPrefix: r.macPrefix,
	}
	if !r.shared {
		out.mac = r.mac + uint64(first)
	}
	if r.ip.IsValid() {
		out.ip = ip4Add(r.ip, first)
	}
	if r.ip6.IsValid() {
		out.ip6 = ip6Add(r.ip6, first)
	}
	return out
}

// leaseBytes is about what a lease takes in a document.
const leaseBytes = 128

func (r *addrRange) writeInfo(b *xmlOut, see func(owner uint64) bool) {
	b.open("AR")
	for _, p := range r.pairs(false) {
		b.cdata(p.key, p.value)
	}
	r.writeEnds(b)
	b.int("USED_LEASES", r.leases.used)
	b.Grow(leaseBytes * len(r.leases.list))
	b.open("LEASES")
	for _, l := range r.leases.list {
		if see(l.owner) {
			pairs := append(r.address(l.index), ownerPair(l.owner))
			b.vector("LEASE", pairs)
		}
	}
	b.close("LEASES")
	b.close("AR")
}

func (r *addrRange) writeEnds(b *xmlOut) {
	last := r.size - 1
	kind := rangeTypes[r.typ]
	end := r.mac
	if !r.shared {
		end += uint64(last)
	}
	b.cdata("MAC_END", macString(end))
	if kind.v4 {
		b.cdata("IP_END", ip4Add(r.ip, last).String())
	}
	if kind.static6 {
		b.cdata("IP6_END", ip6Add(r.ip6, last).String())
	}
	if r.ula.IsValid() {
		b.cdata("IP6_ULA", slaac(r.ula, r.mac).String())
		b.cdata("IP6_ULA_END", slaac(r.ula, end).String())
	}
	if r.global.IsValid() {
		b.cdata("IP6_GLOBAL", slaac(r.global, r.mac).String())
		b.cdata("IP6_GLOBAL_END", slaac(r.global, end).String())
	}
}
