package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/pki"
)

func routerCommand() *cobra.Command {
	c := &cobra.Command{Use: "router", Short: "Set up virtual routers"}
	c.AddCommand(bootstrapCommand(), rotateCommand(), contextCommand())
	return c
}

func bootstrapCommand() *cobra.Command {
	var b bootstrap
	c := &cobra.Command{
		Use: "bootstrap", Short: "Make the certificates between a cluster and a router", Args: cobra.NoArgs,
		Long: `Makes ca.crt, ca.key, router.crt, router.key, client.crt and client.key in a directory.
An authority that is there already (ca.crt and ca.key) is used again, and so is its
router.crt; so a further cluster, or a further router, can be added. For that, move the
client's (or the router's) files away first: no file is ever overwritten.`,
		RunE: func(c *cobra.Command, _ []string) error { return b.run(c.OutOrStdout()) },
	}
	c.Flags().StringVar(&b.router, "router", "", "router's name, as in cloud-config (required)")
	c.Flags().StringVar(&b.cluster, "cluster", "", "cluster's name, as in cloud-config (required)")
	c.Flags().StringVar(&b.out, "out", "", "directory to write to (required)")
	for _, f := range []string{"router", "cluster", "out"} {
		if err := c.MarkFlagRequired(f); err != nil {
			panic(err) // the flag was declared a line above
		}
	}
	return c
}

type bootstrap struct{ router, cluster, out string }

func (b bootstrap) run(w io.Writer) error {
	if !router.ValidCluster(b.router) || !router.ValidCluster(b.cluster) {
		return fmt.Errorf("router %q and cluster %q must be DNS labels", b.router, b.cluster)
	}
	if err := os.MkdirAll(b.out, 0o700); err != nil {
		return err
	}
	authority, fresh, err := b.authority()
	if err != nil {
		return err
	}
	server, newServer, err := b.server(authority)
	if err != nil {
		return err
	}
	client, err := authority.Client(b.cluster, pki.Validity{})
	if err != nil {
		return err
	}
	var files []file
	if fresh {
		files = append(files, file{"ca.crt", authority.PEM.Cert, 0o644}, file{"ca.key", authority.PEM.Key, 0o600})
	}
	if newServer {
		files = append(files, file{"router.crt", server.Cert, 0o644}, file{"router.key", server.Key, 0o600})
	}
	files = append(files, file{"client.crt", client.Cert, 0o644}, file{"client.key", client.Key, 0o600})
	if err := b.write(w, files); err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, `
On each instance of router %[1]s: ca.crt, router.crt, router.key, and
  onelb-router --name=%[1]s --tls-cert=router.crt --tls-key=router.key --tls-client-ca=ca.crt
In cluster %[2]s, for the cloud-controller-manager: ca.crt, client.crt (tls.crt), client.key (tls.key).
For the template of an OpenNebula virtual router: onelbctl router context --out %[3]s
To renew the certificates later:                   onelbctl router rotate --out %[3]s
Keep ca.key where neither of them can read it.
`, b.router, b.cluster, b.out)
	return err
}

type file struct {
	name string
	data []byte
	mode os.FileMode
}

// write makes all files or, if one exists, none.
func (b bootstrap) write(w io.Writer, files []file) error {
	for _, f := range files {
		if _, err := os.Lstat(filepath.Join(b.out, f.name)); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s exists: it is not overwritten, move it away first", filepath.Join(b.out, f.name))
		}
	}
	for _, f := range files {
		if err := create(filepath.Join(b.out, f.name), f.data, f.mode); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(w, "wrote", filepath.Join(b.out, f.name)); err != nil {
			return err
		}
	}
	return nil
}

func create(path string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode) //nolint:gosec // the operator's directory
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// authority reads the one that is there or makes one.
func (b bootstrap) authority() (a *pki.Authority, fresh bool, err error) {
	pair, found, err := b.read("ca")
	if err != nil {
		return nil, false, err
	}
	if found {
		a, err = pki.LoadAuthority(pair)
		return a, false, err
	}
	a, err = pki.NewAuthority("onelb router "+b.router, pki.Validity{})
	return a, true, err
}

// server keeps the router's certificate if it is this router's.
func (b bootstrap) server(a *pki.Authority) (pair pki.Pair, fresh bool, err error) {
	pair, found, err := b.read("router")
	if err != nil {
		return pair, false, err
	}
	if !found {
		pair, err = a.Router(b.router, pki.Validity{})
		return pair, true, err
	}
	if err := a.Verify(pair.Cert, router.ServerName(b.router)); err != nil {
		return pair, false, fmt.Errorf("%s is not a certificate of router %s by this authority; move it away: %w", filepath.Join(b.out, "router.crt"), b.router, err)
	}
	return pair, false, nil
}

// read returns a certificate with its key; one without the other is an error.
func (b bootstrap) read(name string) (pair pki.Pair, found bool, err error) {
	cert, certErr := os.ReadFile(filepath.Join(b.out, name+".crt")) //nolint:gosec // the operator's directory
	key, keyErr := os.ReadFile(filepath.Join(b.out, name+".key"))   //nolint:gosec // the operator's directory
	if errors.Is(certErr, fs.ErrNotExist) && errors.Is(keyErr, fs.ErrNotExist) {
		return pair, false, nil
	}
	if err := errors.Join(certErr, keyErr); err != nil {
		return pair, false, fmt.Errorf("%s.crt and %s.key belong together: %w", name, name, err)
	}
	return pki.Pair{Cert: cert, Key: key}, true, nil
}
