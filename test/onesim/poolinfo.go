package onesim

import "slices"

// Filters of the pool calls; a filter of 0 or more is the id of an owner.
const (
	filterGroup    = -4
	filterMine     = -3
	filterAll      = -2
	filterMineAndG = -1
)

// poolInfo writes the objects that the caller's filter, start and end (parameters 0 to 2) select, newest first.
// want narrows them further.
func poolInfo[T pooled](c *call, name string, p *pool[T], want func(T) bool, write func(*xmlOut, T)) (any, error) {
	flag := c.int(0)
	if flag < filterGroup {
		return nil, fail(CodeXMLRPCAPI, "Incorrect filter_flag")
	}
	ids := p.sorted()
	slices.Reverse(ids)
	ids = slices.DeleteFunc(ids, func(id int) bool {
		item := p.byID[id]
		return !c.selected(item.base(), flag) || want != nil && !want(item)
	})
	var b xmlOut
	b.open(name)
	for _, id := range page(ids, c.int(1), c.int(2)) {
		write(&b, p.byID[id])
	}
	b.close(name)
	return b.String(), nil
}

func (c *call) selected(o *object, flag int) bool {
	switch flag {
	case filterMine:
		return o.uid == c.user.id
	case filterMineAndG:
		return o.uid == c.user.id || slices.Contains(c.groups, o.gid) && (c.admin() || o.perms&0o040 != 0)
	case filterGroup:
		return o.gid == c.groups[0] && (c.admin() || o.uid == c.user.id || o.perms&0o040 != 0)
	case filterAll:
		return c.may(opUse, o)
	}
	return o.uid == flag && c.may(opUse, o)
}

// page cuts a list: an end below -1 makes start an offset and -end a length, else both are bounds of ids.
func page(ids []int, start, end int) []int {
	if end < -1 {
		start = min(max(start, 0), len(ids))
		return ids[start:min(len(ids), start-end)]
	}
	if start < 0 {
		return ids
	}
	return slices.DeleteFunc(ids, func(id int) bool { return id < start || end >= 0 && id > end })
}
