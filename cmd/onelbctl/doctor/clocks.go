package doctor

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/onelb/onelb/loadbalancer/inventory"
)

const (
	// mostSkew is what certificates and leases stand; HTTP's clock has whole seconds.
	mostSkew = 5 * time.Second
	// staleLease is how old the lease of a Ready node can be: it is renewed every 10 s.
	staleLease = time.Minute
)

// clocks: those of this machine, of the API server, and of the nodes.
func clocks(ctx context.Context, p *Patient) []Finding {
	sent := time.Now()
	server, err := p.ServerTime(ctx)
	if err != nil {
		return []Finding{unknown("clock", "API server", err.Error())}
	}
	var out []Finding
	here := sent.Add(time.Since(sent) / 2)
	if skew := server.Sub(here); skew.Abs() > mostSkew {
		out = append(out, Finding{
			Check: "clock", Severity: Warning, About: "this machine", Meaning: fmt.Sprintf("its clock and that of the API server are %s apart: ages shown here are wrong by as much", skew.Abs().Round(time.Second)), Remedy: "set the clock (chrony, systemd-timesyncd)",
		})
	}
	leases, err := p.Clients.Kube.CoordinationV1().Leases("kube-node-lease").List(ctx, metav1.ListOptions{})
	if err != nil {
		return append(out, unknown("clock", "nodes", err.Error()))
	}
	for i := range leases.Items {
		l := &leases.Items[i]
		n := p.Inventory.Node(l.Name)
		if n == nil || l.Spec.RenewTime == nil || !inventory.NodeReady(n) {
			continue
		}
		ahead := l.Spec.RenewTime.Sub(server)
		if ahead <= mostSkew && ahead >= -staleLease {
			continue
		}
		out = append(out, Finding{
			Check: "clock", Severity: Warning, About: "node " + l.Name,
			Meaning: fmt.Sprintf("it is Ready, and its lease is of a time that is %s from that of the API server: its clock is wrong. Certificates and login tokens may seem expired there, and logs cannot be compared", ahead.Abs().Round(time.Second)),
			Remedy:  "set the node's clock (chrony, systemd-timesyncd)",
		})
	}
	return out
}

// ServerTime asks an API server for its time, by the header of any answer.
func ServerTime(cfg *rest.Config) func(ctx context.Context) (time.Time, error) {
	return func(ctx context.Context) (time.Time, error) {
		client, err := rest.HTTPClientFor(cfg)
		if err != nil {
			return time.Time{}, err
		}
		url, _, err := rest.DefaultServerUrlFor(cfg)
		if err != nil {
			return time.Time{}, err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(url.String(), "/")+"/version", http.NoBody)
		if err != nil {
			return time.Time{}, err
		}
		resp, err := client.Do(req)
		if err != nil {
			return time.Time{}, err
		}
		defer func() { _ = resp.Body.Close() }()
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16)) // so that the connection can be used again
		date, err := http.ParseTime(resp.Header.Get("Date"))
		if err != nil {
			return time.Time{}, fmt.Errorf("its answers have no readable Date: %w", err)
		}
		return date, nil
	}
}
