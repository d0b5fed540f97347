package agent

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/onelb/onelb/loadbalancer/router"
	"github.com/onelb/onelb/loadbalancer/router/health"
	"github.com/onelb/onelb/loadbalancer/router/nft"
)

type metrics struct {
	apply     prometheus.Histogram
	refusals  *prometheus.CounterVec
	repairs   prometheus.Counter
	frontends prometheus.Gauge
	groups    prometheus.Gauge
	elements  prometheus.Gauge
	addresses prometheus.Gauge
	checks    *prometheus.GaugeVec
	expiry    *prometheus.GaugeVec

	problems   *prometheus.GaugeVec
	master     prometheus.Gauge
	following  *prometheus.GaugeVec
	copies     *prometheus.GaugeVec
	copyErrors prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "onelb", Subsystem: "router", Name: name, Help: help})
	}
	m := &metrics{
		apply: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "onelb", Subsystem: "router", Name: "apply_seconds",
			Help:    "Time from an accepted document's arrival until it is on disk and in the kernel.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "onelb", Subsystem: "router", Name: "refusals_total", Help: "Documents refused, by reason.",
		}, []string{"reason"}),
		repairs: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "onelb", Subsystem: "router", Name: "repairs_total", Help: "Times that somebody else had changed our tables.",
		}),
		frontends: gauge("frontends", "Frontends in the kernel."),
		groups:    gauge("groups", "Groups with backends in the kernel."),
		elements:  gauge("elements", "Elements of all our nftables sets and maps."),
		addresses: gauge("addresses", "Public addresses held."),
		checks: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "onelb", Subsystem: "router", Name: "checked_backends", Help: "Checked backends, by state.",
		}, []string{"state"}),
		expiry: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "onelb", Subsystem: "router", Name: "certificate_expiry_timestamp_seconds",
			Help: "When a certificate ends: server is the agent's own, clients the last authority of the clients'.",
		}, []string{"certificate"}),
	}
	m.problems = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: "onelb", Subsystem: "router", Name: "problem",
		Help: "1 if something is wrong, 0 if not, by part: for example firewall (another table drops what we forward), certificate, storage, program, repair, system.",
	}, []string{"part"})
	m.master = gauge("master", "1 if this instance carries the traffic, 0 if not.")
	m.following = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: "onelb", Subsystem: "router", Name: "peer_following", Help: "1 if another instance tells us its connections, 0 if not.",
	}, []string{"peer"})
	m.copies = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: "onelb", Subsystem: "router", Name: "peer_connections", Help: "Connections of another instance that are copied here.",
	}, []string{"peer"})
	m.copyErrors = prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "onelb", Subsystem: "router", Name: "peer_errors_total", Help: "Messages of other instances that could not be followed wholly.",
	})
	if r != nil {
		r.MustRegister(m.apply, m.refusals, m.repairs, m.frontends, m.groups, m.elements, m.addresses, m.checks, m.expiry,
			m.problems, m.master, m.following, m.copies, m.copyErrors)
	}
	return m
}

func (m *metrics) refused(reason router.Reason) { m.refusals.WithLabelValues(string(reason)).Inc() }

func (m *metrics) applied(took time.Duration) { m.apply.Observe(took.Seconds()) }

func (m *metrics) running(c nft.Counts, addresses int) {
	m.frontends.Set(float64(c.Frontends))
	m.groups.Set(float64(c.Groups))
	m.elements.Set(float64(c.Elements))
	m.addresses.Set(float64(addresses))
}

func (m *metrics) certificates(server, clients time.Time) {
	m.expiry.WithLabelValues("server").Set(float64(server.Unix()))
	m.expiry.WithLabelValues("clients").Set(float64(clients.Unix()))
}

func (m *metrics) problem(part string, is bool) {
	value := 0.0
	if is {
		value = 1
	}
	m.problems.WithLabelValues(part).Set(value)
}

func (m *metrics) role(master bool) {
	m.master.Set(0)
	if master {
		m.master.Set(1)
	}
}

func (m *metrics) backends(results map[health.Target]health.Result) {
	var counts [3]int
	for _, r := range results {
		counts[r.State]++
	}
	for state, name := range [...]string{health.Unknown: "unknown", health.Healthy: "healthy", health.Unhealthy: "unhealthy"} {
		m.checks.WithLabelValues(name).Set(float64(counts[state]))
	}
}
