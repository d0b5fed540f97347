package onesim

import (
	"slices"
	"strings"
)

// vrouter is a virtual router: NICs that its VMs share, and the leases of their floating addresses.
type vrouter struct {
	object
	vms      []int
	template *template
	nics     []*routerNIC
}

// routerNIC is a NIC of the router; leased tells that it has a floating address.
type routerNIC struct {
	id          int
	net         int
	leased      bool
	arID, index int
	attrs       attribute
}

func routerOwner(id int) uint64 { return ownerVRouter | uint64(id) } //nolint:gosec // an id

func vrouterMethods() []method {
	return []method{
		{name: "one.vrouter.allocate", params: "s", write: true, run: vrouterAllocate},
		{name: "one.vrouter.instantiate", params: "iiis|bs", write: true, run: vrouterInstantiate},
		{name: "one.vrouter.info", params: "i|b", run: vrouterInfo},
		{name: "one.vrouterpool.info", params: "iii", run: vrouterPoolInfo},
		{name: "one.vrouter.update", params: "is|i", write: true, run: vrouterUpdate},
		{name: "one.vrouter.delete", params: "i", write: true, run: vrouterDelete},
		{name: "one.vrouter.attachnic", params: "is", write: true, run: vrouterAttachNIC},
		{name: "one.vrouter.detachnic", params: "ii", write: true, run: vrouterDetachNIC},
	}
}

func (c *call) vrouterArg(op operation, more ...need) (*vrouter, error) {
	r := c.vrouters.byID[c.int(0)]
	if r == nil {
		return nil, noExists(kindVRouter, c.int(0))
	}
	if op == opUse {
		return r, c.read(&r.object)
	}
	return r, c.authorize(append([]need{needs(op, &r.object)}, more...)...)
}

func (s *Sim) writeVRouter(b *xmlOut, r *vrouter) {
	b.open("VROUTER")
	s.writeHead(b, &r.object)
	r.writePerms(b)
	r.writeLock(b)
	b.ids("VMS", r.vms)
	t := r.template.clone()
	for _, n := range r.nics {
		t.add(n.attrs.clone())
	}
	t.writeXML(b, "TEMPLATE")
	b.close("VROUTER")
}

func vrouterInfo(c *call) (any, error) {
	r, err := c.vrouterArg(opUse)
	if err != nil {
		return nil, err
	}
	var b xmlOut
	c.writeVRouter(&b, r)
	return b.String(), nil
}

func vrouterPoolInfo(c *call) (any, error) {
	return poolInfo(c, "VROUTER_POOL", &c.vrouters, nil, c.writeVRouter)
}

func vrouterAllocate(c *call) (any, error) {
	t, err := parseTemplate(c.str(0))
	if err != nil {
		return nil, err
	}
	if err := c.authorize(append([]need{creates(kindVRouter)}, c.netNeeds(t)...)...); err != nil {
		return nil, err
	}
	r, err := c.newVRouter(c.user, t)
	if err != nil {
		return nil, withCode(err, CodeInternal)
	}
	return r.id, nil
}

// newVRouter makes a router with its floating leases. When one cannot be had the others are given back, but the
// failed one stays in the owner's quota: oned's defect.
func (s *Sim) newVRouter(owner *user, t *template) (*vrouter, error) {
	name := t.get("NAME")
	if err := checkName(name); err != nil {
		return nil, err
	}
	t.del("NAME")
	nics := t.take("NIC")
	r := &vrouter{
		object:   object{kind: kindVRouter, id: s.vrouters.take(), uid: owner.id, gid: owner.gid, name: name, perms: defaultPerms},
		template: t,
	}
	for i := range nics {
		if _, err := s.addRouterNIC(r, &nics[i], true); err != nil {
			for len(r.nics) > 0 {
				s.removeRouterNIC(r, r.nics[0])
			}
			return nil, err
		}
	}
	s.vrouters.insert(r)
	return r, nil
}

func (s *Sim) addRouterNIC(r *vrouter, a *attribute, leaks bool) (*routerNIC, error) {
	net, err := s.networkOf(r.uid, a)
	if err != nil {
		return nil, err
	}
	n := &routerNIC{net: net.id, attrs: a.clone()}
	for _, other := range r.nics {
		n.id = max(n.id, other.id+1)
	}
	n.attrs.name = "NIC"
	if strings.EqualFold(a.get("FLOATING_IP"), "YES") {
		if err := s.leaseFloating(r, n, net, a, leaks); err != nil {
			return nil, err
		}
	}
	n.attrs.set("NETWORK", net.name)
	n.attrs.set("NETWORK_ID", itoa(net.id))
	n.attrs.set("NIC_ID", itoa(n.id))
	r.nics = append(r.nics, n)
	if !slices.Contains(net.vrouters, r.id) {
		net.vrouters = append(net.vrouters, r.id)
		slices.Sort(net.vrouters)
	}
	return n, nil
}

// leaseFloating gives the router the address that the NIC asks for; it shows as VROUTER_IP and so on.
func (s *Sim) leaseFloating(r *vrouter, n *routerNIC, net *vnet, a *attribute, leaks bool) error {
	if net.parent < 0 {
		if err := s.useLeases(r.uid, r.gid, net.id, 1); err != nil {
			return err
		}
	}
	ar, index, err := takeLease(net, a, routerOwner(r.id))
	if err != nil {
		if net.parent < 0 && !leaks {
			s.countLeases(r.uid, r.gid, net.id, -1)
		}
		return err
	}
	n.leased, n.arID, n.index = true, ar.id, index
	for _, key := range []string{"IP", "IP6", "MAC"} {
		n.attrs.del(key)
	}
	n.attrs.set("AR_ID", itoa(ar.id))
	for _, p := range ar.address(index) {
		n.attrs.set("VROUTER_"+p.key, p.value)
	}
	return nil
}

