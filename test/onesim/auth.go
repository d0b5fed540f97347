package onesim

import (
	"fmt"
	"slices"
	"strings"
)

// operation is a right that a call needs on an object.
type operation int

const (
	opUse operation = iota
	opManage
	opAdmin
	opCreate
)

var (
	opNames  = [...]string{"USE", "MANAGE", "ADMIN", "CREATE"}
	opRights = [...]uint64{1, 2, 4, 8}
)

// need is one right that a call asks for. Without an object it is a right on the kind (CREATE, MANAGE ACL).
// Reading and unlocking pass over a lock.
type need struct {
	op       operation
	kind     *kind
	obj      *object
	overLock bool
}

func needs(op operation, o *object) need { return need{op: op, kind: o.kind, obj: o} }

func creates(k *kind) need { return need{op: opCreate, kind: k} }

// authorize checks all rights and names all that are missing, as oned does.
func (c *call) authorize(list ...need) error {
	var missing []string
	for _, n := range list {
		if text := c.refusal(n); text != "" {
			missing = append(missing, text)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fail(CodeAuthorization, "User [%d] : %s.", c.user.id, strings.Join(missing, "; "))
}

func (c *call) refusal(n need) string {
	locked := n.obj != nil && !n.overLock && lockCovers(n.obj.lock, n.op)
	if c.admin() {
		if locked {
			return fmt.Sprintf("%s is locked. [%d]", n.kind.name, n.obj.id)
		}
		return ""
	}
	if !locked && c.allowed(n) {
		return ""
	}
	if n.obj == nil {
		return fmt.Sprintf("Not authorized to perform %s %s", opNames[n.op], n.kind.name)
	}
	return fmt.Sprintf("Not authorized to perform %s %s [%d]", opNames[n.op], n.kind.name, n.obj.id)
}

func lockCovers(l *objectLock, op operation) bool {
	if l == nil {
		return false
	}
	switch l.level {
	case 1:
		return op == opUse || op == opManage || op == opAdmin
	case 2:
		return op == opManage || op == opAdmin
	default:
		return op == opAdmin
	}
}

// allowed looks at the object's permissions, then at the rules. Locks are looked at by the caller.
func (c *call) allowed(n need) bool {
	if c.admin() {
		return true
	}
	if n.obj != nil && n.op != opCreate && c.permitted(n.obj, n.op) {
		return true
	}
	return c.ruled(n)
}

func (c *call) permitted(o *object, op operation) bool {
	if o.kind == kindUser {
		return o.id == c.user.id && op != opAdmin
	}
	if o.kind == kindGroup {
		return op == opUse && slices.Contains(c.groups, o.id)
	}
	bit := uint16(4) >> op
	if o.uid == c.user.id && o.perms>>6&bit != 0 {
		return true
	}
	if slices.Contains(c.groups, o.gid) && o.perms>>3&bit != 0 {
		return true
	}
	return o.perms&bit != 0
}

// may is allowed for reading: USE, whatever the lock.
func (c *call) may(op operation, o *object) bool {
	return c.allowed(need{op: op, kind: o.kind, obj: o, overLock: true})
}

// read authorizes USE without regard to locks.
func (c *call) read(o *object) error {
	return c.authorize(need{op: opUse, kind: o.kind, obj: o, overLock: true})
}
