package onesim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Selectors of a rule: one object, the objects of a group, of a cluster, or all.
const (
	selectOne     = 0x100000000
	selectGroup   = 0x200000000
	selectAll     = 0x400000000
	selectCluster = 0x800000000
	selectMask    = selectOne | selectGroup | selectAll | selectCluster
	idMask        = 0xFFFFFFFF
)

// rule is one line of the ACL.
type rule struct {
	id                           int
	user, resource, rights, zone uint64
}

func (s *Sim) installRules() {
	s.rules, s.nextRule = nil, 0
	for _, r := range []rule{
		{user: 0x200000001, resource: 0x121429400000000, rights: 8, zone: selectAll},
		{user: selectAll, resource: 0x800400000000, rights: 1, zone: selectAll},
		{user: selectAll, resource: 0x18000400000000, rights: 1, zone: selectAll},
	} {
		s.addRule(r)
	}
	s.addDefaultVDCRules(1)
}

// addDefaultVDCRules gives a group of the default VDC its rights: MANAGE on hosts, USE on networks and datastores.
func (s *Sim) addDefaultVDCRules(gid int) {
	for _, r := range defaultVDCRules(gid) {
		s.addRule(r)
	}
}

func defaultVDCRules(gid int) []rule {
	who := selectGroup | uint64(gid)
	return []rule{
		{user: who, resource: kindHost.acl | selectAll, rights: 2, zone: selectOne},
		{user: who, resource: kindNet.acl | selectAll, rights: 1, zone: selectOne},
		{user: who, resource: kindDatastore.acl | selectAll, rights: 1, zone: selectOne},
	}
}

func (r rule) same(o rule) bool {
	return r.user == o.user && r.resource == o.resource && r.rights == o.rights && r.zone == o.zone
}

func (s *Sim) addRule(r rule) int {
	r.id = s.nextRule
	s.nextRule++
	s.rules = append(s.rules, r)
	return r.id
}

// ruled tells whether a rule gives the right.
func (c *call) ruled(n need) bool {
	for _, r := range c.rules {
		if r.rights&opRights[n.op] != 0 && r.resource&n.kind.acl != 0 && c.isSubject(r.user) && r.selects(n.obj, c.Sim) {
			return true
		}
	}
	return false
}

func (c *call) isSubject(who uint64) bool {
	id := int(who & idMask)
	switch who & selectMask {
	case selectAll:
		return true
	case selectOne:
		return id == c.user.id
	case selectGroup:
		return slices.Contains(c.groups, id)
	}
	return false
}

func (r rule) selects(o *object, s *Sim) bool {
	id := int(r.resource & idMask)
	switch r.resource & selectMask {
	case selectAll:
		return true
	case selectOne:
		return o != nil && o.id == id
	case selectGroup:
		return o != nil && o.gid == id
	case selectCluster:
		return o != nil && s.inCluster(o, id)
	}
	return false
}

func (s *Sim) inCluster(o *object, id int) bool {
	switch o.kind {
	case kindNet, kindHost, kindDatastore:
		_, ok := s.clusters.byID[id]
		return ok && id == 0 // everything is in the default cluster
	}
	return false
}

func selector(v uint64) string {
	id := strconv.FormatUint(v&idMask, 10)
	switch v & selectMask {
	case selectOne:
		return "#" + id
	case selectGroup:
		return "@" + id
	case selectCluster:
		return "%" + id
	}
	return "*"
}

func (r rule) String() string {
	var kinds, rights []string
	for _, k := range resourceNames {
		if r.resource&k.bit != 0 {
			kinds = append(kinds, k.name)
		}
	}
	for i, name := range opNames {
		if r.rights&opRights[i] != 0 {
			rights = append(rights, name)
		}
	}
	return fmt.Sprintf("%s %s/%s %s %s", selector(r.user), strings.Join(kinds, "+"), selector(r.resource),
		strings.Join(rights, "+"), selector(r.zone))
}

// malformed tells what is wrong with a rule, in oned's words.
func (r rule) malformed() string {
	allZones := r.zone&selectMask == selectAll
	crossZone := kindUser.acl | kindGroup.acl | kindZone.acl
	switch {
	case r.user&selectMask == 0:
		return "[user] is missing one of the exclusive selectors"
	case r.resource&selectMask == 0:
		return "[resource] is missing one of the exclusive selectors"
	case r.resource&selectMask == selectOne && allZones && r.resource&^selectMask&^idMask&^crossZone != 0:
		return "[resource] INDIVIDUAL(#) selector cannot be applied to ALL zones, except for USER, GROUP and ZONE types"
	case r.resource&^selectMask&^idMask == 0:
		return "[resource] type is missing"
	case r.rights == 0:
		return "[rights] is missing"
	case r.rights > 15:
		return "wrong [rights], it cannot be bigger than 0xF"
	}
	return ""
}

func aclMethods() []method {
	return []method{
		{name: "one.acl.info", run: aclInfo},
		{name: "one.acl.addrule", params: "sss|s", write: true, run: aclAddRule},
		{name: "one.acl.delrule", params: "i", write: true, run: aclDelRule},
	}
}

func aclInfo(c *call) (any, error) {
	if err := c.authorize(need{op: opManage, kind: kindACL}); err != nil {
		return nil, err
	}
	sorted := slices.Clone(c.rules)
	slices.SortStableFunc(sorted, func(a, b rule) int { return int(int64(a.user) - int64(b.user)) })
	var b xmlOut
	b.open("ACL_POOL")
	for _, r := range sorted {
		b.open("ACL")
		b.int("ID", r.id)
		b.text("USER", strconv.FormatUint(r.user, 16))
		b.text("RESOURCE", strconv.FormatUint(r.resource, 16))
		b.text("RIGHTS", strconv.FormatUint(r.rights, 16))
		b.text("ZONE", strconv.FormatUint(r.zone, 16))
		b.text("STRING", r.String())
		b.close("ACL")
	}
	b.close("ACL_POOL")
	return b.String(), nil
}

func aclAddRule(c *call) (any, error) {
	if err := c.authorize(need{op: opManage, kind: kindACL}); err != nil {
		return nil, err
	}
	r := rule{zone: selectAll}
	for i, field := range []*uint64{&r.user, &r.resource, &r.rights, &r.zone} {
		text := strings.TrimPrefix(c.str(i), "0x")
		if text == "" && i == 3 {
			continue
		}
		v, err := strconv.ParseUint(text, 16, 64)
		if err != nil {
			return nil, fail(CodeInternal, "Rule component %q is not a hexadecimal number", c.str(i))
		}
		*field = v
	}
	if text := r.malformed(); text != "" {
		return nil, fail(CodeInternal, "Rule %s is malformed: %s", r, text)
	}
	if slices.ContainsFunc(c.rules, r.same) {
		return nil, fail(CodeInternal, "Rule %s already exists", r)
	}
	return c.addRule(r), nil
}

func aclDelRule(c *call) (any, error) {
	if err := c.authorize(need{op: opManage, kind: kindACL}); err != nil {
		return nil, err
	}
	id := c.int(0)
	i := slices.IndexFunc(c.rules, func(r rule) bool { return r.id == id })
	if i < 0 {
		return nil, fail(CodeInternal, "Rule %d does not exist", id)
	}
	c.rules = slices.Delete(c.rules, i, i+1)
	return id, nil
}
