package onesim

import (
	"slices"
	"time"
)

// netState is the state of a virtual network.
type netState int

const (
	netInit netState = iota
	netReady
	netLockCreate
	netLockDelete
	netDone
	netError
	netUpdateFailure
)

func (s netState) String() string {
	return [...]string{"INIT", "READY", "LOCK_CREATE", "LOCK_DELETE", "DONE", "ERROR", "UPDATE_FAILURE"}[s]
}

// vnet is a virtual network; one with a parent is a reservation.
type vnet struct {
	object
	state, prevState netState
	parent           int // -1 unless a reservation
	template         *template
	ars              []*addrRange
	nextAR           int
	vrouters         []int
	asked            []attribute // AR attributes of allocate, until the driver answers
}

// setState keeps no history once the network was READY; oned shows the same state twice then.
func (v *vnet) setState(s netState) {
	v.prevState = s
	if s == netLockCreate {
		v.prevState = netInit
	}
	v.state = s
}

func (v *vnet) used() int {
	n := 0
	for _, ar := range v.ars {
		n += ar.leases.used
	}
	return n
}

// broken is a network that oned cannot load any more: a range with more leases than addresses, which a reserve
// by address past the end of the range makes.
func (v *vnet) broken() bool {
	return slices.ContainsFunc(v.ars, func(ar *addrRange) bool { return ar.leases.used > ar.size })
}

func (v *vnet) ar(id int) *addrRange {
	for _, ar := range v.ars {
		if ar.id == id {
			return ar
		}
	}
	return nil
}

// rangesFor are all ranges for -1, else the one of that id.
func (v *vnet) rangesFor(id int) []*addrRange {
	if id < 0 {
		return v.ars
	}
	if ar := v.ar(id); ar != nil {
		return []*addrRange{ar}
	}
	return nil
}

// addRange appends the range that an AR attribute describes.
func (s *Sim) addRange(v *vnet, a *attribute) error {
	ar, err := newRange(a, v.nextAR, s.opts.RandomMAC)
	if err != nil {
		return err
	}
	v.nextAR++
	v.ars = append(v.ars, ar)
	return nil
}

// vnetByID is nil for a network that does not exist or cannot be loaded.
func (s *Sim) vnetByID(id int) *vnet {
	v := s.vnets.byID[id]
	if v == nil || v.broken() {
		return nil
	}
	return v
}

// vnetArg finds the network of the first parameter and authorizes op on it.
func (c *call) vnetArg(op operation) (*vnet, error) {
	v := c.vnetByID(c.int(0))
	if v == nil {
		return nil, noExists(kindNet, c.int(0))
	}
	if op == opUse {
		return v, c.read(&v.object)
	}
	return v, c.authorize(needs(op, &v.object))
}

func vnetMethods() []method {
	return []method{
		{name: "one.vn.allocate", params: "s|i", write: true, run: vnAllocate},
		{name: "one.vn.delete", params: "i", write: true, run: vnDelete},
		{name: "one.vn.info", params: "i|b", run: vnInfo},
		{name: "one.vn.update", params: "is|i", write: true, run: vnUpdate},
		{name: "one.vn.recover", params: "ii", write: true, run: vnRecover},
		{name: "one.vnpool.info", params: "iii", run: vnPoolInfo},
	}
}

func vnAllocate(c *call) (any, error) {
	t, err := parseTemplate(c.str(0))
	if err != nil {
		return nil, err
	}
	cl := c.clusters.byID[max(0, c.intOr(1, -1))]
	if cl == nil {
		return nil, noExists(kindCluster, c.int(1))
	}
	if err := c.authorize(creates(kindNet), needs(opAdmin, &cl.object)); err != nil {
		return nil, err
	}
	v, err := c.newVNet(c.user, t)
	if err != nil {
		return nil, err
	}
	return v.id, nil
}

