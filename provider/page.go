package provider

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/cloud-provider/app/config"
	"k8s.io/component-base/version"
	"k8s.io/controller-manager/app"
	"k8s.io/klog/v2"

	"github.com/onelb/onelb/api/v1alpha1"
	"github.com/onelb/onelb/loadbalancer/inventory"
	"github.com/onelb/onelb/provider/page"
)

const (
	// publishPageEvery is how often it is looked whether these are right.
	publishPageEvery = time.Minute
	// pageGrace is how long requests may take that have begun when the page ends.
	pageGrace = 2 * time.Second
)

// serving is how the library's own server encrypts, authenticates and authorizes:
// the page does it the same way, on a port of its own, since the library takes no
// handlers for its own.
type serving struct {
	secure *server.SecureServingInfo
	authn  *server.AuthenticationInfo
	authz  *server.AuthorizationInfo
}

// Complete takes from the library's configuration what the provider shares with it.
func (o *Options) Complete(c *config.CompletedConfig) {
	o.ClusterCIDR = c.ComponentConfig.KubeCloudShared.ClusterCIDR
	o.serving = serving{secure: c.SecureServing, authn: &c.Authentication, authz: &c.Authorization}
}

var errNoSecurePort = errors.New("--page-port needs --secure-port, whose certificate and authorization the page has")

// servePage serves the page while ctx lasts, and tells where it is. What keeps it
// from that is logged and tried again: addresses do not depend on it.
func (c *Cloud) servePage(ctx context.Context, p *parts, apiServer string) error {
	if c.options.serving.secure == nil {
		return errNoSecurePort
	}
	host, err := os.Hostname()
	if err != nil {
		host = userAgent
	}
	timeline := page.NewTimeline()
	if _, err := p.vips.AddEventHandler(timeline.Handler()); err != nil {
		return fmt.Errorf("watch VirtualIPs for the page: %w", err)
	}
	h, err := page.New(page.Options{
		Inventory: func() *inventory.Inventory { return inventoryOf(p, !c.options.DefaultClass) },
		Leader:    host, Version: version.Get().GitVersion, Timeline: timeline,
	})
	if err != nil {
		return err
	}
	core := p.shared.Core().V1()
	if !cache.WaitForCacheSync(ctx.Done(), p.pools.HasSynced, p.vips.HasSynced, core.Services().Informer().HasSynced, core.Nodes().Informer().HasSynced) {
		return nil // ctx has ended
	}
	s := c.options.serving
	var listener net.Listener
	if err := retry(ctx, "the port of the page", func(ctx context.Context) (err error) {
		listener, err = s.listen(ctx, c.options.PagePort)
		return err
	}); err != nil {
		return nil // ctx has ended
	}
	secure := s.shared(listener)
	stopped, _, err := secure.Serve(s.guarded(h), pageGrace, ctx.Done())
	if err != nil {
		return errors.Join(fmt.Errorf("serve the page: %w", err), listener.Close())
	}
	s.publish(ctx, p.kube, listener.Addr(), apiServer)
	<-stopped
	return nil
}

// listen opens the page's port on the address of the library's server.
func (s serving) listen(ctx context.Context, port int) (net.Listener, error) {
	host, _, err := net.SplitHostPort(s.secure.Listener.Addr().String())
	if err != nil {
		return nil, fmt.Errorf("address of the secure port: %w", err)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return nil, fmt.Errorf("--page-port: %w", err)
	}
	return l, nil
}

// shared is the library's server on another port. It looks at the certificates once a
// minute: the library runs what watches their files, which cannot be run twice.
func (s serving) shared(l net.Listener) *server.SecureServingInfo {
	out := *s.secure
	out.Listener = l
	if out.Cert != nil {
		out.Cert = sharedCert{out.Cert}
	}
	if out.ClientCA != nil {
		out.ClientCA = sharedCA{out.ClientCA}
	}
	out.SNICerts = nil
	for _, c := range s.secure.SNICerts {
		out.SNICerts = append(out.SNICerts, sharedSNI{c})
	}
	return &out
}

// These hide from the library that they can be run and listened to.
type (
	sharedCert struct {
		dynamiccertificates.CertKeyContentProvider
	}
	sharedCA struct {
		dynamiccertificates.CAContentProvider
	}
	sharedSNI struct {
		dynamiccertificates.SNICertKeyContentProvider
	}
)

func (sharedCert) AddListener(dynamiccertificates.Listener) {}
func (sharedCA) AddListener(dynamiccertificates.Listener)   {}
func (sharedSNI) AddListener(dynamiccertificates.Listener)  {}

// guarded asks the API server who somebody is, and whether they may see it.
func (s serving) guarded(h http.Handler) http.Handler {
	return app.BuildHandlerChain(h, s.authz, s.authn)
}

