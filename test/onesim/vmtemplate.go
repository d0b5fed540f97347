package onesim

import "time"

// vmTemplate is a template that VMs are instantiated from.
type vmTemplate struct {
	object
	template *template
	regtime  int64
}

func templateMethods() []method {
	return []method{
		{name: "one.template.allocate", params: "s", write: true, run: templateAllocate},
		{name: "one.template.info", params: "i|bb", run: templateInfo},
		{name: "one.templatepool.info", params: "iii", run: templatePoolInfo},
		{name: "one.template.update", params: "is|i", write: true, run: templateUpdate},
		{name: "one.template.clone", params: "is|b", write: true, run: templateClone},
		{name: "one.template.delete", params: "i|b", write: true, run: templateDelete},
		{name: "one.template.instantiate", params: "is|bsb", write: true, run: templateInstantiate},
	}
}

func (c *call) templateArg(op operation) (*vmTemplate, error) {
	t := c.templates.byID[c.int(0)]
	if t == nil {
		return nil, noExists(kindTemplate, c.int(0))
	}
	if op == opUse {
		return t, c.read(&t.object)
	}
	return t, c.authorize(needs(op, &t.object))
}

func (s *Sim) newTemplate(owner *user, name string, t *template) (*vmTemplate, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if old, ok := s.templates.named(owner.id, name); ok {
		return nil, fail(CodeInternal, "NAME is already taken by TEMPLATE %d.", old.id)
	}
	t.del("NAME")
	out := &vmTemplate{
		object:   object{kind: kindTemplate, id: s.templates.take(), uid: owner.id, gid: owner.gid, name: name, perms: defaultPerms},
		template: t, regtime: time.Now().Unix(),
	}
	s.templates.insert(out)
	return out, nil
}

func templateAllocate(c *call) (any, error) {
	t, err := parseTemplate(c.str(0))
	if err != nil {
		return nil, err
	}
	if err := c.authorize(creates(kindTemplate)); err != nil {
		return nil, err
	}
	out, err := c.newTemplate(c.user, t.get("NAME"), t)
	if err != nil {
		return nil, err
	}
	return out.id, nil
}

func (s *Sim) writeTemplate(b *xmlOut, t *vmTemplate, content *template) {
	b.open("VMTEMPLATE")
	s.writeHead(b, &t.object)
	t.writeLock(b)
	t.writePerms(b)
	b.int("REGTIME", int(t.regtime))
	content.writeXML(b, "TEMPLATE")
	b.close("VMTEMPLATE")
}

// templateInfo resolves the networks of the NICs when asked for the extended form.
func templateInfo(c *call) (any, error) {
	t, err := c.templateArg(opUse)
	if err != nil {
		return nil, err
	}
	content := t.template
	if c.bool(1) {
		content = content.clone()
		for _, a := range content.vectors("NIC") {
			if v, err := c.networkOf(c.user.id, a); err == nil {
				a.set("NETWORK_ID", itoa(v.id))
			}
		}
	}
	var b xmlOut
	c.writeTemplate(&b, t, content)
	return b.String(), nil
}

func templatePoolInfo(c *call) (any, error) {
	return poolInfo(c, "VMTEMPLATE_POOL", &c.templates, nil, func(b *xmlOut, t *vmTemplate) {
		c.writeTemplate(b, t, t.template)
	})
}

func templateUpdate(c *call) (any, error) {
	t, err := c.templateArg(opManage)
	if err != nil {
		return nil, err
	}
	content, err := c.updated(t.template, c.str(1), c.int(2), "VM_RESTRICTED_ATTR")
	if err != nil {
		return nil, err
	}
	t.template = content
	return t.id, nil
}

func templateClone(c *call) (any, error) {
	t := c.templates.byID[c.int(0)]
	if t == nil {
		return nil, noExists(kindTemplate, c.int(0))
	}
	if err := c.authorize(creates(kindTemplate), needs(opUse, &t.object)); err != nil {
		return nil, err
	}
	out, err := c.newTemplate(c.user, c.str(1), t.template.clone())
	if err != nil {
		return nil, err
	}
	return out.id, nil
}

func templateDelete(c *call) (any, error) {
	t, err := c.templateArg(opManage)
	if err != nil {
		return nil, err
	}
	delete(c.templates.byID, t.id)
	return t.id, nil
}

func templateInstantiate(c *call) (any, error) {
	t := c.templates.byID[c.int(0)]
	if t == nil {
		return nil, noExists(kindTemplate, c.int(0))
	}
	extra, err := parseTemplate(c.str(3))
	if err != nil {
		return nil, err
	}
	content := t.template.clone()
	content.merge(extra)
	list := append([]need{creates(kindVM), needs(opUse, &t.object)}, c.netNeeds(content)...)
	if !c.admin() && c.allowed(needs(opUse, &t.object)) {
		if name := c.restricted("VM_RESTRICTED_ATTR", extra); name != "" {
			return nil, fail(CodeAuthorization, "User [%d] : VM Template includes a restricted attribute %s.", c.user.id, name)
		}
	}
	if err := c.authorize(list...); err != nil {
		return nil, err
	}
	content.set("TEMPLATE_ID", itoa(t.id))
	name := c.str(1)
	if name == "" {
		name = t.name + "-" + itoa(c.vms.next)
	}
	v, err := c.newVM(c.user, c.groups[0], name, content, c.bool(2), nil)
	if err != nil {
		return nil, withCode(err, CodeAllocate)
	}
	return v.id, nil
}
