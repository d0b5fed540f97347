package services

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/onelb/onelb/test/e2e/kit"
	"github.com/onelb/onelb/test/lab"
)

// world adds what only these tests need.
type world struct{ *kit.World }

func newWorld(t *testing.T) world {
	t.Helper()
	return world{kit.New(t, &setup)}
}

// onHold reports whether OpenNebula has the address on hold.
func (w world) onHold(a netip.Addr) error {
	for _, id := range w.Reservations() {
		if slices.Contains(w.OneSim().Holds(id), a) {
			return nil
		}
	}
	return errors.New("OpenNebula does not have it on hold")
}

// reserved is the size of a pool's reservation, -1 without one.
func (w world) reserved(pool string) int {
	n, err := w.OneSim().VNetNamed(lab.OneUser, lab.ClusterName+"-"+pool)
	if err != nil {
		return -1
	}
	size := 0
	for _, r := range n.Ranges {
		size += r.Size
	}
	return size
}
