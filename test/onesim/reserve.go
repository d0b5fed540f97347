package onesim

import (
	"slices"
	"strconv"
)

func reserveMethods() []method {
	return []method{
		{name: "one.vn.reserve", params: "is", write: true, run: vnReserve},
		{name: "one.vn.free_ar", params: "ii", write: true, run: vnFreeAR},
	}
}

// reservation is what a reserve template asks for.
type reservation struct {
	size    int
	name    string
	into    int // NETWORK_ID, -1 for a new network
	arID    int // -1: any
	key, at string
}

func parseReservation(t *template) (reservation, error) {
	r := reservation{into: -1, arID: -1, name: t.get("NAME")}
	r.size, _ = strconv.Atoi(t.get("SIZE"))
	if r.size <= 0 {
		return r, fail(CodeAction, "Reservation SIZE must be a greater than 0")
	}
	for _, f := range []struct {
		name string
		to   *int
	}{{"NETWORK_ID", &r.into}, {"AR_ID", &r.arID}} {
		if text := t.get(f.name); text != "" {
			id, err := strconv.Atoi(text)
			if err != nil || id < 0 {
				return r, fail(CodeAction, "%s is not a number", f.name)
			}
			*f.to = id
		}
	}
	for _, key := range []string{"MAC", "IP6", "IP"} {
		if at := t.get(key); at != "" {
			r.key, r.at = key, at
		}
	}
	return r, nil
}

// vnReserve makes a reservation of a network, or adds a range to one. Name and size are all that counts in the
// template beside the place; oned ignores the rest.
func vnReserve(c *call) (any, error) {
	t, err := parseTemplate(c.str(1))
	if err != nil {
		return nil, err
	}
	r, err := parseReservation(t)
	if err != nil {
		return nil, err
	}
	parent, child, err := c.reservationNets(r)
	if err != nil {
		return nil, err
	}
	if r.key != "" && r.arID < 0 {
		return nil, fail(CodeAction, "AR_ID must be specified for IP/MAC based reservations")
	}
	if child == nil {
		return c.reserveNew(parent, r)
	}
	if err := c.reserveInto(parent, child, r); err != nil {
		return nil, err
	}
	return child.id, nil
}

// reservationNets finds and authorizes the parent and, when adding, the reservation.
func (c *call) reservationNets(r reservation) (parent, child *vnet, err error) {
	id := c.int(0)
	if r.into == id {
		return nil, nil, fail(CodeAction, "Cannot add a reservation from the same network")
	}
	if parent = c.vnetByID(id); parent == nil {
		return nil, nil, noExists(kindNet, -1)
	}
	if parent.parent >= 0 {
		return nil, nil, fail(CodeAction, "Cannot reserve addresses from a reserved VNET")
	}
	list := []need{needs(opUse, &parent.object)}
	if r.into >= 0 {
		if child = c.vnetByID(r.into); child == nil {
			return nil, nil, noExists(kindNet, r.into)
		}
		if child.parent < 0 {
			return nil, nil, fail(CodeAction, "Cannot add reservations to a non-reservation VNET")
		}
		if child.parent != id {
			return nil, nil, fail(CodeAction, "New reservations for virtual network %d have to be from network %d", child.id, child.parent)
		}
		list = append(list, needs(opManage, &child.object))
	} else if r.name == "" {
		return nil, nil, fail(CodeAction, "NAME for reservation has to be set")
	}
	return parent, child, c.authorize(list...)
}

// reserveNew leaves no network behind when there is no room, but its id is spent, as with oned.
func (c *call) reserveNew(parent *vnet, r reservation) (any, error) {
	if err := c.checkNetName(c.user.id, r.name); err != nil {
		return nil, err
	}
	child := &vnet{
		object:   object{kind: kindNet, id: c.vnets.take(), uid: c.user.id, gid: c.groups[0], name: r.name, perms: defaultPerms},
		parent:   parent.id,
		template: parent.template.clone(),
	}
	if err := c.reserveInto(parent, child, r); err != nil {
		return nil, err
	}
	child.setState(netLockCreate)
	c.vnets.insert(child)
	c.later(c.opts.Delays.Create, func() { c.Sim.netCreated(child) })
	return child.id, nil
}

func (c *call) reserveInto(parent, child *vnet, r reservation) error {
	if err := c.useLeases(child.uid, child.gid, parent.id, r.size); err != nil {
		return err
	}
	from, first, err := pickReservation(parent, r)
	if err != nil {
		c.countLeases(child.uid, child.gid, parent.id, -r.size)
		return err
	}
	owner := ownerNet | uint64(child.id)
	for i := range r.size {
		from.leases.add(first+i, owner)
	}
	child.ars = append(child.ars, from.slice(first, r.size, child.nextAR))
	child.nextAR++
	return nil
}

// pickReservation finds the addresses. By address it looks at the first one only for being in the range: a size
// that runs past the end is accepted, which is oned's defect, and may break the parent.
func pickReservation(parent *vnet, r reservation) (*addrRange, int, error) {
	if r.arID < 0 {
		for _, ar := range parent.ars {
			if first, ok := ar.pickBlock(r.size); ok {
				return ar, first, nil
			}
		}
		return nil, 0, fail(CodeAction, "Not enough free addresses in an address range")
	}
	if ar := parent.ar(r.arID); ar != nil {
		if r.key == "" {
			if first, ok := ar.pickBlock(r.size); ok {
				return ar, first, nil
			}
		} else if first, ok := ar.index(r.key, r.at); ok && ar.free(first, r.size) {
			return ar, first, nil
		}
	}
	return nil, 0, fail(CodeAction, "Not enough free addresses in address range %d, or it does not exist", r.arID)
}

// giveBack frees in the parent what a range of a reservation took. Nothing happens for an orphan, whose quota stays
// used: oned's defect.
func (s *Sim) giveBack(v *vnet, ar *addrRange) {
	parent := s.vnetByID(v.parent)
	if v.parent < 0 || parent == nil {
		return
	}
	from := parent.ar(ar.parentAR)
	if from == nil {
		return
	}
	first, ok := from.index(ar.firstAddress())
	if !ok {
		return
	}
	freed := 0
	for i := range ar.size {
		if from.leases.remove(first+i, ownerNet|uint64(v.id)) { //nolint:gosec // an id
			freed++
		}
	}
	s.countLeases(v.uid, v.gid, parent.id, -freed)
}

// firstAddress names the range's first address by something that the parent's range can find.
func (r *addrRange) firstAddress() (key, value string) {
	kind := rangeTypes[r.typ]
	switch {
	case kind.v4:
		return "IP", r.ip.String()
	case kind.static6:
		return "IP6", r.ip6.String()
	}
	return "MAC", macString(r.mac)
}

func vnFreeAR(c *call) (any, error) {
	v, err := c.vnetArg(opManage)
	if err != nil {
		return nil, err
	}
	if v.parent < 0 {
		return nil, fail(CodeInternal, "Virtual Network is not a reservation")
	}
	return v.id, c.dropRange(v, c.int(1), false)
}

// dropRange removes a range of a network; with force its leases go with it.
func (s *Sim) dropRange(v *vnet, id int, force bool) error {
	i := slices.IndexFunc(v.ars, func(ar *addrRange) bool { return ar.id == id })
	if i < 0 {
		return fail(CodeInternal, "Address Range does not exist")
	}
	if v.ars[i].leases.used > 0 && !force {
		return fail(CodeInternal, "Address Range has leases in use")
	}
	s.giveBack(v, v.ars[i])
	v.ars = slices.Delete(v.ars, i, i+1)
	return nil
}
