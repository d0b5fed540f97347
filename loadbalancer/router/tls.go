package router

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"time"

	"google.golang.org/grpc/credentials"
)

// ServerName is the DNS name in the certificate of a router's instances.
func ServerName(router string) string { return router + ".router.onelb" }

// ClusterURI is the URI in a cluster's client certificate.
func ClusterURI(cluster string) *url.URL {
	return &url.URL{Scheme: "onelb", Host: "cluster", Path: "/" + cluster}
}

// ClusterOf returns the cluster that a client certificate names. It must name
// exactly one.
func ClusterOf(cert *x509.Certificate) (string, error) {
	var clusters []string
	for _, u := range cert.URIs {
		if u.Scheme != "onelb" || u.Host != "cluster" || len(u.Path) < 2 {
			continue
		}
		if name := u.Path[1:]; ValidCluster(name) && *u == *ClusterURI(name) {
			clusters = append(clusters, name)
		}
	}
	if len(clusters) != 1 {
		return "", fmt.Errorf("certificate %q names %d clusters (URI SAN onelb://cluster/<name>), want 1", cert.Subject.CommonName, len(clusters))
	}
	return clusters[0], nil
}

// ExpiresWithin is how long before its end a certificate is complained about.
const ExpiresWithin = 30 * 24 * time.Hour

// Expiring is an error if a certificate ends within ExpiresWithin, or has ended. Its
// text stays the same while the time passes.
func Expiring(what string, end, now time.Time) error {
	switch at := end.UTC().Format(time.RFC3339); {
	case !now.Before(end):
		return fmt.Errorf("%s has expired at %s: renew it (onelbctl router rotate)", what, at)
	case end.Sub(now) < ExpiresWithin:
		return fmt.Errorf("%s expires at %s: renew it (onelbctl router rotate)", what, at)
	}
	return nil
}

// tlsFiles is the content of the certificate files at one moment.
type tlsFiles struct {
	ca, cert, key []byte
	roots         *x509.CertPool
	pair          tls.Certificate
}

func readFiles(o ClientOptions) (*tlsFiles, error) {
	f := &tlsFiles{roots: x509.NewCertPool()}
	var errs [3]error
	f.ca, errs[0] = os.ReadFile(o.CAFile)
	f.cert, errs[1] = os.ReadFile(o.CertFile)
	f.key, errs[2] = os.ReadFile(o.KeyFile)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	if !f.roots.AppendCertsFromPEM(f.ca) {
		return nil, fmt.Errorf("read certificates: %s holds no PEM certificate", o.CAFile)
	}
	var err error
	if f.pair, err = tls.X509KeyPair(f.cert, f.key); err != nil {
		return nil, fmt.Errorf("read certificates: %s and %s: %w", o.CertFile, o.KeyFile, err)
	}
	return f, nil
}

// changed returns what the files hold now if that is other, usable content.
// Half-written ones do not count: the connection that stands is better than none.
func (f *tlsFiles) changed(o ClientOptions) *tlsFiles {
	now, err := readFiles(o)
	if err != nil || bytes.Equal(now.ca, f.ca) && bytes.Equal(now.cert, f.cert) && bytes.Equal(now.key, f.key) {
		return nil
	}
	return now
}

func (f *tlsFiles) config(serverName string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: serverName, RootCAs: f.roots,
		// Always shown, even if the router does not list its authority: its
		// refusal then says what is wrong.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &f.pair, nil },
	}
}

// alertCredentials make the router's refusal of our certificate readable. In TLS
// 1.3 it comes after our side of the handshake, often together with the end of
// the connection, and a failing write would hide it.
type alertCredentials struct {
	credentials.TransportCredentials
}

// ClientHandshake implements credentials.TransportCredentials.
func (c alertCredentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err != nil {
		return nil, nil, err
	}
	return alertConn{conn}, info, nil
}

// Clone implements credentials.TransportCredentials.
func (c alertCredentials) Clone() credentials.TransportCredentials {
	return alertCredentials{c.TransportCredentials.Clone()}
}

type alertConn struct{ net.Conn }

// Write returns the peer's alert, if there is one, instead of its own error.
func (c alertConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err == nil {
		return n, nil
	}
	_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	var alert *net.OpError
	if _, read := c.Read(make([]byte, 1)); errors.As(read, &alert) && alert.Op == "remote error" {
		return n, read
	}
	return n, err
}
