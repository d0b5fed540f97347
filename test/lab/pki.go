package lab

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// pair is a certificate with its key, in PEM, and where both are stored.
type pair struct {
	cert, key         []byte
	certFile, keyFile string
}

// authority signs certificates.
type authority struct {
	pair
	x509 *x509.Certificate
	key  crypto.Signer
}

// clusterPKI are the certificates of the control plane.
type clusterPKI struct {
	dir        string
	ca         *authority // clients and the API server
	frontProxy *authority
	apiServer  pair
	proxyPair  pair   // client certificate of the aggregation layer
	saKeyFile  string // signs and verifies service account tokens
}

// certLifetime is long enough for a lab that somebody explores for days.
const certLifetime = 30 * 24 * time.Hour

// newClusterPKI makes everything below dir.
func newClusterPKI(dir string) (*clusterPKI, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	p := &clusterPKI{dir: dir, saKeyFile: filepath.Join(dir, "sa.key")}
	var err error
	if p.ca, err = newAuthority(dir, "ca", "kubernetes"); err != nil {
		return nil, err
	}
	if p.frontProxy, err = newAuthority(dir, "front-proxy-ca", "front-proxy"); err != nil {
		return nil, err
	}
	p.apiServer, err = p.ca.issue(dir, "apiserver", &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		DNSNames:    []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"},
		IPAddresses: []net.IP{ControlAddr.AsSlice(), ServicesV4.Addr().Next().AsSlice(), net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return nil, err
	}
	if p.proxyPair, err = p.frontProxy.client(dir, "front-proxy-client", ""); err != nil {
		return nil, err
	}
	return p, p.newServiceAccountKey()
}

// newServiceAccountKey makes the RSA key of service account tokens.
func (p *clusterPKI) newServiceAccountKey() error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	return os.WriteFile(p.saKeyFile, pem.EncodeToMemory(block), 0o600)
}

// newAuthority makes a self-signed authority.
func newAuthority(dir, file, name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(certLifetime),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", name, err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	stored, err := store(dir, file, der, key)
	return &authority{pair: stored, x509: parsed, key: key}, err
}

// client issues a client certificate; organization is the user's group or empty.
func (a *authority) client(dir, user, organization string) (pair, error) {
	subject := pkix.Name{CommonName: user}
	if organization != "" {
		subject.Organization = []string{organization}
	}
	return a.issue(dir, user, &x509.Certificate{
		Subject: subject, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// issue completes the template, signs it and stores certificate and key.
func (a *authority) issue(dir, file string, template *x509.Certificate) (pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return pair{}, err
	}
	template.SerialNumber = serial
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(certLifetime)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, a.x509, key.Public(), a.key)
	if err != nil {
		return pair{}, fmt.Errorf("certificate of %s: %w", template.Subject.CommonName, err)
	}
	return store(dir, file, der, key)
}

func store(dir, file string, der []byte, key *ecdsa.PrivateKey) (pair, error) {
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return pair{}, err
	}
	p := pair{
		cert:     pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		key:      pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}),
		certFile: filepath.Join(dir, file+".crt"), keyFile: filepath.Join(dir, file+".key"),
	}
	if err := os.WriteFile(p.certFile, p.cert, 0o644); err != nil {
		return pair{}, err
	}
	return p, os.WriteFile(p.keyFile, p.key, 0o600)
}
