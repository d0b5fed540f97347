package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/pki"
)

func rotateCommand() *cobra.Command {
	var r rotation
	c := &cobra.Command{
		Use: "rotate", Short: "Renew the certificates between a cluster and a router", Args: cobra.NoArgs,
		Long: `Renews router.crt, router.key, client.crt and client.key in the directory that bootstrap
wrote, for the names that they have now. Files that are not there are left out.

Both programs read the files again by themselves: there is no restart and no gap. Until the
new ones are in place the old ones go on working.

A new authority takes three steps, each complete on the router's instances and in the
clusters before the next:
  1. rotate --authority=begin    ca.crt holds the new and the old authority: distribute it
  2. rotate                      certificates of the new authority: distribute them
  3. rotate --authority=finish   ca.crt holds the new authority alone: distribute it`,
		RunE: func(c *cobra.Command, _ []string) error { return r.run(c.OutOrStdout()) },
	}
	c.Flags().StringVar(&r.dir, "out", "", "directory with the files, as given to bootstrap (required)")
	c.Flags().StringVar(&r.authority, "authority", "", "begin or finish: a step in the exchange of the authority")
	if err := c.MarkFlagRequired("out"); err != nil {
		panic(err) // the flag was declared above
	}
	return c
}

type rotation struct{ dir, authority string }

func (r rotation) run(w io.Writer) error {
	pair, found, err := bootstrap{out: r.dir}.read("ca")
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("no ca.crt and ca.key in %s: onelbctl router bootstrap makes them", r.dir)
	}
	switch r.authority {
	case "begin":
		return r.begin(w, pair)
	case "finish":
		return r.finish(w, pair)
	case "":
		return r.leaves(w, pair)
	}
	return fmt.Errorf("--authority=%s is neither begin nor finish", r.authority)
}

// leaves renews the certificates that are there. All are made before the first is
// written.
func (r rotation) leaves(w io.Writer, ca pki.Pair) error {
	authority, err := pki.LoadAuthority(ca)
	if err != nil {
		return err
	}
	var files []file
	var where []string
	if cert, err := r.certificate("router"); err != nil {
		return err
	} else if cert != nil {
		name, err := routerOf(cert)
		if err != nil {
			return err
		}
		pair, err := authority.Router(name, pki.Validity{})
		if err != nil {
			return err
		}
		files = append(files, file{"router.key", pair.Key, 0o600}, file{"router.crt", pair.Cert, 0o644})
		where = append(where, fmt.Sprintf("On each instance of router %s, in /etc/onelb-router: router.crt, router.key (install.sh does it too).", name))
	}
	if cert, err := r.certificate("client"); err != nil {
		return err
	} else if cert != nil {
		cluster, err := router.ClusterOf(cert)
		if err != nil {
			return err
		}
		pair, err := authority.Client(cluster, pki.Validity{})
		if err != nil {
			return err
		}
		files = append(files, file{"client.key", pair.Key, 0o600}, file{"client.crt", pair.Cert, 0o644})
		where = append(where, fmt.Sprintf("In cluster %s, in the Secret of the client: tls.crt (client.crt), tls.key (client.key).", cluster))
	}
	if len(files) == 0 {
		return fmt.Errorf("neither router.crt nor client.crt in %s: nothing to renew", r.dir)
	}
	return r.replace(w, files, fmt.Sprintf("Valid until %s.\n%s", time.Now().Add(pki.LeafLifetime).UTC().Format(time.DateOnly), strings.Join(where, "\n")))
}

// begin makes a new authority; the old one stays trusted.
func (r rotation) begin(w io.Writer, old pki.Pair) error {
	authorities, err := certificates(old.Cert)
	if err != nil {
		return fmt.Errorf("ca.crt: %w", err)
	}
	if len(authorities) > 1 {
		return errors.New("ca.crt holds two authorities: an exchange has begun already; go on with rotate, then --authority=finish")
	}
	next, err := pki.NewAuthority(authorities[0].Subject.CommonName, pki.Validity{})
	if err != nil {
		return err
	}
	both := append(bytes.Clone(next.PEM.Cert), old.Cert...)
	// The key first: between the two the directory is of no use, and says so.
	return r.replace(w, []file{{"ca.key", next.PEM.Key, 0o600}, {"ca.crt", both, 0o644}},
		"Bring ca.crt to each instance of the router and to each cluster. When all have it: onelbctl router rotate.")
}

// finish ends the trust in the old authority, unless something still needs it.
func (r rotation) finish(w io.Writer, ca pki.Pair) error {
	authority, err := pki.LoadAuthority(ca)
	if err != nil {
		return err
	}
	authorities, err := certificates(ca.Cert)
	if err != nil {
		return fmt.Errorf("ca.crt: %w", err)
	}
	if len(authorities) < 2 {
		return errors.New("ca.crt holds one authority: no exchange has begun")
	}
	for _, name := range []string{"router", "client"} {
		cert, err := r.certificate(name)
		if err != nil {
			return err
		}
		if cert != nil && cert.CheckSignatureFrom(authorities[0]) != nil {
			return fmt.Errorf("%s.crt is still of the old authority: run rotate, and distribute it, first", name)
		}
	}
	return r.replace(w, []file{{"ca.crt", authority.OwnPEM(), 0o644}},
		"Bring ca.crt to each instance of the router and to each cluster. What was signed by the old authority is refused then.")
}

// certificate reads a certificate of the directory; nil if there is none.
func (r rotation) certificate(name string) (*x509.Certificate, error) {
	pair, found, err := bootstrap{out: r.dir}.read(name)
	if err != nil || !found {
		return nil, err
	}
	all, err := certificates(pair.Cert)
	if err != nil {
		return nil, fmt.Errorf("%s.crt: %w", name, err)
	}
	return all[0], nil
}

// replace writes each file beside its place and renames it.
func (r rotation) replace(w io.Writer, files []file, next string) error {
	for _, f := range files {
		path := filepath.Join(r.dir, f.name)
		fresh := path + ".new"
		if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := create(fresh, f.data, f.mode); err != nil {
			return err
		}
		if err := os.Rename(fresh, path); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(w, "wrote", path); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "\n%s\n", next)
	return err
}

// certificates reads all of a PEM file, at least one.
func certificates(data []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, cert)
	}
	if len(all) == 0 {
		return nil, errors.New("no PEM certificate")
	}
	return all, nil
}

// routerOf is the name of the router that a certificate is for.
func routerOf(cert *x509.Certificate) (string, error) {
	for _, name := range cert.DNSNames {
		if short, is := strings.CutSuffix(name, router.ServerName("")); is {
			return short, nil
		}
	}
	return "", fmt.Errorf("router.crt is for %v, which is no router's name", cert.DNSNames)
}
