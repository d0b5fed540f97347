package one

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/onelb/onelb/ipam"
)

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestWrongCredentialsKeepTheOldOnes: a text that OpenNebula refuses does not
// replace one that it accepts.
func TestWrongCredentialsKeepTheOldOnes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "one_auth")
	write(t, file, "k8s:first")
	valid := "k8s:first"
	f := newFrontEnd(t, accept(&valid))
	c := f.client(Options{Credentials: CredentialFile(file)})
	check := func() error { _, err := c.Check(context.Background()); return err }
	if err := check(); err != nil {
		t.Fatal(err)
	}
	before := c.Credentials()

	write(t, file, "k8s:wrong")
	if err := check(); err != nil {
		t.Fatalf("the old credentials are still accepted: %v", err)
	}
	if a := c.Access(); a.Credentials == nil || !strings.Contains(a.Credentials.Error(), file) || strings.Contains(a.Credentials.Error(), "wrong") || a.Refused != nil {
		t.Errorf("access %+v", a)
	}
	if c.Credentials() != before {
		t.Error("other credentials are in use")
	}
	calls := len(f.calls("one.system.version"))
	if err := check(); err != nil || len(f.calls("one.system.version")) != calls+1 {
		t.Errorf("each call tries the refused ones again: %v", err)
	}

	// The file was ahead of OpenNebula: now that has the new password too.
	valid = "k8s:wrong"
	if err := check(); err != nil {
		t.Fatalf("the new password: %v", err)
	}
	if a := c.Access(); a != (Access{}) {
		t.Errorf("access %+v", a)
	}

	valid = "k8s:third"
	if err := check(); !errors.Is(err, ipam.ErrUnauthenticated) {
		t.Fatalf("nothing is accepted any more: %v", err)
	}
	if a := c.Access(); a.Refused == nil {
		t.Errorf("access %+v", a)
	}
	write(t, file, "nonsense")
	if err := c.Access().Credentials; err == nil || strings.Contains(err.Error(), "nonsense") {
		t.Errorf("half-written: %v", err)
	}
	write(t, file, "k8s:third")
	if err := check(); err != nil {
		t.Fatal(err)
	}
	if a := c.Access(); a != (Access{}) {
		t.Errorf("access %+v", a)
	}
}

// authority signs the certificates of a server that can change them.
type authority struct {
	pem  string
	cert tls.Certificate
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<60))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "onelb test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return authority{
		pem:  string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		cert: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
	}
}

func TestCAFileIsReadAgain(t *testing.T) {
	first, second := newAuthority(t), newAuthority(t)
	serving := first
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, okText("7.5.80")) }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{serving.cert}}, nil
		},
	}
	s.StartTLS()
	defer s.Close()
	file := filepath.Join(t.TempDir(), "ca.pem")
	write(t, file, first.pem)
	c := newFrontEnd(t, nil).client(Options{Endpoint: s.URL, CAFile: file})
	check := func() error { _, err := c.Check(context.Background()); return err }
	if err := check(); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty": "", "no PEM": "x", "half": second.pem[:len(second.pem)/2], "one and a half": second.pem + first.pem[:100],
	} {
		write(t, file, text)
		if err := check(); err != nil {
			t.Errorf("%s: the old authority is not used: %v", name, err)
		}
		if err := c.Access().CAFile; err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := check(); err != nil || c.Access().CAFile == nil {
		t.Errorf("no file: %v, %v", err, c.Access().CAFile)
	}
	serving = second
	if err := check(); err == nil {
		t.Fatal("a server of another authority is trusted")
	}
	write(t, file, first.pem+second.pem)
	if err := check(); err != nil || c.Access().CAFile != nil {
		t.Errorf("the new authority: %v, %v", err, c.Access().CAFile)
	}
}

func TestTokenExpiry(t *testing.T) {
	// As recorded (one.user.info of a user with tokens).
	doc := func(tokens string) string {
		return `<USER><ID>2</ID><GID>1</GID><GROUPS><ID>1</ID></GROUPS><GNAME>users</GNAME><NAME>k8s</NAME><PASSWORD><![CDATA[1d2a]]></PASSWORD>` +
			`<AUTH_DRIVER><![CDATA[core]]></AUTH_DRIVER><ENABLED>1</ENABLED>` + tokens + `<TEMPLATE></TEMPLATE></USER>`
	}
	const other = "<LOGIN_TOKEN><TOKEN>other</TOKEN><EXPIRATION_TIME>1</EXPIRATION_TIME><EGID>-1</EGID></LOGIN_TOKEN>"
	body := ""
	f := newFrontEnd(t, func(r request) string {
		if r.method != "one.user.info" || r.params[1] != "-1" {
			t.Errorf("call %+v", r)
		}
		return okText(body)
	})
	c := f.client(Options{})
	for name, x := range map[string]struct {
		tokens string
		want   int64
		bad    bool
	}{
		"password": {other, 0, false},
		"token":    {other + "<LOGIN_TOKEN><TOKEN>secret123</TOKEN><EXPIRATION_TIME>1795329313</EXPIRATION_TIME><EGID>-1</EGID></LOGIN_TOKEN>", 1795329313, false},
		"for ever": {"<LOGIN_TOKEN><TOKEN>secret123</TOKEN><EXPIRATION_TIME>-1</EXPIRATION_TIME><EGID>-1</EGID></LOGIN_TOKEN>", 0, false},
		"no time":  {"<LOGIN_TOKEN><TOKEN>secret123</TOKEN></LOGIN_TOKEN>", 0, true},
	} {
		body = doc(x.tokens)
		token, err := c.Token(context.Background())
		if (err != nil) != x.bad {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err != nil {
			if strings.Contains(err.Error(), "secret123") {
				t.Errorf("%s: the error shows the token", name)
			}
			continue
		}
		if x.want == 0 && !token.Expires.IsZero() || x.want != 0 && token.Expires.Unix() != x.want || token.Digest != c.Credentials() {
			t.Errorf("%s: %+v", name, token)
		}
	}
	body = "<VM><ID>1</ID></VM>"
	if _, err := c.Token(context.Background()); !errors.Is(err, ipam.ErrUnavailable) {
		t.Errorf("another document: %v", err)
	}
}
