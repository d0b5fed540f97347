package one

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// Access is how a client stands with its front-end: what an operator should know
// before, or as soon as, calls fail.
type Access struct {
	// Credentials: why the credentials on disk are not the ones that are used; nil
	// if they are. Those before them are used as long as OpenNebula accepts them.
	Credentials error
	// CAFile: why the CA file on disk is not the one that is used; nil if it is.
	CAFile error
	// Refused is the last refusal of all credentials there are; nil since
	// OpenNebula has accepted some.
	Refused error
}

// access remembers the last refusal.
type access struct {
	mu   sync.Mutex // guards last
	last error
}

func (a *access) accepted() { a.set(nil) }

func (a *access) refused(err error) { a.set(err) }

func (a *access) set(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = err
	authenticated.Set(gauge(err == nil))
}

func gauge(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Access looks at the files, and tells what the last calls have met. It makes none.
func (c *Client) Access() Access {
	a := Access{Credentials: c.session.problem(), CAFile: c.authority.reload()}
	c.access.mu.Lock()
	a.Refused = c.access.last
	c.access.mu.Unlock()
	unusedFiles.WithLabelValues("credentials").Set(gauge(a.Credentials != nil))
	unusedFiles.WithLabelValues("ca").Set(gauge(a.CAFile != nil))
	return a
}

// Token is what a client knows about its login token.
type Token struct {
	// Digest tells tokens apart without showing them; it is of no use otherwise.
	Digest string
	// Expires is when OpenNebula will refuse the token. Zero: never, or the
	// credentials are a password.
	Expires time.Time
}

// Token asks OpenNebula for our own user, who may always read itself, and finds the
// login token that is in use.
func (c *Client) Token(ctx context.Context) (Token, error) {
	const method = "one.user.info"
	body, err := c.callText(ctx, method, -1, false)
	if err != nil {
		return Token{}, fmt.Errorf("expiry of the login token: %w", err)
	}
	session, err := c.session.current()
	if err != nil {
		return Token{}, fmt.Errorf("expiry of the login token: %w", err)
	}
	_, secret, _ := strings.Cut(session, ":")
	expires, err := parseTokenExpiry([]byte(body), secret)
	if err != nil {
		return Token{}, fmt.Errorf("expiry of the login token: %w", c.malformed(method, err))
	}
	seconds := float64(0)
	if !expires.IsZero() {
		seconds = float64(expires.Unix())
	}
	tokenExpiry.Set(seconds)
	return Token{Digest: digest(session), Expires: expires}, nil
}

// Credentials is the digest of those that the next call will use; see Token.
func (c *Client) Credentials() string {
	session, err := c.session.current()
	if err != nil {
		return ""
	}
	return digest(session)
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:8])
}

// parseTokenExpiry reads the document of one.user.info. Zero: never, or no token.
func parseTokenExpiry(body []byte, secret string) (time.Time, error) {
	var x struct {
		XMLName xml.Name
		Tokens  []struct {
			Token   string `xml:"TOKEN"`
			Expires *int64 `xml:"EXPIRATION_TIME"`
		} `xml:"LOGIN_TOKEN"`
	}
	if err := xml.Unmarshal(body, &x); err != nil {
		return time.Time{}, err
	}
	if x.XMLName.Local != "USER" {
		return time.Time{}, fmt.Errorf("no user but a document <%s>", x.XMLName.Local)
	}
	for _, t := range x.Tokens {
		switch {
		case strings.TrimSpace(t.Token) != secret:
		case t.Expires == nil:
			return time.Time{}, errors.New("a login token has no EXPIRATION_TIME")
		case *t.Expires > 0:
			return time.Unix(*t.Expires, 0), nil
		}
	}
	return time.Time{}, nil
}