// newVNet makes a network in LOCK_CREATE; its ranges come with the driver's answer.
func (s *Sim) newVNet(owner *user, t *template) (*vnet, error) {
	name := t.get("NAME")
	if name == "" {
		return nil, fail(CodeInternal, "No NAME in template for Virtual Network.")
	}
	if err := s.checkNetName(owner.id, name); err != nil {
		return nil, err
	}
	if t.get("VN_MAD") == "" {
		return nil, fail(CodeInternal, "No VN_MAD in template for Virtual Network.")
	}
	t.del("NAME")
	v := &vnet{
		object: object{kind: kindNet, id: s.vnets.take(), uid: owner.id, gid: owner.gid, name: name, perms: defaultPerms},
		parent: -1, template: t, asked: t.take("AR"),
	}
	s.defaultNetAttrs(v)
	v.setState(netLockCreate)
	s.vnets.insert(v)
	s.later(s.opts.Delays.Create, func() { s.netCreated(v) })
	return v, nil
}

func (s *Sim) checkNetName(uid int, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if old, ok := s.vnets.named(uid, name); ok {
		return fail(CodeInternal, "NAME is already taken by NET %d.", old.id)
	}
	return nil
}

func (s *Sim) defaultNetAttrs(v *vnet) {
	v.template.setDefault("BRIDGE", "onebr"+itoa(v.id))
	v.template.setDefault("BRIDGE_TYPE", "linux")
	v.template.setDefault("PHYDEV", "")
	v.template.setDefault("SECURITY_GROUPS", "0")
}

// netCreated is the driver's answer to allocate.
func (s *Sim) netCreated(v *vnet) {
	if v.state != netLockCreate {
		return
	}
	v.template.setDefault("VLAN_ID", "")
	v.template.setDefault("OUTER_VLAN_ID", "")
	for i := range v.asked {
		if err := s.addRange(v, &v.asked[i]); err != nil {
			v.template.set("ERROR", time.Now().Format(time.ANSIC)+" : "+err.(*Error).Message) //nolint:errorlint,forcetypeassert // newRange's only type
			v.ars, v.asked = nil, nil
			v.setState(netError)
			return
		}
	}
	v.asked = nil
	v.setState(netReady)
}

func vnDelete(c *call) (any, error) {
	v, err := c.vnetArg(opManage)
	if err != nil {
		return nil, err
	}
	if v.state == netLockCreate || v.state == netLockDelete {
		return nil, fail(CodeAction, "Could not execute %sVirtual Network is in wrong state: %s", c.method.name, v.state)
	}
	if v.used() > 0 {
		return nil, fail(CodeAction, "Cannot delete virtual network. Can not remove a virtual network with leases in use")
	}
	c.removeVNet(v)
	return v.id, nil
}

func (s *Sim) removeVNet(v *vnet) {
	for _, ar := range v.ars {
		s.giveBack(v, ar)
	}
	v.ars = nil
	v.setState(netLockDelete)
	s.later(s.opts.Delays.Delete, func() { delete(s.vnets.byID, v.id) })
}

func vnUpdate(c *call) (any, error) {
	v, err := c.vnetArg(opManage)
	if err != nil {
		return nil, err
	}
	t, err := c.updated(v.template, c.str(1), c.int(2), "VNET_RESTRICTED_ATTR")
	if err != nil {
		return nil, err
	}
	t.del("AR")
	if t.get("VN_MAD") == "" {
		return nil, fail(CodeInternal, "Cannot update template. No VN_MAD in template for Virtual Network.")
	}
	for _, name := range []string{"BRIDGE", "BRIDGE_TYPE", "PHYDEV", "VLAN_ID", "OUTER_VLAN_ID"} {
		t.setDefault(name, v.template.get(name))
	}
	v.template = t
	return v.id, nil
}

// vnRecover ends what a driver left: 0 failure, 1 success, 2 delete.
func vnRecover(c *call) (any, error) {
	v, err := c.vnetArg(opAdmin)
	if err != nil {
		return nil, err
	}
	op := c.int(1)
	names := []string{"failure", "success", "delete"}
	if op < 0 || op >= len(names) {
		return nil, fail(CodeXMLRPCAPI, "Wrong recovery operation code")
	}
	switch {
	case v.state == netLockCreate && op == 1:
		c.netCreated(v)
	case v.state == netLockCreate && op == 0:
		v.setState(netError)
	case v.state == netLockDelete && op == 1, v.state != netReady && op == 2:
		delete(c.vnets.byID, v.id)
	case v.state == netLockDelete && op == 0:
		v.setState(netError)
	default:
		return nil, fail(CodeInternal, "Could not perform 'recover %s' on VN %d, wrong state %s.", names[op], v.id, v.state)
	}
	return v.id, nil
}
