package monitoring

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const (
	root  = "../.."
	files = root + "/manifests/monitoring"
)

// alert is one rule of alerts.yaml.
type alert struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

func alerts(t *testing.T) []alert {
	t.Helper()
	var file struct {
		Groups []struct {
			Rules []alert `yaml:"rules"`
		} `yaml:"groups"`
	}
	if err := yaml.Unmarshal(read(t, files+"/alerts.yaml"), &file); err != nil {
		t.Fatal(err)
	}
	var out []alert
	for _, g := range file.Groups {
		out = append(out, g.Rules...)
	}
	if len(out) < 20 {
		t.Fatalf("%d alerts", len(out))
	}
	return out
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.FromSlash(name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// panel is what is looked at of a panel of the dashboard.
type panel struct {
	Title       string `json:"title"`
	Type        string `json:"type"`
	Description string `json:"description"`
	ID          int    `json:"id"`
	Targets     []struct {
		Expr         string `json:"expr"`
		LegendFormat string `json:"legendFormat"`
	} `json:"targets"`
	GridPos struct{ X, Y, W, H int } `json:"gridPos"`
}

func panels(t *testing.T) (all []panel, text string) {
	t.Helper()
	var d struct {
		Panels []panel `json:"panels"`
	}
	raw := read(t, files+"/dashboard.json")
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	return d.Panels, string(raw)
}

// metric is a row of the generated reference.
type metric struct {
	kind   string
	labels []string
}

var row = regexp.MustCompile("(?m)^\\| `(onelb_[a-z0-9_]+)` \\| ([a-z]+) \\| ([^|]*) \\|")

// reference is every metric of docs/reference/metrics.md, histograms by the names
// of their series.
func reference(t *testing.T) map[string]metric {
	t.Helper()
	out := map[string]metric{}
	for _, m := range row.FindAllStringSubmatch(string(read(t, root+"/docs/reference/metrics.md")), -1) {
		labels := regexp.MustCompile("[a-z_]+").FindAllString(m[3], -1)
		if m[2] != "histogram" {
			out[m[1]] = metric{m[2], labels}
			continue
		}
		out[m[1]+"_bucket"] = metric{"histogram", append(labels, "le")}
		out[m[1]+"_count"], out[m[1]+"_sum"] = metric{"counter", labels}, metric{"counter", labels}
	}
	if len(out) < 40 {
		t.Fatalf("the reference has %d series", len(out))
	}
	return out
}

// given are labels that Prometheus adds, or the scrape configuration.
var given = []string{"instance", "job", "router"}

var (
	series  = regexp.MustCompile(`(onelb_[a-z0-9_]+)(?:\{([^}]*)\})?`)
	matcher = regexp.MustCompile(`([a-z_]+)\s*(?:=~|!~|!=|=)\s*"`)
	by      = regexp.MustCompile(`\bby \(([^)]*)\)`)
	counted = regexp.MustCompile(`(rate|increase)\((onelb_[a-z0-9_]+)`)
)

// problems are what is wrong with the names in an expression.
func problems(expr string, known map[string]metric) []string {
	var out []string
	var labels []string
	used := series.FindAllStringSubmatch(expr, -1)
	for _, m := range used {
		k, ok := known[m[1]]
		if !ok {
			out = append(out, m[1]+" is no metric of the reference")
			continue
		}
		labels = append(labels, k.labels...)
		for _, l := range matcher.FindAllStringSubmatch(m[2], -1) {
			if !slices.Contains(k.labels, l[1]) && !slices.Contains(given, l[1]) {
				out = append(out, m[1]+" has no label "+l[1])
			}
		}
		asCounter := slices.ContainsFunc(counted.FindAllStringSubmatch(expr, -1), func(c []string) bool { return c[2] == m[1] })
		if counts := k.kind == "counter" || k.kind == "histogram"; asCounter != counts {
			out = append(out, m[1]+" is a "+k.kind+": rate or increase is for counters, and for all of them")
		}
	}
	for _, m := range by.FindAllStringSubmatch(expr, -1) {
		for l := range strings.SplitSeq(m[1], ",") {
			if l = strings.TrimSpace(l); len(used) > 0 && !slices.Contains(labels, l) && !slices.Contains(given, l) {
				out = append(out, "by ("+l+"): no metric in it has that label")
			}
		}
	}
	return out
}

func TestAlertsUseWhatThereIs(t *testing.T) {
	known := reference(t)
	for _, a := range alerts(t) {
		for _, p := range problems(a.Expr, known) {
			t.Errorf("%s: %s", a.Alert, p)
		}
		if !strings.HasPrefix(a.Alert, "Onelb") || a.Annotations["summary"] == "" || a.Annotations["description"] == "" || a.Labels["severity"] != "critical" && a.Labels["severity"] != "warning" {
			t.Errorf("%s: %+v", a.Alert, a)
		}
		if how := string(read(t, root+"/docs/how-to/monitoring.md")); !strings.Contains(how, "`"+a.Alert+"`") {
			t.Errorf("docs/how-to/monitoring.md does not say what to do about %s", a.Alert)
		}
	}
}

func TestDashboardUsesWhatThereIs(t *testing.T) {
	known := reference(t)
	all, text := panels(t)
	ids := map[int]bool{}
	for i, p := range all {
		if ids[p.ID] {
			t.Errorf("%s: its id is there twice", p.Title)
		}
		ids[p.ID] = true
		if p.Type == "row" {
			continue
		}
		if p.Title == "" || p.Description == "" || len(p.Targets) == 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("%+v", p)
		}
		for _, q := range p.Targets {
			for _, problem := range problems(q.Expr, known) {
				t.Errorf("%s: %s", p.Title, problem)
			}
		}
		for _, o := range all[:i] {
			if a, b := p.GridPos, o.GridPos; a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("%s lies over %s", p.Title, o.Title)
			}
		}
	}
	if strings.Contains(text, "${DS_") || !strings.Contains(text, `"${datasource}"`) {
		t.Error("the dashboard has to let people choose their Prometheus")
	}
}

