package agent

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"github.com/onelb/onelb/loadbalancer/router"
)

// serverTLS reads the files at each handshake, so that a renewed certificate or
// authority counts from the next connection on.
func serverTLS(o Options) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return loadServerTLS(o)
		},
	}
}

func loadServerTLS(o Options) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("server certificate %s: %w", o.CertFile, err)
	}
	if err := pair.Leaf.VerifyHostname(router.ServerName(o.Name)); err != nil {
		return nil, fmt.Errorf("server certificate %s: %w", o.CertFile, err)
	}
	pool, err := clientAuthorities(o)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2"},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return errNoClient
			}
			_, err := router.ClusterOf(s.PeerCertificates[0])
			return err
		},
	}, nil
}

func clientAuthorities(o Options) (*x509.CertPool, error) {
	b, err := os.ReadFile(o.ClientCAFile)
	if err != nil {
		return nil, fmt.Errorf("client CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("client CA %s holds no PEM certificate", o.ClientCAFile)
	}
	return pool, nil
}

// verifyClient judges a client's certificate by the authorities and the time of
// now, and returns its cluster.
func verifyClient(o Options, chain []*x509.Certificate) (string, error) {
	pool, err := clientAuthorities(o)
	if err != nil {
		return "", err
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err = chain[0].Verify(x509.VerifyOptions{
		Roots: pool, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return "", err
	}
	return router.ClusterOf(chain[0])
}
