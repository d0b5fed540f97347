package agent

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/pki"
)

// TestRefusedCertificates: whoever should not get in does not, and the error says why.
func TestRefusedCertificates(t *testing.T) {
	past := pki.Validity{From: time.Now().Add(-2 * time.Hour), To: time.Now().Add(-time.Hour)}
	for name, test := range map[string]struct {
		prepare func(b *bench)
		change  func(*router.ClientOptions)
		want    string
	}{
		"client of another authority": {prepare: func(b *bench) {
			other, err := pki.NewAuthority("other", pki.Validity{})
			b.must(err)
			p, err := other.Client("lab", pki.Validity{})
			b.must(err)
			b.pair("lab", p)
		}, want: "unknown certificate authority"},
		"client has expired": {prepare: func(b *bench) {
			p, err := b.ca.Client("lab", past)
			b.must(err)
			b.pair("lab", p)
		}, want: "expired certificate"},
		"server's certificate used by a client": {prepare: func(b *bench) {
			p, err := b.ca.Router("edge", pki.Validity{})
			b.must(err)
			b.pair("lab", p)
		}, want: "tls: "},
		"certificate of another cluster": {change: func(o *router.ClientOptions) {
			o.Cluster = "third"
		}, want: `the client certificate is of cluster "lab", the request is for "third"`},
		"other router": {change: func(o *router.ClientOptions) { o.Router = "edge2" }, want: "edge2.router.onelb"},
		"router of another authority": {prepare: func(b *bench) {
			other, err := pki.NewAuthority("other", pki.Validity{})
			b.must(err)
			b.write("trusted.crt", other.PEM.Cert)
		}, change: func(o *router.ClientOptions) { o.CAFile = strings.Replace(o.CAFile, "ca.crt", "trusted.crt", 1) }, want: "unknown authority"},
		"no file":      {change: func(o *router.ClientOptions) { o.KeyFile += ".missing" }, want: "no such file"},
		"no one there": {change: func(o *router.ClientOptions) { o.Endpoints = []string{"127.0.0.1:1"} }, want: "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			if test.prepare != nil {
				test.prepare(b)
			}
			b.start()
			var changes []func(*router.ClientOptions)
			if test.change != nil {
				changes = append(changes, test.change)
			}
			c := b.client("lab", 1, changes...)
			err := b.wait(c, c.Set(doc("lab", "203.0.113.100", 1)))
			if !errors.Is(err, router.ErrUnreachable) || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "endpoint 127.0.0.1:") {
				t.Errorf("error %v, want %q", err, test.want)
			}
			if got := b.size(); got.Frontends != 0 {
				t.Errorf("kernel has %+v", got)
			}
			if i := c.State().Instances[0]; i.Reachable || i.Err == nil {
				t.Errorf("state %+v", i)
			}
		})
	}
}

// TestRotation: new files count without a restart, on both sides.
func TestRotation(t *testing.T) {
	b := newBench(t)
	b.start()
	c := b.client("lab", 1)
	b.must(b.wait(c, c.Set(doc("lab", "203.0.113.100", 1))))
	old := b.ca.PEM.Cert
	var err error
	b.ca, err = pki.NewAuthority("next", pki.Validity{})
	b.must(err)
	// First both sides trust both authorities, then the certificates change.
	b.write("ca.crt", append(append([]byte{}, old...), b.ca.PEM.Cert...))
	server, err := b.ca.Router("edge", pki.Validity{})
	b.must(err)
	b.pair("router", server)
	client, err := b.ca.Client("lab", pki.Validity{})
	b.must(err)
	b.pair("lab", client)
	b.write("ca.crt", b.ca.PEM.Cert)
	b.eventually("the client works with the new ones", func() bool {
		generation := c.Set(doc("lab", "203.0.113.100", 2+int(time.Now().UnixNano()%50)))
		return b.wait(c, generation) == nil && c.State().Instances[0].Reachable
	})
	// Only the new authority counts: the old certificate ends its session.
	b.eventually("session on the new certificate", func() bool {
		generation := c.Set(doc("lab", "203.0.113.100", 60))
		return b.wait(c, generation) == nil
	})
}

func TestNewRefuses(t *testing.T) {
	b := newBench(t)
	good := b.options(nil)
	if _, err := New(good); err == nil || !strings.Contains(err.Error(), "listener") {
		t.Errorf("no listener: %v", err)
	}
	for name, test := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"name":           {func(o *Options) { o.Name = "Edge!" }, "DNS label"},
		"other's cert":   {func(o *Options) { o.Name = "edge2" }, "edge2.router.onelb"},
		"no cert":        {func(o *Options) { o.CertFile = "" }, "no server certificate"},
		"missing key":    {func(o *Options) { o.KeyFile = b.path("none") }, "no such file"},
		"CA without PEM": {func(o *Options) { o.ClientCAFile = b.path("text") }, "no PEM"},
		"state is file":  {func(o *Options) { o.StateDir = b.path("text") }, "state directory"},
	} {
		b.must(os.WriteFile(b.path("text"), []byte("x"), 0o600))
		l := &closedListener{}
		o := b.options(l)
		test.change(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}
