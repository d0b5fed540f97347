package one

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
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
// (goca does not close those of other statuses) and none can exhaust memory.
type transport struct {
	base  http.RoundTripper
	limit int64
}

func newTransport(caFile string, limit int64) (*transport, error) {
	base := &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		// oned closes after each answer, and an idle connection would hold one
		// of its 15.
		DisableKeepAlives:   true,
		TLSHandshakeTimeout: 10 * time.Second,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if caFile != "" {
		pem, err := readCAFile(caFile)
		if err != nil {
			return nil, err
		}
		base.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !base.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("certificate authorities of the OpenNebula endpoint: no PEM certificate in %s", caFile)
		}
	}
	return &transport{base: base, limit: limit}, nil
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
	resp, err := t.base.RoundTrip(r)
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
