package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// output collects what the program prints while it runs.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func TestRun(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var out output
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, []string{"--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"}, &out) }()
	admin := regexp.MustCompile(`admin: (\S+)`)
	for deadline := time.Now().Add(time.Minute); !strings.Contains(out.String(), "virtual router 0 vr"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("printed only %s", out.String())
		}
	}
	for _, want := range []string{"ONE_XMLRPC=http://127.0.0.1:", "user k8s:k8spass123", "VM 0 node-1 of k8s, RUNNING, NIC 0 172.20.0.11"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in %s", want, out.String())
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, admin.FindStringSubmatch(out.String())[1]+"/state", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Contains(body, []byte(`"name": "node-3"`)) {
		t.Errorf("state: %s %v", body, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
}

func TestRunErrors(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("networkz: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"--timing=slow"}, "--timing"},
		{[]string{"--fixture=" + bad}, bad},
		{[]string{"--fixture=/nonexistent"}, "/nonexistent"},
		{[]string{"--fixture=x", "--empty"}, "exclude"},
		{[]string{"--listen=256.0.0.1:1"}, "256.0.0.1"},
		{[]string{"serve"}, "serve"},
	} {
		if err := run(t.Context(), tc.args, io.Discard); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v: got %v, want %q in it", tc.args, err, tc.want)
		}
	}
}
