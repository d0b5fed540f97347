package onesim

import (
	"slices"
	"time"
)

// maxTokens is oned's bound on the login tokens of one user.
const maxTokens = 10

func tokenMethods() []method {
	return []method{{name: "one.user.login", params: "ssi|i", write: true, run: userLogin}}
}

// userLogin makes, renews or revokes a login token: name, token ("" for a random one), seconds (-1 for ever, 0 to
// revoke), effective group (-1 for all).
func userLogin(c *call) (any, error) {
	u := c.userNamed(c.str(0))
	if u == nil {
		return nil, &Error{Code: CodeNoExists, Message: "Error getting user [" + c.str(0) + "].", ObjectID: -1}
	}
	if u.id != c.user.id {
		if err := c.authorize(needs(opManage, &u.object)); err != nil {
			return nil, err
		}
	}
	token, seconds, egid := c.str(1), c.int(2), c.intOr(3, -1)
	if seconds == 0 {
		return revoke(u, token)
	}
	if egid >= 0 && !slices.Contains(u.groups, egid) {
		return nil, fail(CodeXMLRPCAPI, "EGID is not in user group list")
	}
	if egid == -1 && !slices.Contains(c.groups, u.gid) {
		return nil, fail(CodeXMLRPCAPI, "Cannot create a full token with a specific group token")
	}
	u.tokens = slices.DeleteFunc(u.tokens, func(t loginToken) bool {
		return !t.expires.IsZero() && !t.expires.After(c.now) || t.token == token
	})
	if len(u.tokens) >= maxTokens {
		return nil, fail(CodeInternal, "Max number of tokens limit reached.")
	}
	t := loginToken{token: token, egid: egid}
	if token == "" {
		t.token = randomToken()
	}
	if seconds > 0 {
		t.expires = c.now.Add(time.Duration(seconds) * time.Second)
	}
	u.tokens = append(u.tokens, t)
	return t.token, nil
}

func revoke(u *user, token string) (any, error) {
	if token == "" {
		u.tokens = nil
		return "", nil
	}
	before := len(u.tokens)
	u.tokens = slices.DeleteFunc(u.tokens, func(t loginToken) bool { return t.token == token })
	if len(u.tokens) == before {
		return nil, fail(CodeInternal, "Could not find token %s", token)
	}
	return token, nil
}
