package services

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/onelb/onelb/cmd/onelbctl/page"
	"github.com/onelb/onelb/test/e2e/kit"
)

// opens runs onelbctl page until the test ends, and returns where the page is then,
// with a browser that has followed the printed address.
func (w world) opens(t *testing.T, v viewer) (origin string, browser *http.Client) {
	t.Helper()
	var printed string
	w.Eventually("onelbctl page to find it", func(ctx context.Context) error {
		command := page.Command(v)
		r, out := io.Pipe()
		command.SetOut(out)
		command.SetArgs(nil)
		command.SilenceErrors, command.SilenceUsage = true, true
		run, stop := context.WithCancel(context.WithoutCancel(ctx))
		ended := make(chan error, 1)
		go func() {
			err := command.ExecuteContext(run)
			ended <- err
			_ = out.CloseWithError(fmt.Errorf("onelbctl page has ended: %w", err))
		}()
		line, err := bufio.NewReader(r).ReadString('\n')
		if err != nil {
			stop()
			return err
		}
		t.Cleanup(func() {
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
		printed = strings.TrimSpace(line)
		return nil
	})
	jar, err := cookiejar.New(nil)
	w.Must(err)
	browser = &http.Client{Jar: jar}
	code, body, err := fetch(w.Context(), browser, printed)
	if err != nil || code != http.StatusOK {
		t.Fatalf("%s: %d %v %.200s", printed, code, err, body)
	}
	origin, _, _ = strings.Cut(printed, "/?")
	return origin, browser
}

// fetch gets a URL, with a token if there is one.
func fetch(ctx context.Context, c *http.Client, url string, token ...string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	for _, t := range token {
		if t != "" {
			req.Header.Set("Authorization", "Bearer "+t)
		}
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// insecure: the certificate of the port signs itself.
func insecure() *tls.Config { return &tls.Config{InsecureSkipVerify: true} } //nolint:gosec // and nothing in the lab is a secret

// account makes a service account without rights, and returns a token of it.
func (w world) account(name string) string {
	w.T.Helper()
	w.kubectl("create", "serviceaccount", name)
	w.T.Cleanup(func() {
		if _, err := w.Kubectl(context.Background(), "delete", "serviceaccount", name); err != nil {
			w.T.Error(err)
		}
	})
	r, err := w.Client().CoreV1().ServiceAccounts(kit.Namespace).CreateToken(w.Context(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	w.Must(err)
	return r.Status.Token
}

func (w world) kubectl(args ...string) {
	w.T.Helper()
	_, err := w.Kubectl(w.Context(), args...)
	w.Must(err)
}
