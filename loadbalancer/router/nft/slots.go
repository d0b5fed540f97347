package nft

import (
	"cmp"
	"encoding/binary"
	"hash/fnv"
	"net/netip"
	"slices"
)

// member is a backend that takes new connections.
type member struct {
	address netip.Addr
	weight  int
}

// classBits are the low bits of a table's number that say its class, so that a
// rule finds out the number of slots without another lookup.
const (
	classBits = 5
	classMask = 1<<classBits - 1
)

// classes are the sizes of tables. Up to 16 members of one weight have one slot
// each. Beyond that, and with weights, shares are rounded to slots: no member
// has more than an eighth too much.
var classes = [...]uint32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 128, 512, 2048, 8192}

// noClass is in numbers that are no table's.
const noClass = classMask

// exact is the number of classes with one slot for each member.
const exact = 16

// classOf returns the class for these members.
func classOf(members []member) int {
	n := len(members)
	if n <= exact && sameWeight(members) {
		return n - 1
	}
	need := 8 * n
	if !sameWeight(members) {
		need = max(need, min(8*total(members)/lightest(members), int(classes[len(classes)-1])))
	}
	for c := exact; c < len(classes); c++ {
		if need <= int(classes[c]) {
			return c
		}
	}
	return len(classes) - 1
}

func sameWeight(members []member) bool { return lightest(members)*len(members) == total(members) }

func lightest(members []member) int {
	least := members[0].weight
	for _, m := range members {
		least = min(least, m.weight)
	}
	return least
}

func total(members []member) int {
	sum := 0
	for _, m := range members {
		sum += m.weight
	}
	return sum
}

// fill returns the member of each slot: shares by weight, and so placed that a
// change of one member moves few slots of the others. Only the members decide,
// not the order in which they came.
func fill(members []member, size uint32) []netip.Addr {
	slots := make([]netip.Addr, size)
	if int(size) == len(members) {
		for i, m := range members {
			slots[i] = m.address
		}
		return slots
	}
	quota := quotas(members, int(size))
	perms := make([]permutation, len(members))
	for i, m := range members {
		perms[i] = newPermutation(m.address, size)
	}
	for left := int(size); left > 0; {
		for i := range members {
			if quota[i] == 0 {
				continue
			}
			quota[i]--
			left--
			at := perms[i].next()
			for slots[at].IsValid() {
				at = perms[i].next()
			}
			slots[at] = members[i].address
		}
	}
	return slots
}

// quotas shares n slots by weight, the remainders to the largest fractions and
// then to the first addresses.
func quotas(members []member, n int) []int {
	sum := total(members)
	quota := make([]int, len(members))
	order := make([]int, len(members))
	left := n
	for i, m := range members {
		quota[i] = n * m.weight / sum
		left -= quota[i]
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Compare(n*members[b].weight%sum, n*members[a].weight%sum)
	})
	for _, i := range order[:left] {
		quota[i]++
	}
	return quota
}

// permutation walks all of 0..n-1 once; n is a power of two and the step odd.
type permutation struct{ at, step, mask uint32 }

func newPermutation(a netip.Addr, n uint32) permutation {
	h := fnv.New64a()
	b := a.As16()
	_, _ = h.Write(b[:])
	sum := mix(h.Sum64())
	return permutation{at: uint32(sum) & (n - 1), step: uint32(sum>>32) | 1, mask: n - 1} //nolint:gosec // halves of a hash
}

func (p *permutation) next() uint32 {
	at := p.at
	p.at = (p.at + p.step) & p.mask
	return at
}

// mix spreads FNV's weak upper bits (the finalizer of splitmix64).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// content is the identity of a table: its members in bytes.
func content(members []member) string {
	b := make([]byte, 0, 20*len(members))
	for _, m := range members {
		b = append(b, m.address.AsSlice()...)
		b = binary.BigEndian.AppendUint32(b, uint32(m.weight)) //nolint:gosec // at most router.MaxWeight
	}
	return string(b)
}

// number derives a number from a text and steps aside for one that is taken;
// its low bits are the class. Numbers thus stay the same over restarts without
// being stored.
func number(taken map[uint32]bool, text string, class int) uint32 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(text))
	n := uint32(mix(h.Sum64()))&^classMask | uint32(class) //nolint:gosec // the lower half; a class is small
	for taken[n] || n <= classMask {
		n += 1 << classBits
	}
	taken[n] = true
	return n
}
