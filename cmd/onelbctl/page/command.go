// Package page lets a browser see the web page of the cloud-controller-manager: it
// serves it on this machine and fetches it with the credentials of the kubeconfig,
// which a browser has no way to send. It trusts the certificate that the Lease
// onelb-fencing names, and no other; it changes nothing.
package page

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/onelb/onelb/loadbalancer/inventory"
	"github.com/onelb/onelb/provider/page"
)

// Cluster is where the page is looked for.
type Cluster interface {
	Connect() (inventory.Clients, error)
	Config() (*rest.Config, error)
}

// timeout is for finding the page and for each answer of it.
const timeout = 30 * time.Second

var errNoPage = errors.New("no cloud-controller-manager that leads serves a page: start it with --page-port, or install with manager.page.enabled=true (docs/how-to/page.md)")

// Command is `onelbctl page`.
func Command(cluster Cluster) *cobra.Command {
	var o options
	c := &cobra.Command{
		Use: "page", Short: "Show the web page of the cloud-controller-manager in your browser", Args: cobra.NoArgs,
		Long: `Serves the page of the cloud-controller-manager that leads on this machine, until
interrupted, and fetches it with your credentials: you need the ClusterRole onelb:page.
The printed address has a key in it, so that other users of this machine do not see it.`,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context(), c.OutOrStdout(), cluster) },
	}
	c.Flags().StringVar(&o.listen, "listen", "127.0.0.1:0", "where to serve it; port 0 takes a free one")
	c.Flags().StringVar(&o.address, "address", "", "host and port at which the page is reached, if not the published ones (after kubectl port-forward: 127.0.0.1:PORT)")
	return c
}

type options struct{ listen, address string }

func (o options) run(ctx context.Context, w io.Writer, cluster Cluster) error {
	clients, err := cluster.Connect()
	if err != nil {
		return err
	}
	cfg, err := cluster.Config()
	if err != nil {
		return err
	}
	where, certificate, err := find(ctx, clients.Kube)
	if err != nil {
		return err
	}
	if o.address != "" {
		where.Host = o.address
	}
	transport, err := pinned(cfg, certificate)
	if err != nil {
		return err
	}
	if err := try(ctx, transport, where); err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	door := newDoor(where, transport)
	if _, err := fmt.Fprintf(w, "http://%s/?%s=%s\n", listener.Addr(), keyName, door.key); err != nil {
		return errors.Join(err, listener.Close())
	}
	return serve(ctx, listener, door)
}

// find reads where the page is, and the SHA-256 of its certificate.
func find(ctx context.Context, kube kubernetes.Interface) (*url.URL, string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	l, err := kube.CoordinationV1().Leases(inventory.Namespace).Get(ctx, inventory.FencingLease, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, "", errNoPage
	}
	if err != nil {
		return nil, "", fmt.Errorf("read Lease %s/%s, which says where the page is: %w", inventory.Namespace, inventory.FencingLease, err)
	}
	text, certificate := l.Annotations[page.Annotation], l.Annotations[page.CertificateAnnotation]
	if text == "" || certificate == "" {
		return nil, "", errNoPage
	}
	where, err := url.Parse(text)
	if err != nil || where.Scheme != "https" || where.Host == "" {
		return nil, "", fmt.Errorf("Lease %s/%s, annotation %s: %q is no https address", inventory.Namespace, inventory.FencingLease, page.Annotation, text)
	}
	return where, certificate, nil
}

// try asks for the page once, for an error that says what is wrong.
func try(ctx context.Context, transport http.RoundTripper, where *url.URL) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, where.String(), nil)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("fetch %s (if it cannot be reached from here, kubectl port-forward to the pod and give --address): %w", where, err)
	}
	_ = resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusUnauthorized:
		return fmt.Errorf("fetch %s: the cluster does not accept the credentials of the kubeconfig there", where)
	case http.StatusForbidden:
		return fmt.Errorf("fetch %s: you may not get that URL; ask for the ClusterRole onelb:page (kubectl create clusterrolebinding … --clusterrole=onelb:page --user=…)", where)
	}
	return fmt.Errorf("fetch %s: %s", where, resp.Status)
}

// serve answers on the listener until ctx ends.
func serve(ctx context.Context, listener net.Listener, h http.Handler) error {
	server := &http.Server{Handler: h, ReadHeaderTimeout: timeout}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve on %s: %w", listener.Addr(), err)
	}
	return nil
}
