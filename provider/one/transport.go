package one

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

// statusError is an HTTP status that is not 200.
type statusError struct {
	code   int
	status string
	target string // of a redirect
}

func (e *statusError) Error() string {
	if e.target != "" {
		return fmt.Sprintf("HTTP status %s to %s", e.status, e.target)
	}
	return "HTTP status " + e.status
}

var (
	errTooLarge  = errors.New("answer is larger than the limit")
	errMalformed = errors.New("malformed answer")
)

// transport reads each answer whole and bounded, so that no body is left open
// (goca does not close those of other statuses) and none can exhaust memory. It
// follows its CA file.
type transport struct {
	limit  int64
	caFile string

	mu   sync.Mutex // guards what follows
	base http.RoundTripper
	pem  []byte // what base verifies with
}

func newTransport(caFile string, limit int64) (*transport, error) {
	t := &transport{limit: limit, caFile: caFile}
	if caFile == "" {
		t.base = newBase(nil)
		return t, nil
	}
	return t, t.reload()
}

func newBase(roots *x509.CertPool) *http.Transport {
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		// oned closes after each answer, and an idle connection would hold one
		// of its 15.
		DisableKeepAlives:   true,
		TLSHandshakeTimeout: 10 * time.Second,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
	}
}

// reload takes the CA file if it has changed. With an error what was there before
// is kept. Without keep-alives each call has a connection of its own, so that the
// next one is verified anew.
func (t *transport) reload() error {
	if t.caFile == "" {
		return nil
	}
	pem, err := os.ReadFile(t.caFile)
	if err != nil {
		return fmt.Errorf("certificate authorities of the OpenNebula endpoint: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.base != nil && bytes.Equal(pem, t.pem) {
		return nil
	}
	roots, err := parseRoots(pem)
	if err != nil {
		return fmt.Errorf("certificate authorities of the OpenNebula endpoint: %s: %w", t.caFile, err)
	}
	t.base, t.pem = newBase(roots), pem
	return nil
}

// parseRoots refuses a file that ends in the middle of a certificate: it is being
// written.
func parseRoots(file []byte) (*x509.CertPool, error) {
	rest := file
	for {
		block, after := pem.Decode(rest)
		if block == nil {
			break
		}
		rest = after
	}
	if bytes.Contains(rest, []byte("-----BEGIN")) {
		return nil, errors.New("it ends in the middle of a certificate")
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(file) {
		return nil, errors.New("no PEM certificate in it")
	}
	return roots, nil
}

func (t *transport) current() http.RoundTripper {
	// An error is reported by Client.Access; a call goes on with what there is.
	_ = t.reload()
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.base
}

// newHTTPClient follows no redirect: the call carries the password.
func newHTTPClient(t http.RoundTripper) *http.Client {
	return &http.Client{
		Transport:     t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.current().RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		e := &statusError{code: resp.StatusCode, status: resp.Status}
		if resp.StatusCode/100 == 3 {
			e.target = resp.Header.Get("Location")
		}
		return nil, e
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, t.limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(body)) > t.limit {
		return nil, fmt.Errorf("%w of %d bytes", errTooLarge, t.limit)
	}
	if err := checkEnvelope(body); err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// checkEnvelope refuses answers that the XML-RPC decoder would recurse into
// without bound: OpenNebula's have one array, or one struct in a fault.
func checkEnvelope(body []byte) error {
	const most = 4
	if !bytes.Contains(body, []byte("<methodResponse")) {
		return fmt.Errorf("%w: no methodResponse", errMalformed)
	}
	if bytes.Count(body, []byte("<array"))+bytes.Count(body, []byte("<struct")) > most {
		return fmt.Errorf("%w: nested too deep", errMalformed)
	}
	return nil
}
