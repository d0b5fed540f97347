package instances

import (
	"encoding/hex"
	"strings"
)

// uuid is the 16 bytes of a UUID, in the order in which they are written.
type uuid [16]byte

// parseUUID takes upper and lower case, with or without hyphens. The UUIDs that
// firmware without one shows, all 0 or all F, are none.
func parseUUID(s string) (u uuid, ok bool) {
	b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(s), "-", ""))
	if err != nil || len(b) != len(u) {
		return u, false
	}
	copy(u[:], b)
	var none, all uuid
	for i := range all {
		all[i] = 0xff
	}
	return u, u != none && u != all
}

// swapped is the same UUID with the bytes of its first three fields reversed. SMBIOS
// stores these fields in little endian since version 2.6 and in big endian
// before: where firmware and guest do not agree on the version, the guest, and so
// kubelet, reads them the wrong way round.
func (u uuid) swapped() uuid {
	u[0], u[1], u[2], u[3] = u[3], u[2], u[1], u[0]
	u[4], u[5] = u[5], u[4]
	u[6], u[7] = u[7], u[6]
	return u
}

// same says whether the two may be one machine's.
func (u uuid) same(other uuid) bool { return u == other || u.swapped() == other }
