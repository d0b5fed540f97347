package onesim

import (
	"fmt"
	"slices"
)

// Isolate takes a group out of the default VDC, which gives USE on every network, as "onevdc delgroup 0" does.
func (s *Sim) Isolate(groupName string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.groupNamed(groupName)
	if g == nil {
		return fmt.Errorf("group %q: %w", groupName, ErrNotFound)
	}
	if !s.leaveVDC(s.vdcs.byID[0], g.id) {
		return fmt.Errorf("group %q is not in the default VDC", groupName)
	}
	return nil
}

// leaveVDC takes a group out of a VDC, with the rights that it gave; false: it was not in it.
func (s *Sim) leaveVDC(v *vdc, gid int) bool {
	i := slices.Index(v.groups, gid)
	if i < 0 {
		return false
	}
	v.groups = slices.Delete(v.groups, i, i+1)
	gone := defaultVDCRules(gid)
	s.rules = slices.DeleteFunc(s.rules, func(r rule) bool { return slices.ContainsFunc(gone, r.same) })
	return true
}

// Quota sets a user's quotas, as one.user.quota does, for example NETWORK=[ID="0",LEASES="100"].
func (s *Sim) Quota(userName, text string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.owner(userName)
	if err != nil {
		return err
	}
	return setQuota(&u.quota, text)
}