// publish keeps the annotations of the Lease right until ctx ends.
func (s serving) publish(ctx context.Context, kube kubernetes.Interface, listening net.Addr, apiServer string) {
	tick := time.NewTicker(publishPageEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		_ = retry(ctx, "to say where the page is", func(ctx context.Context) error {
			where, err := pageURL(ctx, listening, apiServer)
			if err != nil {
				return err
			}
			certificate, _ := s.secure.Cert.CurrentCertKeyContent()
			sum, err := fingerprint(certificate)
			if err != nil {
				return err
			}
			return annotate(ctx, kube, map[string]string{page.Annotation: where, page.CertificateAnnotation: sum})
		})
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// pageURL is how the page is reached from outside: a listener on all addresses is
// asked for at the one from which this machine talks to the API server.
func pageURL(ctx context.Context, listening net.Addr, apiServer string) (string, error) {
	host, port, err := net.SplitHostPort(listening.String())
	if err != nil {
		return "", err
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		u, err := url.Parse(apiServer)
		if err != nil {
			return "", fmt.Errorf("address of the API server: %w", err)
		}
		// Connecting UDP sends nothing, and chooses the source address.
		conn, err := new(net.Dialer).DialContext(ctx, "udp", net.JoinHostPort(u.Hostname(), "9"))
		if err != nil {
			return "", fmt.Errorf("own address: %w", err)
		}
		host, _, err = net.SplitHostPort(conn.LocalAddr().String())
		if err := errors.Join(err, conn.Close()); err != nil {
			return "", fmt.Errorf("own address: %w", err)
		}
	}
	return "https://" + net.JoinHostPort(host, port) + page.Path, nil
}

// fingerprint is the SHA-256 of the first certificate of a PEM text, in hex.
func fingerprint(text []byte) (string, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return "", errors.New("the secure port's certificate is not PEM")
	}
	sum := sha256.Sum256(block.Bytes)
	return hex.EncodeToString(sum[:]), nil
}

// annotate sets annotations of the Lease onelb-fencing that it has not got yet.
func annotate(ctx context.Context, kube kubernetes.Interface, want map[string]string) error {
	leases := kube.CoordinationV1().Leases(Namespace)
	l, err := leases.Get(ctx, FencingLease, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read Lease %s/%s: %w", Namespace, FencingLease, err)
	}
	changed := false
	for k, v := range want {
		if l.Annotations[k] != v {
			metav1.SetMetaDataAnnotation(&l.ObjectMeta, k, v)
			changed = true
		}
	}
	if !changed {
		return nil
	}
	if _, err := leases.Update(ctx, l, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("annotate Lease %s/%s: %w", Namespace, FencingLease, err)
	}
	return nil
}

// unwatched is what a page does not show and onelbctl status does.
const unwatched = "the cloud-controller-manager does not watch it; onelbctl status reads it"

// inventoryOf is what the informers have, as onelbctl would have read it.
func inventoryOf(p *parts, noDefaultClass bool) *inventory.Inventory {
	inv := &inventory.Inventory{
		Time:           time.Now(),
		Pools:          listed[v1alpha1.AddressPool](p.pools.GetStore().List()),
		VirtualIPs:     listed[v1alpha1.VirtualIP](p.vips.GetStore().List()),
		Namespaces:     listed[corev1.Namespace](p.shared.Core().V1().Namespaces().Informer().GetStore().List()),
		Nodes:          listed[corev1.Node](p.shared.Core().V1().Nodes().Informer().GetStore().List()),
		NoDefaultClass: noDefaultClass,
		Count: func(namespace, name string, ipv6 bool) inventory.Endpoints {
			return inventory.Endpoints(p.balancer.CountEndpoints(namespace, name, ipv6))
		},
		Gaps: []inventory.Gap{
			{What: "BGPConfigurations, BGPPeers and BGPNodes", Why: unwatched},
			{What: "Pods of " + inventory.Namespace, Why: unwatched},
			{What: "the Lease " + inventory.Namespace + "/" + inventory.LeaderLease, Why: unwatched},
		},
	}
	for _, s := range listed[corev1.Service](p.shared.Core().V1().Services().Informer().GetStore().List()) {
		if s.Spec.Type == corev1.ServiceTypeLoadBalancer {
			inv.Services = append(inv.Services, s)
		}
	}
	inv.Complete()
	return inv
}

// listed copies the objects of a store; what they refer to is the store's still.
func listed[T any](objects []any) []T {
	out := make([]T, 0, len(objects))
	for _, o := range objects {
		if t, ok := any(o).(*T); ok {
			out = append(out, *t)
		}
	}
	return out
}

// logPage says why there is no page.
func logPage(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		klog.FromContext(ctx).Error(err, "There is no page")
	}
}
