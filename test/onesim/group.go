package onesim

import "slices"

// group is a set of users.
type group struct {
	object
	template *template
	quota    quota
}

// vdc is a virtual datacenter: groups that get the rights of its clusters. Only the default one has effects.
type vdc struct {
	object
	groups []int
}

func sunstoneViews() *template {
	t := &template{}
	t.add(newVector("SUNSTONE", "DEFAULT_VIEW", "cloud", "VIEWS", "cloud",
		"GROUP_ADMIN_DEFAULT_VIEW", "groupadmin", "GROUP_ADMIN_VIEWS", "groupadmin,cloud"))
	return t
}

func (s *Sim) groupName(id int) string {
	if g := s.groups.byID[id]; g != nil {
		return g.name
	}
	return ""
}

func (s *Sim) groupNamed(name string) *group {
	for _, g := range s.groups.byID {
		if g.name == name {
			return g
		}
	}
	return nil
}

// newGroup puts the group into the default VDC, as oned does.
func (s *Sim) newGroup(name string) *group {
	g := &group{object: object{kind: kindGroup, id: s.groups.take(), name: name}, template: &template{}}
	s.groups.insert(g)
	s.vdcs.byID[0].groups = append(s.vdcs.byID[0].groups, g.id)
	s.addDefaultVDCRules(g.id)
	return g
}

func groupMethods() []method {
	return []method{
		{name: "one.group.info", params: "i|b", run: groupInfo},
		{name: "one.grouppool.info", run: groupPoolInfo},
		{name: "one.group.allocate", params: "s", write: true, run: groupAllocate},
		{name: "one.group.delete", params: "i", write: true, run: groupDelete},
		{name: "one.vdcpool.info", run: vdcPoolInfo},
		{name: "one.vdc.addgroup", params: "ii", write: true, run: vdcAddGroup},
		{name: "one.vdc.delgroup", params: "ii", write: true, run: vdcDelGroup},
	}
}

// groupDelete removes a group without members, and the rules about it. The texts of its refusals were not recorded.
func groupDelete(c *call) (any, error) {
	g := c.Sim.groups.byID[c.int(0)]
	if g == nil {
		return nil, noExists(kindGroup, c.int(0))
	}
	if err := c.authorize(needs(opManage, &g.object)); err != nil {
		return nil, err
	}
	if g.id < 100 || len(c.members(g.id)) > 0 {
		return nil, fail(CodeInternal, "Group %d is not empty, or one of the system's.", g.id)
	}
	for _, v := range c.vdcs.byID {
		c.leaveVDC(v, g.id)
	}
	delete(c.Sim.groups.byID, g.id)
	return g.id, nil
}

func (s *Sim) members(gid int) []int {
	var out []int
	for _, id := range s.users.sorted() {
		if slices.Contains(s.users.byID[id].groups, gid) {
			out = append(out, id)
		}
	}
	return out
}

func (s *Sim) writeGroup(b *xmlOut, g *group) {
	b.open("GROUP")
	b.int("ID", g.id)
	b.text("NAME", g.name)
	g.template.writeXML(b, "TEMPLATE")
	b.ids("USERS", s.members(g.id))
	b.ids("ADMINS", nil)
}

func groupInfo(c *call) (any, error) {
	id := c.int(0)
	if id == -1 {
		id = c.groups[0]
	}
	g := c.Sim.groups.byID[id]
	if g == nil {
		return nil, noExists(kindGroup, id)
	}
	if err := c.read(&g.object); err != nil {
		return nil, err
	}
	var b xmlOut
	c.writeGroup(&b, g)
	c.writeQuota(&b, &g.quota, func(v *vm) bool { return v.gid == g.id && g.id != 0 })
	b.vector("VLAN_RULES", []pair{{"ID", itoa(g.id)}})
	writeDefaultQuotas(&b, "DEFAULT_GROUP_QUOTAS")
	b.close("GROUP")
	return b.String(), nil
}

func groupPoolInfo(c *call) (any, error) {
	var b xmlOut
	b.open("GROUP_POOL")
	for _, id := range c.Sim.groups.sorted() {
		if g := c.Sim.groups.byID[id]; c.may(opUse, &g.object) {
			c.writeGroup(&b, g)
			b.close("GROUP")
		}
	}
	writeDefaultQuotas(&b, "DEFAULT_GROUP_QUOTAS")
	b.close("GROUP_POOL")
	return b.String(), nil
}

func groupAllocate(c *call) (any, error) {
	if err := c.authorize(creates(kindGroup)); err != nil {
		return nil, err
	}
	if err := checkName(c.str(0)); err != nil {
		return nil, err
	}
	if old := c.groupNamed(c.str(0)); old != nil {
		return nil, fail(CodeInternal, "NAME is already taken by GROUP %d.", old.id)
	}
	return c.newGroup(c.str(0)).id, nil
}

const defaultVDCText = "Every new group is added to this VDC. Use it to store default access rules for your groups. " +
	"NOTE: You may need to remove a group from the default VDC before assigning it to other VDC."

func vdcPoolInfo(c *call) (any, error) {
	var b xmlOut
	b.open("VDC_POOL")
	for _, id := range c.vdcs.sorted() {
		v := c.vdcs.byID[id]
		if !c.may(opUse, &v.object) {
			continue
		}
		b.open("VDC")
		b.int("ID", v.id)
		b.text("NAME", v.name)
		b.ids("GROUPS", v.groups)
		b.open("CLUSTERS")
		b.open("CLUSTER")
		b.int("ZONE_ID", 0)
		b.int("CLUSTER_ID", -10)
		b.close("CLUSTER")
		b.close("CLUSTERS")
		for _, name := range []string{"HOSTS", "DATASTORES", "VNETS"} {
			b.ids(name, nil)
		}
		b.vector("TEMPLATE", []pair{{"DESCRIPTION", defaultVDCText}})
		b.close("VDC")
	}
	b.close("VDC_POOL")
	return b.String(), nil
}

func (c *call) vdcAndGroup() (*vdc, *group, error) {
	v := c.vdcs.byID[c.int(0)]
	if v == nil {
		return nil, nil, noExists(kindVDC, c.int(0))
	}
	g := c.Sim.groups.byID[c.int(1)]
	if g == nil {
		return nil, nil, noExists(kindGroup, c.int(1))
	}
	return v, g, c.authorize(needs(opAdmin, &v.object), needs(opAdmin, &g.object))
}

func vdcAddGroup(c *call) (any, error) {
	v, g, err := c.vdcAndGroup()
	if err != nil {
		return nil, err
	}
	if slices.Contains(v.groups, g.id) {
		return nil, fail(CodeInternal, "Group is already assigned to this VDC")
	}
	v.groups = append(v.groups, g.id)
	c.addDefaultVDCRules(g.id)
	return v.id, nil
}

func vdcDelGroup(c *call) (any, error) {
	v, g, err := c.vdcAndGroup()
	if err != nil {
		return nil, err
	}
	if !c.leaveVDC(v, g.id) {
		return nil, fail(CodeInternal, "Group is not assigned to this VDC")
	}
	return v.id, nil
}
