package onesim

// document is a free object with a type.
type document struct {
	object
	typ      int
	template *template
}

func documentMethods() []method {
	return []method{
		{name: "one.document.allocate", params: "si", write: true, run: documentAllocate},
		{name: "one.document.info", params: "i|b", run: documentInfo},
		{name: "one.documentpool.info", params: "iiii", run: documentPoolInfo},
		{name: "one.document.update", params: "is|i", write: true, run: documentUpdate},
		{name: "one.document.clone", params: "is", write: true, run: documentClone},
		{name: "one.document.delete", params: "i", write: true, run: documentDelete},
	}
}

func (c *call) documentArg(op operation) (*document, error) {
	d := c.documents.byID[c.int(0)]
	if d == nil {
		return nil, noExists(kindDocument, c.int(0))
	}
	if op == opUse {
		return d, c.read(&d.object)
	}
	return d, c.authorize(needs(op, &d.object))
}

// newDocument: names are not unique, and made up when missing.
func (c *call) newDocument(name string, typ int, t *template) *document {
	id := c.documents.take()
	if name == "" {
		name = "document-" + itoa(id)
	}
	t.del("NAME")
	d := &document{
		object: object{kind: kindDocument, id: id, uid: c.user.id, gid: c.groups[0], name: name, perms: defaultPerms},
		typ:    typ, template: t,
	}
	c.documents.insert(d)
	return d
}

func documentAllocate(c *call) (any, error) {
	t, err := parseTemplate(c.str(0))
	if err != nil {
		return nil, err
	}
	if err := c.authorize(creates(kindDocument)); err != nil {
		return nil, err
	}
	return c.newDocument(t.get("NAME"), c.int(1), t).id, nil
}

func (s *Sim) writeDocument(b *xmlOut, d *document) {
	b.open("DOCUMENT")
	s.writeHead(b, &d.object)
	b.int("TYPE", d.typ)
	d.writePerms(b)
	d.writeLock(b)
	d.template.writeXML(b, "TEMPLATE")
	b.close("DOCUMENT")
}

func documentInfo(c *call) (any, error) {
	d, err := c.documentArg(opUse)
	if err != nil {
		return nil, err
	}
	var b xmlOut
	c.writeDocument(&b, d)
	return b.String(), nil
}

func documentPoolInfo(c *call) (any, error) {
	typ := c.int(3)
	return poolInfo(c, "DOCUMENT_POOL", &c.documents, func(d *document) bool { return d.typ == typ }, c.writeDocument)
}

func documentUpdate(c *call) (any, error) {
	d, err := c.documentArg(opManage)
	if err != nil {
		return nil, err
	}
	t, err := c.updated(d.template, c.str(1), c.int(2), "")
	if err != nil {
		return nil, err
	}
	d.template = t
	return d.id, nil
}

func documentClone(c *call) (any, error) {
	d := c.documents.byID[c.int(0)]
	if d == nil {
		return nil, noExists(kindDocument, c.int(0))
	}
	if err := c.authorize(creates(kindDocument), needs(opUse, &d.object)); err != nil {
		return nil, err
	}
	return c.newDocument(c.str(1), d.typ, d.template.clone()).id, nil
}

func documentDelete(c *call) (any, error) {
	d, err := c.documentArg(opManage)
	if err != nil {
		return nil, err
	}
	delete(c.documents.byID, d.id)
	return d.id, nil
}
