// Package pki makes the certificates between clusters and routers: a small
// authority, one server certificate for each router (DNS name
// <router>.router.onelb) and one client certificate for each cluster (URI
// onelb://cluster/<cluster>). Keys are ECDSA P-256. Nothing is written to disk
// here.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"github.com/onelb/onelb/loadbalancer/router"
)

// How long certificates are valid when nothing else is said.
const (
	AuthorityLifetime = 10 * 365 * 24 * time.Hour
	LeafLifetime      = 5 * 365 * 24 * time.Hour
	// skew is how far another clock may lag behind.
	skew = time.Hour
)

// Pair is a certificate and its key in PEM.
type Pair struct{ Cert, Key []byte }

// Validity is a span of time; the zero value means from now for the default time.
type Validity struct{ From, To time.Time }

func (v Validity) or(lifetime time.Duration) Validity {
	if v.From.IsZero() {
		v.From = time.Now().Add(-skew)
	}
	if v.To.IsZero() {
		v.To = time.Now().Add(lifetime)
	}
	return v
}

// Authority signs certificates.
type Authority struct {
	// PEM is the authority's own certificate and key.
	PEM  Pair
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes a new authority of that name.
func NewAuthority(name string, v Validity) (*Authority, error) {
	v = v.or(AuthorityLifetime)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make authority %q: %w", name, err)
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: v.From, NotAfter: v.To,
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	pair, cert, err := sign(template, template, key, key)
	if err != nil {
		return nil, fmt.Errorf("make authority %q: %w", name, err)
	}
	return &Authority{PEM: pair, cert: cert, key: key}, nil
}

// LoadAuthority reads an authority back from PEM. Its certificate is the first one;
// others that follow are trusted beside it.
func LoadAuthority(p Pair) (*Authority, error) {
	both, err := tls.X509KeyPair(p.Cert, p.Key)
	if err != nil {
		return nil, fmt.Errorf("read authority: %w", err)
	}
	key, ok := both.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("read authority: its key is not ECDSA")
	}
	if !both.Leaf.IsCA {
		return nil, fmt.Errorf("read authority: certificate %q is not an authority's", both.Leaf.Subject.CommonName)
	}
	return &Authority{PEM: p, cert: both.Leaf, key: key}, nil
}

// OwnPEM is the authority's certificate alone, where PEM.Cert may hold others that
// are trusted beside it.
func (a *Authority) OwnPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// Router makes the certificate of a router's instances: they are servers to clusters,
// and clients to each other.
func (a *Authority) Router(name string, v Validity) (Pair, error) {
	if !router.ValidCluster(name) {
		return Pair{}, fmt.Errorf("router name %q is not a DNS label", name)
	}
	return a.leaf(&x509.Certificate{
		Subject: pkix.Name{CommonName: "router " + name}, DNSNames: []string{router.ServerName(name)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, v)
}

// Client makes the client certificate of a cluster.
func (a *Authority) Client(cluster string, v Validity) (Pair, error) {
	if !router.ValidCluster(cluster) {
		return Pair{}, fmt.Errorf("cluster name %q is not a DNS label", cluster)
	}
	return a.leaf(&x509.Certificate{
		Subject: pkix.Name{CommonName: "cluster " + cluster}, URIs: []*url.URL{router.ClusterURI(cluster)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, v)
}

func (a *Authority) leaf(template *x509.Certificate, v Validity) (Pair, error) {
	v = v.or(LeafLifetime)
	template.NotBefore, template.NotAfter = v.From, v.To
	template.KeyUsage, template.BasicConstraintsValid = x509.KeyUsageDigitalSignature, true
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("certificate for %s: %w", template.Subject.CommonName, err)
	}
	pair, _, err := sign(template, a.cert, key, a.key)
	if err != nil {
		return Pair{}, fmt.Errorf("certificate for %s: %w", template.Subject.CommonName, err)
	}
	return pair, nil
}

func sign(template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) (Pair, *x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return Pair{}, nil, err
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return Pair{}, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return Pair{}, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, nil, err
	}
	return Pair{
		Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}, cert, nil
}

// Verify reports whether a certificate in PEM is of this authority, valid now,
// and for a server of that DNS name.
func (a *Authority) Verify(certPEM []byte, name string) error {
	block, _ := pem.Decode(certPEM)
	if block == nil {
		return errors.New("no PEM certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	_, err = cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: name})
	return err
}
