package onesim

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"
)

// user is an account. The first of groups is the primary one.
type user struct {
	object
	groups       []int
	passwordHash string
	driver       string
	disabled     bool
	tokens       []loginToken
	template     *template
	quota        quota
}

// loginToken stands for a password until it expires; a zero time means never. egid -1 is a token for all groups.
type loginToken struct {
	token   string
	expires time.Time
	egid    int
}

func hashPassword(password string) string {
	sum := sha256.Sum256([]byte(password))
	return hex.EncodeToString(sum[:])
}

func (s *Sim) newUser(name, password, driver string, groups []int) *user {
	u := &user{
		object: object{kind: kindUser, id: s.users.take(), name: name},
		groups: slices.Clone(groups), passwordHash: hashPassword(password), driver: driver, template: &template{},
	}
	u.gid = groups[0]
	u.template.set("TOKEN_PASSWORD", randomToken())
	s.users.insert(u)
	return u
}

func (s *Sim) userNamed(name string) *user {
	for _, u := range s.users.byID {
		if u.name == name {
			return u
		}
	}
	return nil
}

func (s *Sim) userName(id int) string {
	if u := s.users.byID[id]; u != nil {
		return u.name
	}
	return ""
}

// login fills in who calls. It tells nothing about why it refuses, as oned does.
func (s *Sim) login(c *call, session string) bool {
	name, secret, ok := strings.Cut(session, ":")
	if !ok {
		return false
	}
	u := s.userNamed(name)
	if u == nil || u.disabled {
		return false
	}
	c.user, c.groups = u, u.groups
	if hashPassword(secret) == u.passwordHash {
		return true
	}
	for _, t := range u.tokens {
		if t.token == secret && (t.expires.IsZero() || t.expires.After(c.now)) {
			if t.egid >= 0 {
				c.groups = []int{t.egid}
			}
			return true
		}
	}
	return false
}

func (s *Sim) writeUser(b *xmlOut, u *user) {
	b.open("USER")
	b.int("ID", u.id)
	b.int("GID", u.gid)
	b.ids("GROUPS", u.groups)
	b.text("GNAME", s.groupName(u.gid))
	b.text("NAME", u.name)
	b.cdata("PASSWORD", u.passwordHash)
	b.cdata("AUTH_DRIVER", u.driver)
	enabled := 1
	if u.disabled {
		enabled = 0
	}
	b.int("ENABLED", enabled)
	for _, t := range u.tokens {
		b.open("LOGIN_TOKEN")
		b.text("TOKEN", t.token)
		expires := -1
		if !t.expires.IsZero() {
			expires = int(t.expires.Unix())
		}
		b.int("EXPIRATION_TIME", expires)
		b.int("EGID", t.egid)
		b.close("LOGIN_TOKEN")
	}
	u.template.writeXML(b, "TEMPLATE")
}

func userMethods() []method {
	return []method{
		{name: "one.user.info", params: "i|b", run: userInfo},
		{name: "one.userpool.info", run: userPoolInfo},
		{name: "one.user.allocate", params: "ss|sa", write: true, run: userAllocate},
		{name: "one.user.enable", params: "ib", write: true, run: userEnable},
		{name: "one.user.passwd", params: "is", write: true, run: userPasswd},
		{name: "one.user.update", params: "is|i", write: true, run: userUpdate},
		{name: "one.user.delete", params: "i", write: true, run: userDelete},
		{name: "one.user.quota", params: "is", write: true, run: userQuota},
	}
}

// userArg finds the user of a call; -1 is the caller.
func (c *call) userArg(i int) (*user, error) {
	id := c.int(i)
	if id == -1 {
		return c.user, nil
	}
	u := c.users.byID[id]
	if u == nil {
		return nil, noExists(kindUser, id)
	}
	return u, nil
}

func userInfo(c *call) (any, error) {
	u, err := c.userArg(0)
	if err != nil {
		return nil, err
	}
	if err := c.read(&u.object); err != nil {
		return nil, err
	}
	var b xmlOut
	c.writeUser(&b, u)
	c.writeQuota(&b, &u.quota, func(v *vm) bool { return v.uid == u.id && u.id != 0 })
	writeDefaultQuotas(&b, "DEFAULT_USER_QUOTAS")
	b.close("USER")
	return b.String(), nil
}

func userPoolInfo(c *call) (any, error) {
	var b xmlOut
	b.open("USER_POOL")
	for _, id := range c.users.sorted() {
		if u := c.users.byID[id]; c.may(opUse, &u.object) {
			c.writeUser(&b, u)
			b.close("USER")
		}
	}
	writeDefaultQuotas(&b, "DEFAULT_USER_QUOTAS")
	b.close("USER_POOL")
	return b.String(), nil
}

func userAllocate(c *call) (any, error) {
	groups := []int{}
	list, _ := c.arg(3).([]any)
	for _, item := range list {
		id, _ := item.(int)
		if c.Sim.groups.byID[id] == nil {
			return nil, noExists(kindGroup, id)
		}
		groups = append(groups, id)
	}
	if len(groups) == 0 {
		groups = append(groups, 1)
	}
	if err := c.authorize(creates(kindUser)); err != nil {
		return nil, err
	}
	if err := checkName(c.str(0)); err != nil {
		return nil, err
	}
	if old := c.userNamed(c.str(0)); old != nil {
		return nil, fail(CodeInternal, "NAME is already taken by USER %d.", old.id)
	}
	driver := c.str(2)
	if driver == "" {
		driver = "core"
	}
	return c.newUser(c.str(0), c.str(1), driver, groups).id, nil
}

func userEnable(c *call) (any, error) {
	u, err := c.manageUser(opAdmin)
	if err != nil {
		return nil, err
	}
	if u.id == 0 && !c.bool(1) {
		return nil, fail(CodeInternal, "oneadmin cannot be disabled.")
	}
	u.disabled = !c.bool(1)
	return u.id, nil
}

func userPasswd(c *call) (any, error) {
	u, err := c.manageUser(opManage)
	if err != nil {
		return nil, err
	}
	u.passwordHash, u.tokens = hashPassword(c.str(1)), nil
	return u.id, nil
}

func userUpdate(c *call) (any, error) {
	u, err := c.manageUser(opManage)
	if err != nil {
		return nil, err
	}
	t, err := c.updated(u.template, c.str(1), c.int(2), "USER_RESTRICTED_ATTR")
	if err != nil {
		return nil, err
	}
	u.template = t
	return u.id, nil
}

func userDelete(c *call) (any, error) {
	u, err := c.manageUser(opManage)
	if err != nil {
		return nil, err
	}
	if u.id == 0 {
		return nil, fail(CodeInternal, "oneadmin cannot be deleted.")
	}
	delete(c.users.byID, u.id)
	return u.id, nil
}

func (c *call) manageUser(op operation) (*user, error) {
	u, err := c.userArg(0)
	if err != nil {
		return nil, err
	}
	return u, c.authorize(needs(op, &u.object))
}
