package guard

import (
	"sync"
	"time"

	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
)

var (
	hotplugs = metrics.NewCounterVec(&metrics.CounterOpts{
		Subsystem: "onelb", Name: "guard_hotplugs_total",
		Help:           "Hotplugs of aliases of guarded addresses by operation (attach, detach) and result: ok, failed (by the driver, afterwards), busy (machine in another state), refused.",
		StabilityLevel: metrics.ALPHA,
	}, []string{"operation", "result"})
	hotplugSeconds = metrics.NewHistogramVec(&metrics.HistogramOpts{
		Subsystem: "onelb", Name: "guard_hotplug_duration_seconds",
		Help:           "Time from the request of a hotplug until its outcome was seen, by operation (attach, detach).",
		Buckets:        metrics.ExponentialBuckets(0.25, 2, 10),
		StabilityLevel: metrics.ALPHA,
	}, []string{"operation"})
	candidates = metrics.NewGaugeVec(&metrics.GaugeOpts{
		Subsystem: "onelb", Name: "guard_candidates",
		Help:           "Candidates of all addresses of a guarded pool by state (Attaching, Attached, Detaching).",
		StabilityLevel: metrics.ALPHA,
	}, []string{"pool", "state"})
	poolFiltered = metrics.NewGaugeVec(&metrics.GaugeOpts{
		Subsystem: "onelb", Name: "pool_spoofing_filter",
		Help:           "1 if OpenNebula drops what nodes send from addresses of an L2 pool, 0 if not.",
		StabilityLevel: metrics.ALPHA,
	}, []string{"pool"})

	registerOnce sync.Once
)

// RegisterMetrics registers this package's metrics with the registry that the
// cloud-controller-manager serves. Further calls do nothing.
func RegisterMetrics() {
	registerOnce.Do(func() { legacyregistry.MustRegister(hotplugs, hotplugSeconds, candidates, poolFiltered) })
}

func observeHotplug(attach bool, result string, took time.Duration) {
	operation := "detach"
	if attach {
		operation = "attach"
	}
	hotplugs.WithLabelValues(operation, result).Inc()
	if took > 0 {
		hotplugSeconds.WithLabelValues(operation).Observe(took.Seconds())
	}
}
