package bench

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestNewRow(t *testing.T) {
	for _, c := range []struct {
		samples []float64
		want    Row
	}{
		{[]float64{3}, Row{N: 1, Min: 3, Median: 3, P95: 3, Max: 3}},
		{[]float64{4, 1}, Row{N: 2, Min: 1, Median: 2.5, P95: 4, Max: 4}},
		{[]float64{3, 1, 2.00049}, Row{N: 3, Min: 1, Median: 2, P95: 3, Max: 3}},
		{[]float64{20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1}, Row{N: 20, Min: 1, Median: 10.5, P95: 19, Max: 20}},
	} {
		before := slices.Clone(c.samples)
		got := newRow("x", "ms", c.samples, []string{"a", "b"})
		c.want.Name, c.want.Unit, c.want.Note = "x", "ms", "a; b"
		if got != c.want {
			t.Errorf("newRow(%v) = %+v, want %+v", before, got, c.want)
		}
		if !slices.Equal(before, c.samples) {
			t.Errorf("newRow changed its samples %v", before)
		}
	}
}

func TestWriteSortsByName(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bench.json")
	for _, c := range []struct {
		rows []Row
		want []string
	}{
		{nil, []string{}},
		{[]Row{{Name: "b"}, {Name: "a"}, {Name: "c"}}, []string{"a", "b", "c"}},
	} {
		if err := Write(file, c.rows); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var got []map[string]any
		if err := json.Unmarshal(data, &got); err != nil {
			t.Fatal(err)
		}
		names := []string{}
		for _, r := range got {
			names = append(names, r["name"].(string))
			if len(r) != 8 {
				t.Errorf("row %v: %d keys, want 8", r, len(r))
			}
		}
		if !slices.Equal(names, c.want) {
			t.Errorf("names %v, want %v", names, c.want)
		}
	}
}

// TestMeasurements: each row is made once, and the reference page explains it.
func TestMeasurements(t *testing.T) {
	page, err := os.ReadFile("../../docs/reference/benchmarks.md")
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	seen := map[string]bool{}
	for _, m := range measurements() {
		for _, c := range m.rows {
			if seen[c.name] || !name.MatchString(c.name) || c.unit == "" {
				t.Errorf("row %q (unit %q): is there already, or has a bad name or no unit", c.name, c.unit)
			}
			seen[c.name] = true
			if !strings.Contains(string(page), "| `"+c.name+"` | "+c.unit+" |") {
				t.Errorf("docs/reference/benchmarks.md does not explain `%s` in %s", c.name, c.unit)
			}
		}
		if m.limit == 0 || m.run == nil {
			t.Errorf("measurement of %s has no limit or does nothing", m.rows[0].name)
		}
	}
}

func TestNoRowMatches(t *testing.T) {
	rows, err := Run(t.Context(), Options{Select: regexp.MustCompile("^nothing-of-that-name$")})
	if err == nil || len(rows) > 0 {
		t.Errorf("Run without a matching row gave %v and error %v", rows, err)
	}
}

func TestQuick(t *testing.T) {
	for _, c := range []struct {
		quick  bool
		times  map[int]int
		lasted time.Duration
	}{
		{false, map[int]int{20: 20, 3: 3}, 10 * time.Minute},
		{true, map[int]int{20: 5, 3: 1}, time.Minute},
	} {
		b := &bench{opts: Options{Quick: c.quick}}
		for full, want := range c.times {
			if got := b.times(full); got != want {
				t.Errorf("quick %v: %d times instead of %d, want %d", c.quick, got, full, want)
			}
		}
		if got := b.lasting(10 * time.Minute); got != c.lasted {
			t.Errorf("quick %v: ten minutes last %v", c.quick, got)
		}
	}
}

func TestCPUTicks(t *testing.T) {
	before, err := cpuTicks(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for begin := time.Now(); time.Since(begin) < 30*time.Second; n++ {
		now, err := cpuTicks(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if now > before {
			return
		}
	}
	t.Errorf("no CPU time after looking %d times", n)
}
