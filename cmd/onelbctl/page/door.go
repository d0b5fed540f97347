package page

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"

	"k8s.io/client-go/rest"
)

// keyName is the name of the key in the printed address, and of the cookie.
const keyName = "key"

// door lets those in who have the key, and forwards what they ask for.
type door struct {
	key   string
	start string // path of the page
	proxy *httputil.ReverseProxy
}

func newDoor(where *url.URL, transport http.RoundTripper) *door {
	target := &url.URL{Scheme: where.Scheme, Host: where.Host}
	return &door{
		key: rand.Text(), start: where.Path,
		proxy: &httputil.ReverseProxy{
			Transport: transport,
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(target)
				r.Out.Header.Del("Cookie")
				r.Out.Header.Del("Authorization")
			},
		},
	}
}

// ServeHTTP implements http.Handler.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "the page is for reading", http.StatusMethodNotAllowed)
		return
	}
	if r.URL.Path == "/" && d.opens(r.URL.Query().Get(keyName)) {
		http.SetCookie(w, &http.Cookie{Name: keyName, Value: d.key, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode}) //nolint:gosec // loopback, without TLS
		http.Redirect(w, r, d.start, http.StatusFound)
		return
	}
	cookie, err := r.Cookie(keyName)
	if err != nil || !d.opens(cookie.Value) {
		http.Error(w, "open the address that onelbctl page has printed", http.StatusForbidden)
		return
	}
	d.proxy.ServeHTTP(w, r)
}

func (d *door) opens(key string) bool {
	return subtle.ConstantTimeCompare([]byte(key), []byte(d.key)) == 1
}

// errOther: what answers is not what the API server knows of.
var errOther = errors.New("another certificate than the one that the Lease onelb-fencing names: a proxy or another machine answers")

// pinned sends the credentials of a kubeconfig, and to nobody but the owner of the
// certificate with that SHA-256.
func pinned(cfg *rest.Config, certificate string) (http.RoundTripper, error) {
	t, err := rest.TLSConfigFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("credentials of the kubeconfig: %w", err)
	}
	if t == nil {
		t = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	t.InsecureSkipVerify = true //nolint:gosec // the certificate is compared with the one known, which is more than any authority says
	t.ServerName, t.NextProtos = "", []string{"http/1.1"}
	t.VerifyConnection = func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) == 0 {
			return errOther
		}
		sum := sha256.Sum256(s.PeerCertificates[0].Raw)
		if !strings.EqualFold(hex.EncodeToString(sum[:]), certificate) {
			return errOther
		}
		return nil
	}
	rt, err := rest.HTTPWrappersForConfig(cfg, &http.Transport{DialContext: cfg.Dial, TLSClientConfig: t, TLSHandshakeTimeout: timeout, ResponseHeaderTimeout: timeout})
	if err != nil {
		return nil, fmt.Errorf("credentials of the kubeconfig: %w", err)
	}
	return rt, nil
}
