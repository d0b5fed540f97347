package one

import (
	"sync"

	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
)

var (
	requestsTotal = metrics.NewCounterVec(&metrics.CounterOpts{
		Name:           "onelb_opennebula_requests_total",
		Help:           "Calls to OpenNebula by method and outcome: OK, OpenNebula's error name, or TIMEOUT, CANCELED, UNREACHABLE, HTTP, FAULT, MALFORMED.",
		StabilityLevel: metrics.ALPHA,
	}, []string{"method", "code"})
	requestDuration = metrics.NewHistogramVec(&metrics.HistogramOpts{
		Name:           "onelb_opennebula_request_duration_seconds",
		Help:           "Time from sending a call to OpenNebula to its answer, by method.",
		Buckets:        []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20},
		StabilityLevel: metrics.ALPHA,
	}, []string{"method"})
	authenticated = metrics.NewGauge(&metrics.GaugeOpts{
		Name:           "onelb_opennebula_authenticated",
		Help:           "1 if OpenNebula accepted our credentials at the last call, 0 if it refused them. No Node is deleted and no address given up meanwhile.",
		StabilityLevel: metrics.ALPHA,
	})
	unusedFiles = metrics.NewGaugeVec(&metrics.GaugeOpts{
		Name:           "onelb_opennebula_unusable_files",
		Help:           "1 if the file on disk (credentials, ca) cannot be used and what it held before still is, 0 if not.",
		StabilityLevel: metrics.ALPHA,
	}, []string{"file"})
	tokenExpiry = metrics.NewGauge(&metrics.GaugeOpts{
		Name:           "onelb_opennebula_token_expiry_timestamp_seconds",
		Help:           "When the login token in use expires, in seconds since 1970; 0 if it never does, or if the credentials are a password.",
		StabilityLevel: metrics.ALPHA,
	})
	requestsInFlight = metrics.NewGauge(&metrics.GaugeOpts{
		Name:           "onelb_opennebula_inflight",
		Help:           "Calls to OpenNebula that are waiting for their answer.",
		StabilityLevel: metrics.ALPHA,
	})
)

var registerMetrics = sync.OnceFunc(func() {
	legacyregistry.MustRegister(requestsTotal, requestDuration, requestsInFlight, authenticated, unusedFiles, tokenExpiry)
})
