package node

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/klog/v2"
)

const (
	proxyInterval = time.Second
	proxyTimeout  = time.Second
	// proxyRefused is how long kube-proxy may say that it is unwell, which it does
	// itself only after more than a minute without an update of its rules.
	proxyRefused = 3 * time.Second
	// proxySilent is how long it may say nothing: its rules stay in the kernel, so
	// a restart or an upgrade harms nobody.
	proxySilent = 30 * time.Second
	// proxyRecovered is how long it must have been well to count as well again.
	proxyRecovered = 10 * time.Second
)

// proxyAnswer is how kube-proxy answered.
type proxyAnswer int

const (
	proxyNone proxyAnswer = iota // it did not
	proxyWell
	proxyUnwell // it said that it is not
)

// proxyHealth judges kube-proxy by its answers. The zero value has heard none.
type proxyHealth struct {
	unwell bool
	there  bool // it has answered once
	last   proxyAnswer
	since  time.Time // of the first of equal answers
}

// hear takes in an answer, and reports whether kube-proxy is unwell now. Without
// any answer so far there is none on this node, and nothing is wrong with that.
func (p *proxyHealth) hear(a proxyAnswer, now time.Time) bool {
	p.there = p.there || a != proxyNone
	if a != p.last || p.since.IsZero() {
		p.last, p.since = a, now
	}
	lasted := now.Sub(p.since)
	switch {
	case !p.there:
	case a == proxyWell && lasted >= proxyRecovered:
		p.unwell = false
	case a == proxyUnwell && lasted >= proxyRefused, a == proxyNone && lasted >= proxySilent:
		p.unwell = true
	}
	return p.unwell
}

// watchProxy asks this node's kube-proxy for its health until ctx is done.
func (a *Agent) watchProxy(ctx context.Context, tell func(unwell bool)) error {
	gauge := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "onelb_node_kube_proxy_unwell",
		Help: "1 while this node's kube-proxy is unwell, or has been silent for long; addresses are handed to other nodes then."})
	if err := a.registry.Register(gauge); err != nil {
		return err
	}
	client := &http.Client{Timeout: proxyTimeout, Transport: &http.Transport{DialContext: a.dial, DisableKeepAlives: true}}
	ticker := time.NewTicker(proxyInterval)
	defer ticker.Stop()
	var health proxyHealth
	for {
		answer, err := askProxy(ctx, client, a.o.KubeProxyHealth)
		if ctx.Err() != nil {
			return nil
		}
		was := health.unwell
		if now := health.hear(answer, time.Now()); now != was {
			gauge.Set(map[bool]float64{true: 1}[now])
			klog.FromContext(ctx).Info("The health of kube-proxy changed", "unwell", now, "err", err)
			tell(now)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// errProxy is the answer of a kube-proxy that is not well.
var errProxy = errors.New("kube-proxy says that it is not healthy")

func askProxy(ctx context.Context, client *http.Client, address string) (proxyAnswer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/healthz", nil)
	if err != nil {
		return proxyNone, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return proxyNone, err
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return proxyUnwell, errProxy
	}
	return proxyWell, nil
}

// dial connects from the agent's network namespace.
func (a *Agent) dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	if a.o.Enter == nil {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	err = a.o.Enter(func() (err error) {
		c, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return c, err
}
