package monitoring

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/onelb/onelb/test/lab/debian"
	"github.com/onelb/onelb/test/lab/kubebin"
)

// promtool runs Prometheus' own checker.
func promtool(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cache, err := kubebin.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	p, err := debian.Find(t.Context(), cache, "promtool", "prometheus")
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), p.Path, args...)
	c.Env = p.Env()
	out, err := c.CombinedOutput()
	return string(out), err
}

// needsRoot skips a test that may have to fetch promtool: with root only, and not
// in `make check`, which is quick.
func needsRoot(t *testing.T) {
	t.Helper()
	if os.Getenv("ONELB_CHECK") != "" {
		t.Skip("make check fetches nothing: make test runs this")
	}
	if os.Getuid() != 0 {
		t.Skip("fetching promtool needs root: make test runs this")
	}
}

func TestPrometheusTakesTheRules(t *testing.T) {
	needsRoot(t)
	if out, err := promtool(t, "check", "rules", "--lint-fatal", files+"/alerts.yaml"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

var discovery = regexp.MustCompile(`(?m)^(\s*)kubernetes_sd_configs: .*$`)

// TestPrometheusTakesTheScrapeConfiguration: Debian builds Prometheus without the
// discovery of Kubernetes, so fixed targets stand in for it.
func TestPrometheusTakesTheScrapeConfiguration(t *testing.T) {
	needsRoot(t)
	text := read(t, files+"/scrape.yaml")
	if found := len(discovery.FindAll(text, -1)); found != 2 {
		t.Fatalf("%d jobs with discovery, want 2", found)
	}
	dir := t.TempDir()
	for name, text := range map[string][]byte{
		"scrape.yaml": discovery.ReplaceAll(text, []byte(`${1}static_configs: [{targets: ["127.0.0.1:1"]}]`)),
		"alerts.yaml": read(t, files+"/alerts.yaml"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := promtool(t, "check", "config", "--syntax-only", filepath.Join(dir, "scrape.yaml")); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestAlertsFire runs testdata/alerts.yaml, which has series and the alerts that
// they lead to.
func TestAlertsFire(t *testing.T) {
	needsRoot(t)
	if out, err := promtool(t, "test", "rules", "testdata/alerts.yaml"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestCheckerBites: the checker says no to what is wrong.
func TestCheckerBites(t *testing.T) {
	needsRoot(t)
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("groups: [{name: x, rules: [{alert: X, expr: 'sum by (pool onelb_pool_ready'}]}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := promtool(t, "check", "rules", bad); err == nil {
		t.Errorf("accepted:\n%s", out)
	}
}
