package onesim

// commonMethods are rename, chown, chmod, lock and unlock, alike for most kinds of object.
func commonMethods() []method {
	var out []method
	for _, k := range []struct {
		prefix string
		kind   *kind
		find   func(*Sim, int) *object
	}{
		{"one.vn.", kindNet, func(s *Sim, id int) *object { return baseOf(s.vnetByID(id)) }},
		{"one.vm.", kindVM, func(s *Sim, id int) *object { return baseOf(s.vms.byID[id]) }},
		{"one.vrouter.", kindVRouter, func(s *Sim, id int) *object { return baseOf(s.vrouters.byID[id]) }},
		{"one.template.", kindTemplate, func(s *Sim, id int) *object { return baseOf(s.templates.byID[id]) }},
		{"one.document.", kindDocument, func(s *Sim, id int) *object { return baseOf(s.documents.byID[id]) }},
	} {
		arg := func(c *call, n need) (*object, error) {
			o := k.find(c.Sim, c.int(0))
			if o == nil {
				return nil, noExists(k.kind, c.int(0))
			}
			n.kind, n.obj = k.kind, o
			return o, c.authorize(n)
		}
		out = append(out,
			method{name: k.prefix + "rename", params: "is", write: true, run: func(c *call) (any, error) {
				return renameObject(c, arg)
			}},
			method{name: k.prefix + "chown", params: "iii", write: true, run: func(c *call) (any, error) {
				return chownObject(c, arg)
			}},
			method{name: k.prefix + "chmod", params: "iiiiiiiiii", write: true, run: func(c *call) (any, error) {
				return chmodObject(c, arg)
			}},
			method{name: k.prefix + "lock", params: "ii|b", write: true, run: func(c *call) (any, error) {
				return lockObject(c, arg)
			}},
			method{name: k.prefix + "unlock", params: "i", write: true, run: func(c *call) (any, error) {
				return unlockObject(c, arg)
			}},
		)
	}
	return out
}

// baseOf turns a missing item into a nil object.
func baseOf[T any, P interface {
	*T
	pooled
}](item P) *object {
	if item == nil {
		return nil
	}
	return item.base()
}

type objectArg func(*call, need) (*object, error)

func renameObject(c *call, arg objectArg) (any, error) {
	o, err := arg(c, need{op: opManage})
	if err != nil {
		return nil, err
	}
	if err := checkName(c.str(1)); err != nil {
		return nil, err
	}
	if id, taken := c.nameTaken(o, o.uid, c.str(1)); taken {
		return nil, fail(CodeAction, "%s cannot be renamed to %s because it collides with %s %d.", o.kind.name, c.str(1), o.kind.name, id)
	}
	o.name = c.str(1)
	return o.id, nil
}

// nameTaken tells whether another object of that owner has the name, for the kinds whose names are unique.
func (s *Sim) nameTaken(o *object, uid int, name string) (int, bool) {
	var other *object
	switch o.kind {
	case kindNet:
		v, _ := s.vnets.named(uid, name)
		other = baseOf(v)
	case kindTemplate:
		t, _ := s.templates.named(uid, name)
		other = baseOf(t)
	}
	if other == nil || other == o {
		return 0, false
	}
	return other.id, true
}

// chownObject needs MANAGE to change the group and ADMIN to change the owner; -1 keeps either.
func chownObject(c *call, arg objectArg) (any, error) {
	op := opManage
	if c.int(1) >= 0 {
		op = opAdmin
	}
	o, err := arg(c, need{op: op})
	if err != nil {
		return nil, err
	}
	uid, gid := o.uid, o.gid
	if id := c.int(1); id >= 0 {
		if c.users.byID[id] == nil {
			return nil, noExists(kindUser, id)
		}
		uid = id
	}
	if id := c.int(2); id >= 0 {
		g := c.Sim.groups.byID[id]
		if g == nil {
			return nil, noExists(kindGroup, id)
		}
		if err := c.authorize(needs(opUse, &g.object)); err != nil {
			return nil, err
		}
		gid = id
	}
	if id, taken := c.nameTaken(o, uid, o.name); taken {
		return nil, fail(CodeInternal, "NAME is already taken by %s %d.", o.kind.name, id)
	}
	c.setOwner(o, uid, gid)
	return o.id, nil
}

// setOwner moves the object's quota along.
func (s *Sim) setOwner(o *object, uid, gid int) {
	used := map[int]int{}
	order := []int{}
	count := func(net int) {
		if used[net] == 0 {
			order = append(order, net)
		}
		used[net]++
	}
	switch o.kind {
	case kindVM:
		for _, n := range s.vms.byID[o.id].nics {
			if s.counted(n) {
				count(n.net)
			}
		}
	case kindNet:
		v := s.vnets.byID[o.id]
		for _, ar := range v.ars {
			for range ar.size {
				if v.parent >= 0 {
					count(v.parent)
				}
			}
		}
	}
	for _, net := range order {
		s.countLeases(o.uid, o.gid, net, -used[net])
		s.countLeases(uid, gid, net, used[net])
	}
	o.uid, o.gid = uid, gid
}

// chmodObject takes nine bits, -1 keeps one. The rights of others need ADMIN unless they stay.
func chmodObject(c *call, arg objectArg) (any, error) {
	o, err := arg(c, need{op: opManage})
	if err != nil {
		return nil, err
	}
	perms := o.perms
	for i := range permNames {
		bit := uint16(1) << (8 - i)
		switch v := c.int(1 + i); v {
		case -1:
		case 0:
			perms &^= bit
		case 1:
			perms |= bit
		default:
			return nil, fail(CodeInternal, "New permission values must be -1, 0 or 1")
		}
	}
	o.perms = perms
	return o.id, nil
}

// lockObject: with test an object that is locked is refused whoever asks, the lock's time being the message;
// without, its owner and oneadmin may lock again.
func lockObject(c *call, arg objectArg) (any, error) {
	level := c.int(1)
	o, err := arg(c, need{op: opManage, overLock: true})
	if err != nil {
		return nil, err
	}
	if level < 1 || level > 4 {
		return nil, fail(CodeAction, "Wrong lock level specified")
	}
	if level == 4 { // all
		level = 1
	}
	if o.lock != nil && (c.bool(2) || o.lock.owner != c.user.id && !c.admin()) {
		return nil, fail(CodeAction, "%d", o.lock.time.Unix())
	}
	o.lock = &objectLock{level: level, owner: c.user.id, time: c.now, request: c.request}
	return o.id, nil
}

func unlockObject(c *call, arg objectArg) (any, error) {
	o, err := arg(c, need{op: opManage, overLock: true})
	if err != nil {
		return nil, err
	}
	if o.lock == nil || o.lock.owner != c.user.id && !c.admin() {
		return nil, fail(CodeAction, "Cannot unlock: Lock is owned by another user")
	}
	o.lock = nil
	return o.id, nil
}
