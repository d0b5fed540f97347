package provider

import (
	"errors"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-base/metrics/legacyregistry"

	"github.com/onelb/onelb/loadbalancer/router"
)

// standing is a router's state that a test sets.
type standing struct{ now router.State }

func (s *standing) State() router.State { return s.now }

// TestRouterEvents: each trouble is told once, and its end too.
func TestRouterEvents(t *testing.T) {
	edge := &standing{now: router.State{Instances: []router.InstanceState{{Endpoint: "10.0.0.1:9443"}}}}
	w, recorder := watchOf("edge", edge)
	instance, now := &edge.now.Instances[0], time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, step := range []struct {
		name   string
		change func()
		want   string
	}{
		{"not tried yet", func() {}, ""},
		{"away", func() { instance.Err = errors.New("connection refused") }, "Warning RouterUnreachable Router edge (10.0.0.1:9443): connection refused"},
		{"still away", func() {}, ""},
		{"back", func() {
			instance.Reachable, instance.Master, instance.Err, instance.CertificateExpires = true, true, nil, now.Add(31*24*time.Hour)
		}, "Normal RouterRestored Router edge (10.0.0.1:9443) is well again: it was connection refused"},
		{"refuses a document: that is a Service's event", func() { instance.Err = &router.RejectedError{} }, ""},
		{"complains", func() { instance.Problems = []string{"a", "b"} }, "Warning RouterProblem Router edge (10.0.0.1:9443): a; b"},
		{"complains less", func() { instance.Problems = []string{"a"} }, "Warning RouterProblem Router edge (10.0.0.1:9443): a"},
		{"is content", func() { instance.Problems = nil }, "Normal RouterRestored Router edge (10.0.0.1:9443) is well again: it was a"},
		{"its end is near", func() { now = now.Add(2 * 24 * time.Hour) }, "Warning RouterCertificateExpires Router edge: the cluster's certificate expires at 2026-02-01T00:00:00Z: renew it (onelbctl router rotate)"},
		{"nearer", func() { now = now.Add(time.Hour) }, ""},
		{"over", func() { now = now.Add(31 * 24 * time.Hour) }, "Warning RouterCertificateExpires Router edge: the cluster's certificate has expired at 2026-02-01T00:00:00Z: renew it (onelbctl router rotate)"},
		{"renewed", func() { instance.CertificateExpires = now.Add(1000 * 24 * time.Hour) }, "Normal RouterRestored Router edge is well again: it was the cluster's certificate has expired at 2026-02-01T00:00:00Z: renew it (onelbctl router rotate)"},
		{"no master: keepalived may be at it", func() { instance.Master = false }, ""},
		{"still none", func() { now = now.Add(9 * time.Second) }, ""},
		{"for too long", func() { now = now.Add(time.Second) }, "Warning RouterMaster Router edge: no instance is master: nobody answers for its public addresses: see keepalived on the instances: one has to have the floating addresses of the virtual router"},
		{"a master", func() { instance.Master = true }, "Normal RouterRestored Router edge is well again: it was no instance is master: nobody answers for its public addresses: see keepalived on the instances: one has to have the floating addresses of the virtual router"},
		{"a moment without", func() { instance.Master = false }, ""},
		{"over", func() { now, instance.Master = now.Add(time.Minute), true }, ""},
	} {
		step.change()
		w.look(now)
		got := ""
		select {
		case got = <-recorder.Events:
		default:
		}
		if got != step.want || len(recorder.Events) > 0 {
			t.Errorf("%s: event %q and %d more, want %q", step.name, got, len(recorder.Events), step.want)
		}
	}
}

// TestStockRouterHasNoMaster: nobody tells who is master of a stock appliance, so nothing
// is said of it, neither by an event nor by the gauge.
func TestStockRouterHasNoMaster(t *testing.T) {
	registerRouterMetrics()
	stock := &standing{now: router.State{Stock: true, Instances: []router.InstanceState{
		{Endpoint: "VM 3", Reachable: true}, {Endpoint: "VM 4", WasMaster: true, Err: errors.New("gone")},
	}}}
	w, recorder := watchOf("stock", stock)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	w.look(now)
	<-recorder.Events // VM 4 is unreachable
	w.look(now.Add(time.Hour))
	if len(recorder.Events) > 0 {
		t.Errorf("event %q", <-recorder.Events)
	}
	if has(t, "onelb_router_masters", "stock") {
		t.Error("the gauge says how many masters there are")
	}
	if meaning, _ := stock.now.MasterProblem(); meaning != "" {
		t.Error(meaning)
	}
}

// TestVanishedInstance: an instance that the router has no more leaves neither a warning
// nor a metric behind.
func TestVanishedInstance(t *testing.T) {
	registerRouterMetrics()
	stock := &standing{now: router.State{Stock: true, Instances: []router.InstanceState{
		{Endpoint: "VM 12", Reachable: true, Problems: []string{"closed"}}, {Endpoint: "VM 13", Err: errors.New("UNKNOWN")}, {Endpoint: "VM 14", Reachable: true},
	}}}
	w, recorder := watchOf("changing", stock)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	w.look(now)
	for range 2 {
		<-recorder.Events // VM 12 and 13
	}
	stock.now.Instances = stock.now.Instances[2:]
	w.look(now)
	for _, want := range []string{
		"Normal RouterRestored Router changing (VM 12) is well again: it was closed",
		"Normal RouterRestored Router changing (VM 13) is well again: it was UNKNOWN",
	} {
		if got := <-recorder.Events; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	w.look(now)
	if len(recorder.Events) > 0 {
		t.Errorf("and %q", <-recorder.Events)
	}
	for metric, wants := range map[string]map[string]bool{
		"onelb_router_instance_reachable": {"VM 12": false, "VM 13": false, "VM 14": true},
		"onelb_router_instance_problems":  {"VM 12": false, "VM 14": true},
	} {
		for endpoint, want := range wants {
			if has(t, metric, endpoint) != want {
				t.Errorf("%s of %s: %v, want %v", metric, endpoint, !want, want)
			}
		}
	}
	if len(w.told) != 2 { // of VM 14
		t.Errorf("kept %v", w.told)
	}
}

// watchOf watches one router.
func watchOf(name string, s stateful) (*routerWatch, *record.FakeRecorder) {
	recorder := record.NewFakeRecorder(10)
	return &routerWatch{
		routers: map[string]stateful{name: s}, recorder: recorder, about: &coordinationv1.Lease{},
		told: map[string]string{}, wrong: map[string]time.Time{}, known: map[string][]string{},
	}, recorder
}

// has reports whether a metric has a sample with this value of a label.
func has(t *testing.T, metric, value string) bool {
	t.Helper()
	families, err := legacyregistry.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == metric && l.GetValue() == value {
					return true
				}
			}
		}
	}
	return false
}
