package one

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/onelb/onelb/ipam"
)

const authError = "[one.system.version] User couldn't be authenticated, aborting call."

// accept is a front-end that knows one session.
func accept(session *string) func(request) string {
	return func(r request) string {
		if r.params[0] != *session {
			return failure(0x0100, authError)
		}
		return okText("7.5.80")
	}
}

func TestCredentialsAreReadAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "one_auth")
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("\n k8s:first \n")
	valid := "k8s:first"
	f := newFrontEnd(t, accept(&valid))
	c := f.client(Options{Credentials: CredentialFile(file)})
	check := func() error { _, err := c.Check(context.Background()); return err }
	if err := check(); err != nil {
		t.Fatal(err)
	}
	valid = "k8s:second"
	write("k8s:second\n")
	if err := check(); err != nil {
		t.Fatalf("after rotation: %v", err)
	}
	write("") // being rewritten
	if err := check(); err != nil {
		t.Fatalf("half-written file: %v", err)
	}
	valid = "k8s:third"
	err := check()
	if !errors.Is(err, ipam.ErrUnauthenticated) || !strings.Contains(err.Error(), file) || strings.Contains(err.Error(), "second") {
		t.Fatalf("wrong password: %v", err)
	}
}

// TestCredentialsChangeDuringCall: the source changes between reading and refusal.
func TestCredentialsChangeDuringCall(t *testing.T) {
	source := &fixedCredentials{text: "k8s:old"}
	f := newFrontEnd(t, func(r request) string {
		if r.params[0] == "k8s:old" {
			source.set("k8s:new", nil)
			return failure(0x0100, authError)
		}
		return okText("7.5.80")
	})
	if _, err := f.client(Options{Credentials: source}).Check(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := len(f.calls("one.system.version")); n != 2 {
		t.Errorf("%d calls", n)
	}
}

func TestRefusedCredentialsAreNotRetried(t *testing.T) {
	valid := "other:x"
	f := newFrontEnd(t, accept(&valid))
	if _, err := f.client(Options{}).Check(context.Background()); !errors.Is(err, ipam.ErrUnauthenticated) {
		t.Fatal(err)
	}
	if n := len(f.calls("one.system.version")); n != 1 {
		t.Errorf("%d calls", n)
	}
}

func TestCredentialEnv(t *testing.T) {
	if _, err := CredentialEnv("ONELB_TEST_UNSET").Read(); err == nil {
		t.Error("an unset variable is no error")
	}
	t.Setenv("ONELB_TEST_AUTH", "u:p:with:colons")
	valid := "u:p:with:colons"
	f := newFrontEnd(t, accept(&valid))
	if _, err := f.client(Options{Credentials: CredentialEnv("ONELB_TEST_AUTH")}).Check(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestMalformedCredentials(t *testing.T) {
	for _, text := range []string{"", "\n\n", "nocolon", ":password", "user:", "user:\nx:y"} {
		s := &session{source: &fixedCredentials{text: text}}
		if _, err := s.current(); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}
