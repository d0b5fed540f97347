package provider

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"

	"github.com/onelb/onelb/loadbalancer/router"
)

// Reasons of events about routers. They are about the Lease onelb-fencing in
// namespace onelb-system. Reference: docs/reference/events.md.
const (
	// ReasonRouterUnreachable: an instance of a router cannot be reached, or does not let us in.
	ReasonRouterUnreachable = "RouterUnreachable"
	// ReasonRouterProblem: the agent on an instance of a router says that something is wrong there.
	ReasonRouterProblem = "RouterProblem"
	// ReasonRouterMaster: no instance of a router that can be reached carries its traffic, or several do,
	// for ten seconds or longer.
	ReasonRouterMaster = "RouterMaster"
	// ReasonRouterCertificateExpires: our certificate for a router expires within 30 days, or has expired.
	ReasonRouterCertificateExpires = "RouterCertificateExpires"
	// ReasonRouterRestored: what one of the events above was about is over.
	ReasonRouterRestored = "RouterRestored"
)

const (
	// routerInterval is how often the routers' states are looked at.
	routerInterval = 5 * time.Second
	// masterlessFor is how long keepalived may take to find a new master before it is told.
	masterlessFor = 10 * time.Second
)

var (
	routerReachable = metrics.NewGaugeVec(&metrics.GaugeOpts{
		Subsystem: "onelb", Name: "router_instance_reachable",
		Help:           "1 if an instance of a router can be reached and lets us in, 0 if not.",
		StabilityLevel: metrics.ALPHA,
	}, []string{"router", "endpoint"})
	routerProblems = metrics.NewGaugeVec(&metrics.GaugeOpts{
		Subsystem: "onelb", Name: "router_instance_problems",
		Help:           "Number of things that the agent on an instance of a router says are wrong there.",
		StabilityLevel: metrics.ALPHA,
	}, []string{"router", "endpoint"})
	routerMasters = metrics.NewGaugeVec(&metrics.GaugeOpts{
		Subsystem: "onelb", Name: "router_masters",
		Help:           "Number of a router's instances that can be reached and carry its traffic: 1, unless something is wrong.",
		StabilityLevel: metrics.ALPHA,
	}, []string{"router"})
	routerCertificate = metrics.NewGaugeVec(&metrics.GaugeOpts{
		Subsystem: "onelb", Name: "router_client_certificate_expiry_timestamp_seconds",
		Help:           "When our certificate for a router ends.",
		StabilityLevel: metrics.ALPHA,
	}, []string{"router"})

	registerRouterMetrics = sync.OnceFunc(func() {
		legacyregistry.MustRegister(routerReachable, routerProblems, routerMasters, routerCertificate)
	})
)

// stateful is what the watch asks. *router.Client implements it.
type stateful interface{ State() router.State }

// routerWatch tells operators what is wrong with routers, on transitions.
type routerWatch struct {
	routers  map[string]stateful
	recorder record.EventRecorder
	about    runtime.Object
	told     map[string]string    // by what it is about
	wrong    map[string]time.Time // since when a router has no master, or too many
	known    map[string][]string  // the endpoints that a router had at the last look
}

