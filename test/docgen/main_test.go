package main

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// root is the repository; tests run in their package's directory.
const root = "../.."

func TestReferencePagesShowWhatTheCodeSays(t *testing.T) {
	if err := run(root, true); err != nil {
		t.Error(err)
	}
}

func TestEveryGeneratorIsUsedAndFindsSomething(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(root, "docs/reference/*.md"))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	for name, generate := range generators {
		if !strings.Contains(all.String(), "<!-- generated: "+name+" -->") {
			t.Errorf("no page has a part %s", name)
		}
		text, err := generate(root)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if strings.Count(text, "\n") < 4 {
			t.Errorf("%s finds nothing: %q", name, text)
		}
	}
}

func TestMetricRows(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "metrics.go", `package x

func f() {
	gauge := func(name, help string) any {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "a", Name: name, Help: help})
	}
	gauge("b", "B.")
	metrics.NewCounterVec(&metrics.CounterOpts{Subsystem: "a", Name: "c", Help: "C | " + "D."}, []string{"x", "y"})
	other(Options{Name: "no", Help: "metric"})
}
`, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"| `a_b` | gauge |  | B. |\n", "| `a_c` | counter | `x`, `y` | C \\| D. |\n"}
	if got := metricRows(file); !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestFillKeepsWhatIsWrittenByHand(t *testing.T) {
	page := "before\n<!-- generated: x -->\nold\n<!-- end -->\nbetween\n<!-- generated: y -->\n<!-- end -->\nafter\n"
	got, err := fill([]byte(page), func(name string) (string, error) { return "new " + name + "\n", nil })
	if err != nil {
		t.Fatal(err)
	}
	want := "before\n<!-- generated: x -->\nnew x\n<!-- end -->\nbetween\n<!-- generated: y -->\nnew y\n<!-- end -->\nafter\n"
	if string(got) != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestCheckChangesNothingAndFails(t *testing.T) {
	dir := t.TempDir()
	page := filepath.Join(dir, "docs/reference/annotations.md")
	stale := "<!-- generated: annotations -->\nold\n<!-- end -->\n"
	if err := os.MkdirAll(filepath.Dir(page), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(page, []byte(stale), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(dir, true); err == nil {
		t.Error("a stale page passed the check")
	}
	if text, _ := os.ReadFile(page); string(text) != stale {
		t.Errorf("check changed the page to %q", text)
	}
	if err := run(dir, false); err != nil {
		t.Fatal(err)
	}
	if err := run(dir, true); err != nil {
		t.Errorf("after an update: %v", err)
	}
}