// TestEveryMetricIsShown: a metric that neither the dashboard nor an alert uses
// is one that nobody will see.
func TestEveryMetricIsShown(t *testing.T) {
	_, text := panels(t)
	text += string(read(t, files+"/alerts.yaml"))
	unseen := map[string]string{
		"onelb_node_adopted_total":             "how many addresses a restarted agent found is for its log's reader",
		"onelb_node_announcements_total":       "frames sent are of interest when one looks for a fault",
		"onelb_node_drops_total":               "each drop is another node's takeover",
		"onelb_node_bgp_received_routes":       "a peer that sends routes costs memory, which is seen there",
		"onelb_router_addresses":               "the frontends say more",
		"onelb_router_elements":                "the frontends say more",
		"onelb_router_groups":                  "the frontends say more",
		"onelb_router_peer_errors_total":       "onelb_router_peer_following becomes 0 if it goes on",
		"onelb_guard_hotplug_duration_seconds": "hypervisors differ, and nobody waits for it",
	}
	for name := range reference(t) {
		base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_count"), "_sum")
		if !strings.Contains(text, base) && unseen[base] == "" {
			t.Errorf("%s is neither in the dashboard nor in an alert, and there is no reason for that here", base)
		}
	}
}

func TestNameRulesBite(t *testing.T) {
	known := map[string]metric{"onelb_a": {"gauge", []string{"pool"}}, "onelb_b_total": {"counter", []string{"reason"}}}
	for expr, want := range map[string]int{
		`onelb_a{pool="x"} == 0`:                         0,
		`sum by (reason) (rate(onelb_b_total[5m]))`:      0,
		`onelb_c > 0`:                                    1,
		`onelb_a{node="x"}`:                              1,
		`rate(onelb_a[5m])`:                              1,
		`onelb_b_total > 0`:                              1,
		`sum by (node) (increase(onelb_b_total[5m]))`:    1,
		`max by (pool, instance) (onelb_a{job="onelb"})`: 0,
	} {
		if got := problems(expr, known); len(got) != want {
			t.Errorf("%s: %v", expr, got)
		}
	}
}
