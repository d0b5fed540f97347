package onesim

import (
	"fmt"
	"net/netip"
)

// Hold holds an address in a network as somebody else would, whatever the rights and the network's state.
func (s *Sim) Hold(vnetID int, addr netip.Addr) error {
	return s.eachIndex(vnetID, addr, func(ar *addrRange, index int) bool {
		if !ar.canHold(index) {
			return false
		}
		ar.leases.add(index, ownerHold)
		return true
	})
}

// Release drops a hold; unlike one.vn.release it tells when there is none.
func (s *Sim) Release(vnetID int, addr netip.Addr) error {
	return s.eachIndex(vnetID, addr, func(ar *addrRange, index int) bool {
		return ar.leases.remove(index, ownerHold)
	})
}

// eachIndex runs change where the address is; it must succeed in one range at least.
func (s *Sim) eachIndex(vnetID int, addr netip.Addr, change func(*addrRange, int) bool) error {
	s.catchUp()
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.vnets.byID[vnetID]
	if v == nil {
		return fmt.Errorf("network %d: %w", vnetID, ErrNotFound)
	}
	key := "IP"
	if addr.Is6() {
		key = "IP6"
	}
	changed := false
	for _, ar := range v.ars {
		if index, ok := ar.index(key, addr.String()); ok && change(ar, index) {
			changed = true
		}
	}
	if !changed {
		return fmt.Errorf("address %s in network %d: not in a range, or not in that state", addr, vnetID)
	}
	return nil
}