// watchRouters runs until ctx ends.
func (c *Cloud) watchRouters(ctx context.Context, p *parts) {
	if len(p.routers) == 0 {
		return
	}
	lease, err := fencingLease(ctx, p)
	if err != nil {
		return // ctx has ended
	}
	registerRouterMetrics()
	w := &routerWatch{routers: map[string]stateful{}, recorder: p.recorder, about: lease, told: map[string]string{}, wrong: map[string]time.Time{}, known: map[string][]string{}}
	for name, client := range p.routers {
		w.routers[name] = client
	}
	ticker := time.NewTicker(routerInterval)
	defer ticker.Stop()
	for {
		w.look(time.Now())
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// look at all routers, in order.
func (w *routerWatch) look(now time.Time) {
	for _, name := range slices.Sorted(maps.Keys(w.routers)) {
		var expires time.Time
		state := w.routers[name].State()
		w.master(name, state, now)
		w.vanished(name, state)
		for _, i := range state.Instances {
			w.instance(name, i)
			if end := i.CertificateExpires; expires.IsZero() || !end.IsZero() && end.Before(expires) {
				expires = end
			}
		}
		if !expires.IsZero() {
			routerCertificate.WithLabelValues(name).Set(float64(expires.Unix()))
			w.transition("certificate", name, ReasonRouterCertificateExpires, router.Expiring("the cluster's certificate", expires, now))
		}
	}
}

// master tells of a router that no instance, or more than one, carries the traffic of.
func (w *routerWatch) master(name string, s router.State, now time.Time) {
	if s.Stock {
		return // nobody tells: 0 would be an alert
	}
	masters := 0
	for _, i := range s.Instances {
		if i.Master {
			masters++
		}
	}
	routerMasters.WithLabelValues(name).Set(float64(masters))
	meaning, wayOut := s.MasterProblem()
	if meaning == "" {
		delete(w.wrong, name)
		w.transition("master", name, ReasonRouterMaster, nil)
		return
	}
	if w.wrong[name].IsZero() {
		w.wrong[name] = now
	}
	if now.Sub(w.wrong[name]) >= masterlessFor {
		w.transition("master", name, ReasonRouterMaster, fmt.Errorf("%s: %s", meaning, wayOut))
	}
}

// vanished ends what is told of instances that the router has no more, as a machine of a
// stock one that was terminated: nobody could ever make them well again.
func (w *routerWatch) vanished(name string, s router.State) {
	now := make([]string, 0, len(s.Instances))
	for _, i := range s.Instances {
		now = append(now, i.Endpoint)
	}
	for _, endpoint := range w.known[name] {
		if slices.Contains(now, endpoint) {
			continue
		}
		at := instanceOf(name, endpoint)
		w.transition("reach", at, ReasonRouterUnreachable, nil)
		w.transition("problems", at, ReasonRouterProblem, nil)
		delete(w.told, "reach "+at)
		delete(w.told, "problems "+at)
		of := map[string]string{"router": name, "endpoint": endpoint}
		routerReachable.Delete(of)
		routerProblems.Delete(of)
	}
	w.known[name] = now
}

// instanceOf names an instance in events.
func instanceOf(name, endpoint string) string { return fmt.Sprintf("%s (%s)", name, endpoint) }

func (w *routerWatch) instance(name string, i router.InstanceState) {
	at := instanceOf(name, i.Endpoint)
	reachable, away := 0.0, i.Err
	if i.Reachable {
		reachable, away = 1, nil // what it refuses are Services' events
	}
	routerReachable.WithLabelValues(name, i.Endpoint).Set(reachable)
	w.transition("reach", at, ReasonRouterUnreachable, away)
	if !i.Reachable {
		return // what it said last says nothing about now
	}
	routerProblems.WithLabelValues(name, i.Endpoint).Set(float64(len(i.Problems)))
	var problems error
	if len(i.Problems) > 0 {
		problems = errors.New(strings.Join(i.Problems, "; "))
	}
	w.transition("problems", at, ReasonRouterProblem, problems)
}

// transition sends an event when something goes wrong, goes wrong differently,
// or is right again.
func (w *routerWatch) transition(what, at, reason string, err error) {
	now := ""
	if err != nil {
		now = err.Error()
	}
	key := what + " " + at
	switch before := w.told[key]; now {
	case before:
	case "":
		w.recorder.Eventf(w.about, corev1.EventTypeNormal, ReasonRouterRestored, "Router %s is well again: it was %s", at, short(before))
	default:
		w.recorder.Eventf(w.about, corev1.EventTypeWarning, reason, "Router %s: %s", at, short(now))
	}
	w.told[key] = now
}

// short cuts a text to what fits into an event (1024 bytes) beside a name.
func short(s string) string {
	const most = 800
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + " …"
}
