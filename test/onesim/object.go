package onesim

import (
	"slices"
	"strings"
	"time"
)

// kind is a type of object: its name in error texts and its bit in a rule's resource.
type kind struct {
	name string
	long string
	acl  uint64
}

var (
	kindVM        = &kind{"VM", "virtual machine", 0x1000000000}
	kindHost      = &kind{"HOST", "host", 0x2000000000}
	kindNet       = &kind{"NET", "virtual network", 0x4000000000}
	kindUser      = &kind{"USER", "user", 0x10000000000}
	kindTemplate  = &kind{"TEMPLATE", "virtual machine template", 0x20000000000}
	kindGroup     = &kind{"GROUP", "group", 0x40000000000}
	kindACL       = &kind{"ACL", "ACL", 0x80000000000}
	kindDatastore = &kind{"DATASTORE", "datastore", 0x100000000000}
	kindCluster   = &kind{"CLUSTER", "cluster", 0x200000000000}
	kindDocument  = &kind{"DOCUMENT", "document", 0x400000000000}
	kindZone      = &kind{"ZONE", "zone", 0x800000000000}
	kindVDC       = &kind{"VDC", "VDC", 0x2000000000000}
	kindVRouter   = &kind{"VROUTER", "virtual router", 0x4000000000000}
)

// resourceNames are all resources of oned's rules in the order of their bits.
var resourceNames = []struct {
	bit  uint64
	name string
}{
	{0x1000000000, "VM"}, {0x2000000000, "HOST"}, {0x4000000000, "NET"}, {0x8000000000, "IMAGE"},
	{0x10000000000, "USER"}, {0x20000000000, "TEMPLATE"}, {0x40000000000, "GROUP"}, {0x80000000000, "ACL"},
	{0x100000000000, "DATASTORE"}, {0x200000000000, "CLUSTER"}, {0x400000000000, "DOCUMENT"}, {0x800000000000, "ZONE"},
	{0x1000000000000, "SECGROUP"}, {0x2000000000000, "VDC"}, {0x4000000000000, "VROUTER"},
	{0x8000000000000, "MARKETPLACE"}, {0x10000000000000, "MARKETPLACEAPP"}, {0x20000000000000, "VMGROUP"},
	{0x40000000000000, "VNTEMPLATE"}, {0x80000000000000, "HOOK"}, {0x100000000000000, "BACKUPJOB"},
}

// Permission bits, owner, group, other by use, manage, admin: as in chmod.
const defaultPerms = 0o600

// object is what all pools share.
type object struct {
	kind     *kind
	id       int
	uid, gid int
	name     string
	perms    uint16
	lock     *objectLock
}

func (o *object) base() *object { return o }

// objectLock is set by one.*.lock. Level 1 locks USE, MANAGE and ADMIN, 2 the latter two, 3 ADMIN.
type objectLock struct {
	level   int
	owner   int
	time    time.Time
	request int
}

var permNames = [9]string{"OWNER_U", "OWNER_M", "OWNER_A", "GROUP_U", "GROUP_M", "GROUP_A", "OTHER_U", "OTHER_M", "OTHER_A"}

func (o *object) writePerms(b *xmlOut) {
	b.open("PERMISSIONS")
	for i, name := range permNames {
		b.int(name, int(o.perms>>(8-i)&1))
	}
	b.close("PERMISSIONS")
}

func (o *object) writeLock(b *xmlOut) {
	if o.lock == nil {
		return
	}
	b.open("LOCK")
	b.int("LOCKED", o.lock.level)
	b.int("OWNER", o.lock.owner)
	b.int("TIME", int(o.lock.time.Unix()))
	b.int("REQ_ID", o.lock.request)
	b.close("LOCK")
}

// writeHead writes ID to NAME; the names of owner and group are looked up, since users may be renamed.
func (s *Sim) writeHead(b *xmlOut, o *object) {
	b.int("ID", o.id)
	b.int("UID", o.uid)
	b.int("GID", o.gid)
	b.text("UNAME", s.userName(o.uid))
	b.text("GNAME", s.groupName(o.gid))
	b.text("NAME", o.name)
}

// pooled is an object in a pool.
type pooled interface{ base() *object }

// pool keeps objects by id. Ids are never used twice.
type pool[T pooled] struct {
	next int
	byID map[int]T
}

func (p *pool[T]) insert(item T) {
	if p.byID == nil {
		p.byID = map[int]T{}
	}
	id := item.base().id
	p.byID[id] = item
	p.next = max(p.next, id+1)
}

// take reserves the next id.
func (p *pool[T]) take() int {
	p.next++
	return p.next - 1
}

// sorted lists the ids, ascending.
func (p *pool[T]) sorted() []int {
	ids := make([]int, 0, len(p.byID))
	for id := range p.byID {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// named finds an object by its owner and name.
func (p *pool[T]) named(uid int, name string) (T, bool) {
	for _, id := range p.sorted() {
		if o := p.byID[id].base(); o.uid == uid && o.name == name {
			return p.byID[id], true
		}
	}
	var none T
	return none, false
}

const (
	maxName          = 128
	forbiddenInNames = "&<>\r\n"
)

func checkName(name string) *Error {
	switch {
	case name == "":
		return fail(CodeInternal, "Invalid NAME, it cannot be empty")
	case len(name) > maxName:
		return fail(CodeInternal, "Invalid NAME, it is too long, max length is %d", maxName)
	case strings.ContainsAny(name, forbiddenInNames):
		return fail(CodeInternal, "Invalid NAME, it contains invalid characters")
	}
	return nil
}
