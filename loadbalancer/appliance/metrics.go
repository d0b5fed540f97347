package appliance

import (
	"errors"
	"sync"

	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"

	"github.com/onelb/onelb/ipam"
)

var (
	contextWrites = metrics.NewCounterVec(&metrics.CounterOpts{
		Subsystem: "onelb", Name: "appliance_context_writes_total",
		Help:           "Changes of the context of a stock virtual router's instances, by result: ok, busy (it was in a state in which it takes none), error.",
		StabilityLevel: metrics.ALPHA,
	}, []string{"router", "result"})
	applianceEntries = metrics.NewGaugeVec(&metrics.GaugeOpts{
		Subsystem: "onelb", Name: "appliance_entries",
		Help:           "Ports that a stock virtual router has to forward for this cluster.",
		StabilityLevel: metrics.ALPHA,
	}, []string{"router"})
	applianceBehind = metrics.NewGaugeVec(&metrics.GaugeOpts{
		Subsystem: "onelb", Name: "appliance_instances_behind",
		Help:           "Instances of a stock virtual router whose context is not as it has to be.",
		StabilityLevel: metrics.ALPHA,
	}, []string{"router"})

	registerOnce sync.Once
)

// RegisterMetrics registers this package's metrics with the registry that the
// cloud-controller-manager serves. Further calls do nothing.
func RegisterMetrics() {
	registerOnce.Do(func() { legacyregistry.MustRegister(contextWrites, applianceEntries, applianceBehind) })
}

func countWrite(router string, err error) {
	result := "ok"
	switch {
	case errors.Is(err, ipam.ErrNotReady):
		result = "busy"
	case err != nil:
		result = "error"
	}
	contextWrites.WithLabelValues(router, result).Inc()
}

func observe(router string, entries int, found map[int]*instance, generation uint64) {
	behind := 0
	for _, i := range found {
		if i.confirmed != generation {
			behind++
		}
	}
	applianceEntries.WithLabelValues(router).Set(float64(entries))
	applianceBehind.WithLabelValues(router).Set(float64(behind))
}
