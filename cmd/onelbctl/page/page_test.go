package page

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"

	"github.com/onelb/onelb/loadbalancer/inventory"
	"github.com/onelb/onelb/provider/page"
)

// cluster has a Lease, and credentials.
type cluster struct {
	lease *coordinationv1.Lease
	token string
}

func (c cluster) Connect() (inventory.Clients, error) {
	if c.lease == nil {
		return inventory.Clients{Kube: fake.NewClientset()}, nil
	}
	return inventory.Clients{Kube: fake.NewClientset(c.lease)}, nil
}

func (c cluster) Config() (*rest.Config, error) {
	return &rest.Config{Host: "https://10.30.0.1:6443", BearerToken: c.token}, nil
}

// manager is a server as the cloud-controller-manager's page is, with a
// certificate of its own, for whoever has the token "mine".
func manager(t *testing.T) (*httptest.Server, *coordinationv1.Lease) {
	t.Helper()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch auth := r.Header.Get("Authorization"); {
		case auth == "":
			w.WriteHeader(http.StatusUnauthorized)
		case auth != "Bearer mine":
			w.WriteHeader(http.StatusForbidden)
		case r.Header.Get("Cookie") != "":
			http.Error(w, "the key is ours alone", http.StatusBadRequest)
		default:
			_, _ = fmt.Fprintf(w, "page at %s", r.URL.Path)
		}
	}))
	t.Cleanup(s.Close)
	sum := sha256.Sum256(s.Certificate().Raw)
	return s, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
		Namespace: inventory.Namespace, Name: inventory.FencingLease,
		Annotations: map[string]string{page.Annotation: s.URL + page.Path, page.CertificateAnnotation: hex.EncodeToString(sum[:])},
	}}
}

// run runs the command until the test ends, and returns what it prints first.
func run(t *testing.T, c cluster, args ...string) (line string, err error) {
	t.Helper()
	cmd := Command(c)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	out := &lines{first: make(chan string, 1)}
	cmd.SetOut(out)
	cmd.SetArgs(args)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- cmd.ExecuteContext(ctx) }()
	t.Cleanup(cancel)
	select {
	case line = <-out.first:
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("interrupted: %v", err)
			}
		})
		return line, nil
	case err := <-done:
		return "", err
	case <-time.After(time.Minute):
		t.Fatal("nothing printed")
		return "", nil
	}
}

type lines struct {
	mu    sync.Mutex // guards text
	text  bytes.Buffer
	first chan string
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.text.Write(p)
	if line, _, ok := strings.Cut(l.text.String(), "\n"); ok {
		select {
		case l.first <- line:
		default:
		}
	}
	return n, err
}

func fetch(t *testing.T, c *http.Client, method, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestPageIsShownToTheBrowserWithTheKey(t *testing.T) {
	_, lease := manager(t)
	url, err := run(t, cluster{lease, "mine"})
	if err != nil {
		t.Fatal(err)
	}
	origin, _, _ := strings.Cut(url, "/?")
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar}
	if code, _ := fetch(t, browser, http.MethodGet, origin+page.Path); code != http.StatusForbidden {
		t.Errorf("without the key: %d", code)
	}
	if code, _ := fetch(t, browser, http.MethodGet, origin+"/?key=wrong"); code != http.StatusForbidden {
		t.Errorf("with another key: %d", code)
	}
	if code, body := fetch(t, browser, http.MethodGet, url); code != http.StatusOK || body != "page at /onelb/" {
		t.Errorf("%d %s", code, body)
	}
	if code, body := fetch(t, browser, http.MethodGet, origin+"/onelb/data/report.json"); code != http.StatusOK || body != "page at /onelb/data/report.json" {
		t.Errorf("%d %s", code, body)
	}
	if code, _ := fetch(t, browser, http.MethodPost, origin+page.Path); code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", code)
	}
}

func TestPageThatCannotBeShown(t *testing.T) {
	_, lease := manager(t)
	without := lease.DeepCopy()
	without.Annotations = nil
	broken := lease.DeepCopy()
	broken.Annotations[page.Annotation] = "http://10.20.0.1/"
	for name, tt := range map[string]struct {
		c    cluster
		args []string
		want string
	}{
		"not installed":   {cluster{nil, "mine"}, nil, "--page-port"},
		"no page":         {cluster{without, "mine"}, nil, "--page-port"},
		"no https":        {cluster{broken, "mine"}, nil, "is no https address"},
		"no credentials":  {cluster{lease, ""}, nil, "does not accept the credentials"},
		"no right":        {cluster{lease, "other"}, nil, "onelb:page"},
		"nobody there":    {cluster{lease, "mine"}, []string{"--address=127.0.0.1:1"}, "port-forward"},
		"no such address": {cluster{lease, "mine"}, []string{"--listen=192.0.2.1:0"}, "--listen"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := run(t, tt.c, tt.args...); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want an error with %q", err, tt.want)
			}
		})
	}
}

// TestCredentialsGoToNobodyElse: a server with another certificate gets no request.
func TestCredentialsGoToNobodyElse(t *testing.T) {
	_, lease := manager(t)
	asked := false
	other := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	other.StartTLS()
	defer other.Close()
	lease.Annotations[page.CertificateAnnotation] = strings.Repeat("0", 64) // that of neither
	_, err := run(t, cluster{lease, "mine"}, "--address="+strings.TrimPrefix(other.URL, "https://"))
	if !errors.Is(err, errOther) || asked {
		t.Errorf("%v, asked %v", err, asked)
	}
}
