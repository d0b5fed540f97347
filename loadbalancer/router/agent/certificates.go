package agent

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/onelb/onelb/loadbalancer/router"
)

// certificates are the server's files. They are read at each handshake and each
// judgement of a client, so that what is renewed counts at once and needs no restart.
// While they cannot be used, for example because a key does not belong to its
// certificate yet, the last ones that could be used count.
type certificates struct {
	opts Options

	mu      sync.Mutex // guards what follows
	pair    *tls.Certificate
	clients []*x509.Certificate // the authorities of the clients' certificates
}

// openCertificates reads the files for the first time.
func openCertificates(o Options) (*certificates, error) {
	c := &certificates{opts: o}
	if err := c.read(); err != nil {
		return nil, err
	}
	return c, nil
}

// read takes in what the files hold now. After an error what was before counts.
func (c *certificates) read() error {
	pair, pairErr := readServer(c.opts)
	clients, clientsErr := readAuthorities(c.opts.ClientCAFile)
	c.mu.Lock()
	defer c.mu.Unlock()
	if pairErr == nil {
		c.pair = pair
	}
	if clientsErr == nil {
		c.clients = clients
	}
	return errors.Join(pairErr, clientsErr)
}

// current reads the files and returns the newest usable content.
func (c *certificates) current() (pair *tls.Certificate, clients *x509.CertPool) {
	_ = c.read() // trouble says it; what was before counts
	c.mu.Lock()
	defer c.mu.Unlock()
	clients = x509.NewCertPool()
	for _, authority := range c.clients {
		clients.AddCert(authority)
	}
	return c.pair, clients
}

// config is the server's.
func (c *certificates) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			pair, clients := c.current()
			return &tls.Config{
				MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*pair}, NextProtos: []string{"h2"},
				ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients,
				VerifyConnection: func(s tls.ConnectionState) error {
					if len(s.PeerCertificates) == 0 {
						return errNoClient
					}
					if s.PeerCertificates[0].VerifyHostname(router.ServerName(c.opts.Name)) == nil {
						return nil // another instance
					}
					_, err := router.ClusterOf(s.PeerCertificates[0])
					return err
				},
			}, nil
		},
	}
}

// verifyClient judges a client's certificate by the authorities and the time of
// now, and returns its cluster.
func (c *certificates) verifyClient(chain []*x509.Certificate) (string, error) {
	if err := c.verify(chain, ""); err != nil {
		return "", err
	}
	return router.ClusterOf(chain[0])
}

// verifyPeer judges the certificate of another instance of this router.
func (c *certificates) verifyPeer(chain []*x509.Certificate) error {
	return c.verify(chain, router.ServerName(c.opts.Name))
}

// verify judges by the name too, if there is one.
func (c *certificates) verify(chain []*x509.Certificate, name string) error {
	_, roots := c.current()
	between := x509.NewCertPool()
	for _, cert := range chain[1:] {
		between.AddCert(cert)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		DNSName: name, Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err
}

// expiry is when the server's certificate ends, and when the last of the clients'
// authorities does: during a rotation the old one may end.
func (c *certificates) expiry() (server, clients time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, authority := range c.clients {
		if authority.NotAfter.After(clients) {
			clients = authority.NotAfter
		}
	}
	return c.pair.Leaf.NotAfter, clients
}

// trouble says what is wrong with the files, or will be soon.
func (c *certificates) trouble(now time.Time) error {
	err := c.read()
	if err != nil {
		err = fmt.Errorf("%w; the ones before are used", err)
	}
	server, clients := c.expiry()
	return errors.Join(err, router.Expiring("server certificate", server, now), router.Expiring("authority of the clients", clients, now))
}

func readServer(o Options) (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("server certificate %s: %w", o.CertFile, err)
	}
	if err := pair.Leaf.VerifyHostname(router.ServerName(o.Name)); err != nil {
		return nil, fmt.Errorf("server certificate %s: %w", o.CertFile, err)
	}
	return &pair, nil
}

// readAuthorities reads all certificates of a PEM file; what cannot be read in it
// is an error, so that half a file is not taken for the whole.
func readAuthorities(file string) ([]*x509.Certificate, error) {
	rest, err := os.ReadFile(file) //nolint:gosec // the operator's file
	if err != nil {
		return nil, fmt.Errorf("client CA: %w", err)
	}
	var authorities []*x509.Certificate
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("client CA %s: %w", file, err)
		}
		authorities = append(authorities, cert)
	}
	if len(authorities) == 0 || bytes.Contains(rest, []byte("-----BEGIN")) {
		return nil, fmt.Errorf("client CA %s holds no PEM certificate, or half of one", file)
	}
	return authorities, nil
}
