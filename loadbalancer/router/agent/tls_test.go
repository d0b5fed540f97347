package agent

import (
	"errors"
	"os"
	"strings"
	"sync/atomic"
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
		}, want: "names 0 clusters"},
		"certificate of another router": {prepare: func(b *bench) {
			p, err := b.ca.Router("edge2", pki.Validity{})
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

// TestRotation exchanges the authority while a client pushes: in the right order, with
// a client that is ahead of its router, and with half of a pair in place. The
// client is let in all the time.
func TestRotation(t *testing.T) {
	b := newBench(t)
	b.start()
	var gone atomic.Bool
	c := b.client("lab", 1, func(o *router.ClientOptions) {
		seen := false
		o.OnState = func(s router.State) {
			seen = seen || s.Instances[0].Reachable
			if seen && !s.Instances[0].Reachable {
				gone.Store(true)
			}
		}
	})
	pushes := 0
	works := func(when string) {
		t.Helper()
		pushes++
		if err := b.wait(c, c.Set(doc("lab", "203.0.113.100", pushes))); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
	}
	works("at first")
	next, err := pki.NewAuthority("next", pki.Validity{})
	b.must(err)
	end := time.Now().Add(20 * 24 * time.Hour).Truncate(time.Second)
	client, err := next.Client("lab", pki.Validity{To: end})
	b.must(err)

	// The router does not trust the new authority yet.
	b.pair("lab", client)
	b.eventually("told that the renewed certificate is not in use", func() bool {
		return strings.Contains(strings.Join(c.State().Instances[0].Problems, " "), "does not take the renewed certificates")
	})
	works("with a certificate that the router refuses")
	// Now both authorities count.
	b.write("ca.crt", append(append([]byte{}, b.ca.PEM.Cert...), next.PEM.Cert...))
	b.eventually("the renewed certificate is in use", func() bool {
		i := c.State().Instances[0]
		return i.CertificateExpires.Equal(end) && len(i.Problems) == 0
	})
	works("with the renewed certificate")
	// Half of the router's pair: whoever connects is served with the one before.
	server, err := next.Router("edge", pki.Validity{})
	b.must(err)
	b.write("router.crt", server.Cert)
	other := b.client("other", 1)
	b.must(b.wait(other, other.Set(doc("other", "203.0.113.101", 1))))
	b.write("router.key", server.Key)
	works("with the router's renewed certificate")
	// The old authority goes: what it signed is let in no more, what stands goes on.
	b.write("ca.crt", next.PEM.Cert)
	b.eventually("the other cluster's old certificate is refused", func() bool { return !other.State().Instances[0].Reachable })
	works("with the new authority alone")
	if gone.Load() {
		t.Error("the client was out for a while")
	}
}

// TestCertificateTrouble: what is wrong, or will be, is said while it works.
func TestCertificateTrouble(t *testing.T) {
	b := newBench(t)
	o := b.options(&closedListener{})
	c, err := openCertificates(o)
	b.must(err)
	now := time.Now()
	if err := c.trouble(now); err != nil {
		t.Errorf("nothing is wrong: %v", err)
	}
	server, clients := c.expiry()
	for at, want := range map[time.Time]string{
		server.Add(-router.ExpiresWithin + time.Hour):  "server certificate expires at",
		server.Add(time.Second):                        "server certificate has expired at",
		clients.Add(-router.ExpiresWithin + time.Hour): "authority of the clients expires at",
	} {
		if err := c.trouble(at); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("at %s: %v, want %q", at, err, want)
		}
	}
	b.write("router.key", []byte("half"))
	if err := c.trouble(now); err == nil || !strings.Contains(err.Error(), "the ones before are used") {
		t.Errorf("broken key: %v", err)
	}
	if pair, _ := c.current(); pair == nil || !pair.Leaf.NotAfter.Equal(server) {
		t.Error("the pair before is not in use")
	}
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