func (s *Sim) removeRouterNIC(r *vrouter, n *routerNIC) {
	r.nics = slices.DeleteFunc(r.nics, func(o *routerNIC) bool { return o == n })
	net := s.vnets.byID[n.net]
	if net == nil {
		return
	}
	net.vrouters = slices.DeleteFunc(net.vrouters, func(id int) bool { return id == r.id })
	if !n.leased {
		return
	}
	if net.parent < 0 {
		s.countLeases(r.uid, r.gid, net.id, -1)
	}
	if ar := net.ar(n.arID); ar != nil {
		ar.leases.remove(n.index, routerOwner(r.id))
	}
}

func vrouterUpdate(c *call) (any, error) {
	r, err := c.vrouterArg(opManage)
	if err != nil {
		return nil, err
	}
	t, err := c.updated(r.template, c.str(1), c.int(2), "")
	if err != nil {
		return nil, err
	}
	t.del("NIC")
	r.template = t
	return r.id, nil
}

func vrouterDelete(c *call) (any, error) {
	r, err := c.vrouterArg(opManage)
	if err != nil {
		return nil, err
	}
	for _, id := range slices.Clone(r.vms) {
		c.terminate(c.vms.byID[id], actionTerminateH)
	}
	for len(r.nics) > 0 {
		c.removeRouterNIC(r, r.nics[0])
	}
	delete(c.vrouters.byID, r.id)
	return r.id, nil
}

// vrouterAttachNIC gives the router the NIC, then its VMs. A VM that cannot take it fails the call, but the router
// keeps NIC and lease: oned's defect.
func vrouterAttachNIC(c *call) (any, error) {
	t, err := parseTemplate(c.str(1))
	if err != nil {
		return nil, err
	}
	r, err := c.vrouterArg(opManage, c.netNeeds(t)...)
	if err != nil {
		return nil, err
	}
	if err := c.restrictedNIC(t); err != nil {
		return nil, err
	}
	list := t.vectors("NIC")
	if len(list) == 0 {
		return nil, fail(CodeAction, "Wrong format or missing NIC attribute")
	}
	n, err := c.addRouterNIC(r, list[0], false)
	if err != nil {
		return nil, err
	}
	for _, id := range r.vms {
		if err := c.attach(c.vms.byID[id], n.forVM(), false); err != nil {
			return nil, err
		}
	}
	return r.id, nil
}

// forVM is the NIC that a VM of the router gets; its own address is taken afresh.
func (n *routerNIC) forVM() *attribute {
	a := n.attrs.clone()
	if n.leased {
		for _, key := range []string{"IP", "IP6", "MAC"} {
			a.del(key)
		}
	}
	return &a
}

// vrouterDetachNIC takes the NIC from the router, then from its VMs; a VM that has no such NIC fails the call.
func vrouterDetachNIC(c *call) (any, error) {
	r, err := c.vrouterArg(opManage)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(r.nics, func(n *routerNIC) bool { return n.id == c.int(1) })
	if i < 0 {
		return nil, fail(CodeAction, "NIC with NIC_ID %d does not exist.", c.int(1))
	}
	id := r.nics[i].id
	c.removeRouterNIC(r, r.nics[i])
	for _, vmID := range r.vms {
		if err := c.detach(c.vms.byID[vmID], id); err != nil {
			return nil, err
		}
	}
	return r.id, nil
}

func vrouterInstantiate(c *call) (any, error) {
	r := c.vrouters.byID[c.int(0)]
	if r == nil {
		return nil, noExists(kindVRouter, c.int(0))
	}
	from := c.templates.byID[c.int(2)]
	if from == nil {
		return nil, noExists(kindTemplate, c.int(2))
	}
	if !strings.EqualFold(from.template.get("VROUTER"), "YES") {
		return nil, fail(CodeAction, "Only virtual router templates are allowed")
	}
	if err := c.authorize(needs(opManage, &r.object), needs(opUse, &from.object)); err != nil {
		return nil, err
	}
	extra, err := parseTemplate(c.str(5))
	if err != nil {
		return nil, err
	}
	for i := range c.int(1) {
		name := strings.ReplaceAll(c.str(3), "%i", itoa(i))
		if _, err := c.Sim.instantiateRouter(c.user, r, from, name, c.bool(4), extra); err != nil {
			return nil, withCode(err, CodeAllocate)
		}
	}
	r.template.set("TEMPLATE_ID", itoa(from.id))
	return r.id, nil
}

func (s *Sim) instantiateRouter(owner *user, r *vrouter, from *vmTemplate, name string, hold bool, extra *template) (*vm, error) {
	t := from.template.clone()
	t.merge(extra)
	t.set("TEMPLATE_ID", itoa(from.id))
	t.set("VROUTER_ID", itoa(r.id))
	t.set("VROUTER_KEEPALIVED_ID", itoa(r.id%255+1))
	t.set("SUBMIT_ON_HOLD", "YES")
	t.del("NIC")
	for _, n := range r.nics {
		t.add(*n.forVM())
	}
	v, err := s.newVM(owner, owner.gid, name, t, hold, r)
	if err != nil {
		return nil, err
	}
	r.vms = append(r.vms, v.id)
	return v, nil
}
