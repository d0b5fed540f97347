package contract

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/onelb/onelb/ipam"
	"github.com/onelb/onelb/provider/one"
	"github.com/onelb/onelb/test/onesim"
)

func TestVersion(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	version, err := w.client("").Check(t.Context())
	if err != nil || !strings.Contains(version, ".") {
		t.Fatalf("%q, %v", version, err)
	}
	t.Logf("OpenNebula %s", version)
}

func TestWrongCredentials(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	login, _, _ := strings.Cut(w.admin.session, ":")
	for _, s := range []session{session(login + ":certainly-wrong"), session(w.prefix + "-nobody:x")} {
		c, err := one.New(one.Options{Endpoint: w.endpoint, Credentials: s})
		if err != nil {
			t.Fatal(err)
		}
		for name, call := range map[string]func() error{
			"Check":   func() error { _, err := c.Check(t.Context()); return err },
			"Get":     func() error { _, err := c.Get(t.Context(), 0); return err },
			"VM":      func() error { _, err := c.VM(t.Context(), 0); return err },
			"VMs":     func() error { _, err := c.VMs(t.Context()); return err },
			"Release": func() error { return c.Release(t.Context(), 0, ip("10.255.0.1")) },
		} {
			err := call()
			if !errors.Is(err, ipam.ErrUnauthenticated) || strings.Contains(err.Error(), "certainly-wrong") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestNotAnOpenNebula(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(rw, "<html>welcome</html>")
	}))
	defer s.Close()
	c, err := one.New(one.Options{Endpoint: s.URL, Credentials: session("a:b")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Check(context.Background()); !errors.Is(err, ipam.ErrUnavailable) || !strings.Contains(err.Error(), "no OpenNebula XML-RPC endpoint") {
		t.Errorf("got %v", err)
	}
}

func TestZoneClusterHost(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	c := w.client("")
	if zone, err := c.ZoneName(t.Context()); err != nil || zone == "" {
		t.Errorf("%q, %v", zone, err)
	}
	if _, err := c.Cluster(t.Context(), 4711); !errors.Is(err, ipam.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	w.needAdmin("the name of cluster 0 is visible to it")
	if p, err := c.Cluster(t.Context(), 0); err != nil || p.Name == "" {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := c.Host(t.Context(), 4711); !errors.Is(err, ipam.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if zone, err := w.client("plain").ZoneName(t.Context()); err != nil || zone == "" {
		t.Errorf("a plain user: %q, %v", zone, err)
	}
	if _, err := w.client("plain").Cluster(t.Context(), 0); !errors.Is(err, ipam.ErrNotFound) {
		t.Errorf("a plain user: %v", err)
	}
}

func TestUnknownObjects(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	c := w.client("")
	const unknown = 1<<31 - 1
	for name, err := range map[string]error{
		"Get":         second(c.Get(t.Context(), unknown)),
		"VM":          second(c.VM(t.Context(), unknown)),
		"Find":        second(c.Find(t.Context(), ipam.NetworkQuery{Name: w.prefix})),
		"reservation": second(c.FindReservation(t.Context(), w.prefix)),
		"Hold":        c.Hold(t.Context(), unknown, ip("10.255.0.1")),
		"Release":     c.Release(t.Context(), unknown, ip("10.255.0.1")),
		"FreeRange":   c.FreeRange(t.Context(), unknown, 0),
		"Annotate":    c.Annotate(t.Context(), unknown, map[string]string{"A": "b"}),
		"Reserve":     second(c.Reserve(t.Context(), ipam.ReserveRequest{Parent: unknown, Name: w.prefix, Into: ipam.NoNetwork, Size: 1})),
	} {
		if !errors.Is(err, ipam.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := c.DeleteReservation(t.Context(), unknown); err != nil {
		t.Errorf("deleting what is gone: %v", err)
	}
}

// second is the error of a pair.
func second[T any](_ T, err error) error { return err }

// TestLoginToken: a user may read when the token that he uses expires.
func TestLoginToken(t *testing.T) {
	w := newWorld(t, onesim.Options{})
	w.needAdmin("it makes a user")
	c := w.client("token")
	if token, err := c.Token(t.Context()); err != nil || !token.Expires.IsZero() {
		t.Errorf("a password: %+v, %v", token, err)
	}
	name, _, _ := strings.Cut(w.users["token"].session, ":")
	_, secret, err := raw{w.endpoint, w.users["token"].session}.call("one.user.login", name, "", 3600, -1)
	if err != nil {
		t.Fatal(err)
	}
	c, err = one.New(one.Options{Endpoint: w.endpoint, Credentials: session(name + ":" + secret)})
	if err != nil {
		t.Fatal(err)
	}
	token, err := c.Token(t.Context())
	if left := time.Until(token.Expires); err != nil || left < 50*time.Minute || left > 70*time.Minute {
		t.Errorf("a token for an hour: %v left, %v", left, err)
	}
}
