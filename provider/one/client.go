package one

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/onelb/onelb/ipam"
)

// Defaults of Options.
const (
	DefaultRequestTimeout = 10 * time.Second
	// DefaultMaxInFlight leaves room for other clients of a front-end that
	// serves 15 connections (MAX_CONN) before it stalls.
	DefaultMaxInFlight = 4
	// DefaultMaxResponse holds the pool of some 8,000 VMs.
	DefaultMaxResponse = 64 << 20
	// DefaultCacheTTL is how old a list of VMs may be: less than the 5 s after which
	// the node controllers ask again, and longer than it takes them to initialise a
	// hundred Nodes.
	DefaultCacheTTL = 4 * time.Second
)

// Options configures a Client.
type Options struct {
	// Endpoint is the URL of OpenNebula's XML-RPC API, such as
	// http://one.example.org:2633/RPC2. The proxy settings of the environment
	// (HTTP_PROXY, HTTPS_PROXY, NO_PROXY) apply to it.
	Endpoint string
	// Credentials gives user and password; see CredentialFile, CredentialEnv.
	Credentials CredentialSource
	// CAFile is a PEM file with the certificate authorities of an https
	// endpoint. It is read again when it changes. Empty: those of the system.
	CAFile string
	// RequestTimeout bounds one call, including the wait for one of the
	// connections. Zero: DefaultRequestTimeout.
	RequestTimeout time.Duration
	// MaxInFlight bounds the calls on the wire. Zero: DefaultMaxInFlight.
	MaxInFlight int
	// MaxResponse bounds one answer, in bytes. Zero: DefaultMaxResponse.
	MaxResponse int64
	// CacheTTL is how long a list of all VMs, or those of zones, clusters and
	// hosts (30 times as long), may be reused. Zero: DefaultCacheTTL.
	CacheTTL time.Duration
}

// Client talks to one OpenNebula front-end.
type Client struct {
	endpoint  string // without user and password
	http      *http.Client
	session   *session
	access    access
	authority *transport
	timeout   time.Duration
	slots     chan struct{} // one token for each call on the wire
	spellings spellings

	vms      *cached[[]VM]
	clusters *cached[map[int]Place]
	hosts    *cached[map[int]Place]
	zone     *cached[string]
}

var _ ipam.Networks = (*Client)(nil)

// New makes a client. It reads the CA file and the credentials, which must be
// well-formed, but calls nobody: see Check.
func New(o Options) (*Client, error) {
	endpoint, err := parseEndpoint(o.Endpoint)
	if err != nil {
		return nil, err
	}
	if o.Credentials == nil {
		return nil, errors.New("OpenNebula client: no credentials are configured")
	}
	o.setDefaults()
	if o.RequestTimeout < 0 || o.MaxInFlight < 0 || o.MaxResponse < 0 || o.CacheTTL < 0 {
		return nil, errors.New("OpenNebula client: a negative timeout or limit is configured")
	}
	s := &session{source: o.Credentials}
	if _, err := s.current(); err != nil {
		return nil, err
	}
	transport, err := newTransport(o.CAFile, o.MaxResponse)
	if err != nil {
		return nil, err
	}
	registerMetrics()
	c := &Client{
		endpoint: endpoint, http: newHTTPClient(transport), session: s, authority: transport,
		timeout: o.RequestTimeout, slots: make(chan struct{}, o.MaxInFlight),
	}
	c.vms = newCached(o.CacheTTL, o.RequestTimeout, c.readVMs)
	c.clusters = newCached(30*o.CacheTTL, o.RequestTimeout, c.readClusters)
	c.hosts = newCached(30*o.CacheTTL, o.RequestTimeout, c.readHosts)
	c.zone = newCached(30*o.CacheTTL, 2*o.RequestTimeout, c.readZone)
	return c, nil
}

func (o *Options) setDefaults() {
	if o.RequestTimeout == 0 {
		o.RequestTimeout = DefaultRequestTimeout
	}
	if o.MaxInFlight == 0 {
		o.MaxInFlight = DefaultMaxInFlight
	}
	if o.MaxResponse == 0 {
		o.MaxResponse = DefaultMaxResponse
	}
	if o.CacheTTL == 0 {
		o.CacheTTL = DefaultCacheTTL
	}
}

// parseEndpoint refuses what http.Client would only refuse at the first call,
// and credentials in the URL, since the endpoint is part of every error text.
func parseEndpoint(endpoint string) (string, error) {
	u, err := url.Parse(endpoint)
	switch {
	case err != nil:
		return "", errors.New("OpenNebula endpoint is not a URL: it must look like http://HOST:2633/RPC2")
	case u.User != nil:
		return "", errors.New("OpenNebula endpoint: user and password belong into the credentials, not into the URL")
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return "", fmt.Errorf("OpenNebula endpoint %q must look like http://HOST:2633/RPC2", endpoint)
	}
	return u.String(), nil
}
