package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"testing"
	"time"

	"github.com/onelb/onelb/loadbalancer/router"
)

func parse(t *testing.T, certPEM []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(certPEM)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestCertificates(t *testing.T) {
	made, err := NewAuthority("test", Validity{})
	if err != nil {
		t.Fatal(err)
	}
	a, err := LoadAuthority(made.PEM) // as a later run does
	if err != nil {
		t.Fatal(err)
	}
	server, err := a.Router("edge", Validity{})
	if err != nil {
		t.Fatal(err)
	}
	client, err := a.Client("lab", Validity{})
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parse(t, made.PEM.Cert))
	s, c := parse(t, server.Cert), parse(t, client.Cert)
	for _, v := range []struct {
		cert *x509.Certificate
		opts x509.VerifyOptions
		ok   bool
	}{
		{s, x509.VerifyOptions{DNSName: "edge.router.onelb"}, true},
		{s, x509.VerifyOptions{DNSName: "edge2.router.onelb"}, false},
		{s, x509.VerifyOptions{KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, true}, // of other instances
		{c, x509.VerifyOptions{KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, true},
		{c, x509.VerifyOptions{}, false}, // not a server
	} {
		v.opts.Roots = roots
		if _, err := v.cert.Verify(v.opts); (err == nil) != v.ok {
			t.Errorf("%s %+v: %v", v.cert.Subject.CommonName, v.opts, err)
		}
	}
	if got, err := router.ClusterOf(c); got != "lab" || err != nil {
		t.Errorf("cluster %q, %v", got, err)
	}
	if _, err := router.ClusterOf(s); err == nil {
		t.Error("a server's certificate names a cluster")
	}
	if key, ok := c.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
		t.Errorf("key is %T", c.PublicKey)
	}
	if c.SerialNumber.Cmp(s.SerialNumber) == 0 {
		t.Error("two certificates of one serial number")
	}
	if left := time.Until(c.NotAfter); left < 4*365*24*time.Hour {
		t.Errorf("client's certificate ends in %s", left)
	}
	if err := a.Verify(server.Cert, "edge.router.onelb"); err != nil {
		t.Error(err)
	}
	if err := a.Verify(server.Cert, "other.router.onelb"); err == nil {
		t.Error("another router's name is verified")
	}
}

func TestRefuses(t *testing.T) {
	a, err := NewAuthority("test", Validity{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "Edge", "a.b", "-a", "a/b"} {
		if _, err := a.Router(name, Validity{}); err == nil {
			t.Errorf("router %q is taken", name)
		}
		if _, err := a.Client(name, Validity{}); err == nil {
			t.Errorf("cluster %q is taken", name)
		}
	}
	leaf, err := a.Client("lab", Validity{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LoadAuthority(leaf); err == nil {
		t.Error("a client certificate is taken as an authority")
	}
	if _, err := LoadAuthority(Pair{Cert: a.PEM.Cert, Key: leaf.Key}); err == nil {
		t.Error("another key is taken")
	}
	if err := a.Verify([]byte("x"), "edge.router.onelb"); err == nil {
		t.Error("no certificate is verified")
	}
}
