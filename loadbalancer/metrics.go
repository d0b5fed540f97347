package loadbalancer

import (
	"errors"
	"sync"
	"time"

	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
)

var (
	ensureSeconds = metrics.NewHistogramVec(&metrics.HistogramOpts{
		Subsystem: "onelb", Name: "ensure_duration_seconds",
		Help:           "Time that giving a Service its addresses took, by result: ok, refused, retry.",
		Buckets:        metrics.ExponentialBuckets(0.002, 2, 14),
		StabilityLevel: metrics.ALPHA,
	}, []string{"result"})
	allocateSeconds = metrics.NewHistogram(&metrics.HistogramOpts{
		Subsystem: "onelb", Name: "allocate_duration_seconds",
		Help:           "Time that allocating one address took.",
		Buckets:        metrics.ExponentialBuckets(0.001, 2, 14),
		StabilityLevel: metrics.ALPHA,
	})
	poolAddresses = metrics.NewGaugeVec(&metrics.GaugeOpts{
		Subsystem: "onelb", Name: "pool_addresses",
		Help:           "Addresses of a pool by family (IPv4, IPv6) and state (total, reserved, used, free, held, ahead, set-aside).",
		StabilityLevel: metrics.ALPHA,
	}, []string{"pool", "family", "state"})
	poolReady = metrics.NewGaugeVec(&metrics.GaugeOpts{
		Subsystem: "onelb", Name: "pool_ready",
		Help:           "1 if a pool can give addresses, 0 if not.",
		StabilityLevel: metrics.ALPHA,
	}, []string{"pool"})
	poolEvents = metrics.NewCounterVec(&metrics.CounterOpts{
		Subsystem: "onelb", Name: "pool_events_total",
		Help:           "Events of a pool by reason, for example OrphanReleased, OrphanReservation, AddressSetAside, AddressConflict.",
		StabilityLevel: metrics.ALPHA,
	}, []string{"pool", "reason"})
	routerFrontends = metrics.NewGaugeVec(&metrics.GaugeOpts{
		Subsystem: "onelb", Name: "router_document_frontends",
		Help:           "Frontends in the desired document of a router.",
		StabilityLevel: metrics.ALPHA,
	}, []string{"router"})

	registerOnce sync.Once
)

// RegisterMetrics registers this package's metrics with the registry that the
// cloud-controller-manager serves. Further calls do nothing.
func RegisterMetrics() {
	registerOnce.Do(func() {
		legacyregistry.MustRegister(ensureSeconds, allocateSeconds, poolAddresses, poolReady, poolEvents, routerFrontends)
	})
}

func observeEnsure(start time.Time, err error) {
	result := "ok"
	switch {
	case errors.Is(err, errRefused):
		result = "refused"
	case err != nil:
		result = "retry"
	}
	ensureSeconds.WithLabelValues(result).Observe(time.Since(start).Seconds())
}

func observeAllocate(start time.Time) { allocateSeconds.Observe(time.Since(start).Seconds()) }
